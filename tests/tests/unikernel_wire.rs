//! Our unikernel's HTTP on the wire: real clients, slow and rude ones, many at once, and a bad line.
//! Needs root, the unikernel (`make unikernel`), and curl, wrk, nginx and python3 (`make setup`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use control::driver::unikernel::Unikernel;
use control::driver::{Driver, InstanceSpec, Resources};
use control::model::{AddressPair, Guest, InstanceId, OwnerId, ServiceName, Technology};
use control::netlink::{BridgeSpec, Net, PortSpec};
use control::reconcile::attachment;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tests::lab::unikernel::Unikernels;
use tests::lab::{Namespace, is_root};

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 83, 0, 9);
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace with one unikernel on spt.
struct Wire {
    node: Namespace,
    runtime: tokio::runtime::Runtime,
    driver: Unikernel,
    id: InstanceId,
    /// Its tender ends with them.
    _unikernels: Unikernels,
    _dir: tempfile::TempDir,
}

impl Wire {
    /// `line` is put between the tap and the unikernel; `None` where something is missing, which has been said.
    fn new(test: &str, owner: u64, line: Option<fn(OwnedFd, UnixDatagram)>) -> Option<Self> {
        if !is_root(test) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("selvedge-wire-").tempdir().unwrap();
        let unikernels = Unikernels::copy(dir.path(), test).unwrap()?;
        let node = Namespace::create(&format!("svw-{}-{owner:x}", std::process::id())).unwrap();
        let owner = OwnerId::from_number(owner);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let driver = Unikernel::new(Technology::Spt, unikernels.settings(Technology::Spt), owner.clone()).unwrap();
        let spec = InstanceSpec {
            id: InstanceId::from_number(1),
            owner: owner.clone(),
            service: ServiceName::new("wire").unwrap(),
            image: unikernels.image(Technology::Spt).to_string_lossy().into_owned(),
            guest: Guest { arguments: vec!["content=5000000".to_owned()], ..Guest::default() },
            resources: Resources { vcpus: 4.0, memory_mib: 64 },
        };
        let start = async {
            let net = Net::new(owner).unwrap();
            let bridge = BridgeSpec {
                name: "sv-wire".to_owned(),
                v4: (Ipv4Addr::new(10, 83, 0, 1), "10.83.0.0/24".parse().unwrap()),
                v6: None,
                shaping: None,
            };
            net.ensure_bridge(&bridge).await.unwrap();
            let addresses = AddressPair { v4: Some(GUEST), v6: None };
            let port = PortSpec { instance: spec.id.clone(), bridge, addresses, shaping: None, kind: driver.port() };
            let mut attachment = attachment(&mut net.create_port(&port).await.unwrap()).unwrap();
            if let Some(line) = line {
                let (ours, theirs) = UnixDatagram::pair().unwrap();
                theirs.set_nonblocking(true).unwrap();
                let tap = attachment.descriptor.replace(theirs.into()).unwrap();
                std::thread::spawn(move || line(tap, ours));
            }
            driver.start(&spec, Some(attachment)).await.unwrap();
        };
        node.run_in(|| runtime.block_on(start)).unwrap();
        Some(Self { node, runtime, driver, id: spec.id, _unikernels: unikernels, _dir: dir })
    }

    /// What a program in the node's namespace prints.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.node.command(program).unwrap().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn on_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.node.run_in(work).unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.driver.stop(&self.id, Duration::ZERO));
    }
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((GUEST, 80)), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Content of a whole answer, whose head has to be as long as `Content-Length` says.
fn content(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..end]));
    &answer[end..]
}

fn is_the_pattern(content: &[u8], from: usize, length: usize) {
    assert_eq!(content.len(), length);
    let wrong = content.iter().enumerate().position(|(at, byte)| usize::from(*byte) != (from + at) % 251);
    assert_eq!(wrong, None, "the first wrong byte");
}

#[test]
fn real_clients_are_served() {
    let Some(wire) = Wire::new("real_clients_are_served", 0x61, None) else { return };
    let url = |path: &str| format!("http://{GUEST}{path}");
    let curl = |arguments: &[&str]| wire.run("curl", &[&["-sS", "--max-time", "60"], arguments].concat());
    assert_eq!(curl(&[&url("/healthz")]), "ok\n");
    let form = "%{http_code} %{size_download} %{num_connects} ";
    for (arguments, said) in [
        (&["-o", "/dev/null", &url("/content/20")][..], "200 20000000 1 "),
        (&["-I", "-o", "/dev/null", &url("/content")], "200 0 1 "),
        (&["-r", "1-250", "-o", "/dev/null", &url("/content")], "206 250 1 "),
        (&["-r", "-7", "-o", "/dev/null", &url("/content")], "206 7 1 "),
        (&["-r", "5000000-", "-o", "/dev/null", &url("/content")], "416 0 1 "),
        (&["-o", "/dev/null", &url("/nothing")], "404 10 1 "),
        (&["-X", "DELETE", "-o", "/dev/null", &url("/")], "405 0 1 "),
        (&["-d", "a=b", "-o", "/dev/null", &url("/")], "405 0 1 "),
        (&["-0", "-o", "/dev/null", &url("/healthz")], "200 3 1 "),
        // Two requests over one connection.
        (&["-o", "/dev/null", &url("/healthz"), "-o", "/dev/null", &url("/content")], "200 3 1 200 5000000 0 "),
    ] {
        assert_eq!(curl(&[arguments, &["-w", form]].concat()), said, "{arguments:?}");
    }
    // A download that is taken up again where it was.
    let part = tempfile::NamedTempFile::new().unwrap();
    let place = part.path().to_str().unwrap();
    curl(&["-r", "0-999999", "-o", place, &url("/content")]);
    curl(&["-C", "-", "-o", place, &url("/content")]);
    is_the_pattern(&std::fs::read(place).unwrap(), 0, 5_000_000);

    let python = format!(
        "import http.client\nc = http.client.HTTPConnection('{GUEST}')\n\
         for n in range(50):\n c.request('GET', '/content/1', headers={{'Range': f'bytes={{n}}-{{n + 9}}'}})\n \
         r = c.getresponse()\n assert (r.status, list(r.read())) == (206, list(range(n, n + 10)))\nprint('same')"
    );
    assert_eq!(wire.run("python3", &["-c", &python]), "same\n");

    // Behind a proxy that keeps connections.
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "daemon off; pid {0}/pid; error_log stderr; worker_processes 1; user root;\nevents {{ }}\nhttp {{ access_log off;\n\
         upstream guest {{ server {GUEST}; keepalive 4; }}\nserver {{ listen 127.0.0.1:8080; location / {{ \
         proxy_pass http://guest; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}",
        dir.path().display()
    );
    std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
    let mut nginx = wire.node.command("nginx").unwrap();
    let config = dir.path().join("nginx.conf");
    let mut nginx = nginx.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wire.node.up("lo").unwrap();
    let through = curl(&[
        "--retry",
        "20",
        "--retry-connrefused",
        "--retry-delay",
        "1",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download}",
        "http://127.0.0.1:8080/content/5",
    ]);
    let again = curl(&["-r", "3-5", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8080/content/5"]);
    nginx.kill().unwrap();
    nginx.wait().unwrap();
    assert_eq!((through.as_str(), again.as_str()), ("200 5000000", "206"));

    let wrk = wire.run("wrk", &["-t", "2", "-c", "100", "-d", "2", "--timeout", "60s", &url("/content/1")]);
    assert!(!wrk.contains("Socket errors") && !wrk.contains("Non-2xx"), "{wrk}");
}

#[test]
fn slow_and_rude_clients_harm_nobody() {
    let Some(wire) = Wire::new("slow_and_rude_clients_harm_nobody", 0x62, None) else { return };
    wire.on_node(|| {
        let ask = |stream: &mut TcpStream, rest: &str| {
            stream.write_all(format!("GET /content HTTP/1.1\r\nHost: x\r\n{rest}\r\n").as_bytes()).unwrap();
        };
        // Readers that do not read, and one whose request never ends.
        let mut slow: Vec<TcpStream> = (0..50).map(|_| connect()).collect();
        for stream in &mut slow {
            ask(stream, "");
        }
        let mut endless = connect();
        endless.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
        // Gone without a word, with answers on their way.
        for _ in 0..20 {
            let mut gone = connect();
            ask(&mut gone, "");
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: the option's structure lives through the call, and its size is given.
            let reset = unsafe {
                libc::setsockopt(
                    gone.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    (&raw const linger).cast(),
                    size_of::<libc::linger>() as libc::socklen_t,
                )
            };
            assert_eq!(reset, 0);
        }

        // Others are served meanwhile.
        let mut stream = connect();
        ask(&mut stream, "Connection: close\r\n");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        is_the_pattern(content(&answer), 0, 5_000_000);

        // Half closed: what was asked for still comes, whole.
        let mut half = connect();
        ask(&mut half, "");
        half.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        half.read_to_end(&mut answer).unwrap();
        is_the_pattern(content(&answer), 0, 5_000_000);

        // Pipelined, in pieces of odd sizes.
        let mut piped = connect();
        let both =
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for piece in both.chunks(7) {
            piped.write_all(piece).unwrap();
        }
        let mut answer = Vec::new();
        piped.read_to_end(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap().matches("\r\n\r\nok\n").count(), 2);

        // The slow ones still get everything.
        let mut stream = slow.swap_remove(0);
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        is_the_pattern(content(&answer), 0, 5_000_000);
    });
}

#[test]
fn a_thousand_connections_at_once() {
    let Some(wire) = Wire::new("a_thousand_connections_at_once", 0x63, None) else { return };
    wire.on_node(|| {
        let mut all: Vec<TcpStream> = (0..1000).map(|_| connect()).collect();
        for round in 0..2 {
            for stream in &mut all {
                let request = format!("GET /content/1 HTTP/1.1\r\nHost: x\r\nRange: bytes={round}-9999\r\n\r\n");
                stream.write_all(request.as_bytes()).unwrap();
            }
            for stream in &mut all {
                let mut answer = Vec::new();
                let mut buffer = [0; 4096];
                let end = loop {
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0, "closed early");
                    answer.extend_from_slice(&buffer[..count]);
                    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
                    if let Some(end) = head.filter(|end| answer.len() >= end + 10_000 - round) {
                        break end;
                    }
                };
                assert!(answer.starts_with(b"HTTP/1.1 206 "));
                is_the_pattern(&answer[end..], round, 10_000 - round);
            }
        }
    });
}

/// One frame in a hundred is lost, and of the others one in ten is overtaken by the next, both ways.
fn bad_line(tap: OwnedFd, guest: UnixDatagram) {
    fcntl(&tap, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let (tap, back) = (std::fs::File::from(tap.try_clone().unwrap()), std::fs::File::from(tap));
    let answers = guest.try_clone().unwrap();
    std::thread::spawn(move || {
        worsen(1, |frame| (&tap).read(frame).unwrap_or(0), |frame| drop(guest.send(frame)));
    });
    worsen(2, |frame| answers.recv(frame).unwrap_or(0), |frame| drop((&back).write(frame)));
}

/// One way, until there is nothing to read any more. A frame that is held back goes out behind the next.
fn worsen(seed: u64, read: impl Fn(&mut [u8]) -> usize, send: impl Fn(&[u8])) {
    let mut state = 0x2545_f491_4f6c_dd1du64 ^ seed;
    let mut chance = |one_in: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.is_multiple_of(one_in)
    };
    let mut held: Option<Vec<u8>> = None;
    let mut frame = [0; 2048];
    loop {
        let count = read(&mut frame);
        if count == 0 {
            return;
        }
        if chance(100) {
            continue;
        }
        if held.is_none() && chance(10) {
            held = Some(frame[..count].to_vec());
            continue;
        }
        send(&frame[..count]);
        if let Some(late) = held.take() {
            send(&late);
        }
    }
}

#[test]
fn a_bad_line_only_takes_time() {
    let Some(wire) = Wire::new("a_bad_line_only_takes_time", 0x64, Some(bad_line)) else { return };
    wire.on_node(|| {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut stream = connect();
                    stream.write_all(b"GET /content/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    is_the_pattern(content(&answer), 0, 1_000_000);
                });
            }
        });
        println!("four downloads of 1 MB: {:?}", begun.elapsed());
    });
}
