//! `selvedge capture` beside a daemon: what it tells, what tshark reads of its file, and that nothing stays on when it is
//! gone, however it went. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::dataplane::{DataplaneLab, EDGE};
use tests::lab::daemon::{Daemon, binary, selvedge};
use tests::lab::is_root;
use xdp_balancer::testing::Query;

const PATIENCE: Duration = Duration::from_secs(60);
const TSHARK: &str = "/usr/bin/tshark";

/// A capture that has begun.
struct Running {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(lab: &DataplaneLab, arguments: &[&str]) -> Self {
        let mut command = lab.edge.command(&binary("selvedge").unwrap().to_string_lossy()).unwrap();
        command.arg("capture").args(arguments).arg("--pin-dir").arg(lab.pins()).arg("--socket").arg(lab.socket());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.starts_with("capturing"), "{line}");
        Self { child, said }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end: exit code, output, and what it said last.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut said) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.said.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), out, said)
    }
}

/// Asks and waits for the answer; nobody answers what the daemon does not know.
fn ask(lab: &DataplaneLab, name: &str, qtype: u16, id: u16) -> Vec<u8> {
    let mut query = Query::new(name, qtype).build();
    query[..2].copy_from_slice(&id.to_be_bytes());
    lab.client
        .run_in(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.connect((EDGE, 53)).unwrap();
            socket.send(&query).unwrap();
            let mut reply = vec![0; 1500];
            let len = socket.recv(&mut reply).unwrap();
            reply.truncate(len);
            reply
        })
        .unwrap()
}

/// Fields of each packet of a file.
fn tshark(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new(TSHARK);
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=/t"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn lab(name: &str) -> (DataplaneLab, Daemon) {
    let mut lab = DataplaneLab::create(name, "native").unwrap();
    let (config, socket, log) = (lab.config(), lab.socket(), lab.log());
    let mut daemon = Daemon::start(&mut lab.record, &lab.edge, &config, &socket, &log).unwrap();
    daemon.wait_for("a table", PATIENCE, |s| s.generation > 0).unwrap();
    (lab, daemon)
}

#[test]
fn tshark_reads_query_answer_and_comment() {
    if !is_root("tshark_reads_query_answer_and_comment") {
        return;
    }
    if !Path::new(TSHARK).exists() {
        println!("SKIPPED (needs tshark, tests/setup.sh lab): tshark_reads_query_answer_and_comment");
        return;
    }
    let (lab, daemon) = lab("selv-shark");
    let file = lab.dir.join("queries.pcapng");
    let running = Running::start(&lab, &["name=edge.test", "-w", file.to_str().unwrap(), "--count", "3"]);
    let reply = ask(&lab, "WWW.edge.test", 1, 0x1001);
    assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 80]);
    ask(&lab, "version.test", 1, 0x1002);
    ask(&lab, "none.edge.test", 1, 0x1003);
    // What the daemon answers: a meta type, TSIG.
    ask(&lab, "www.edge.test", 250, 0x1004);
    let (code, out, said) = running.end();
    assert_eq!((code, out.as_str(), said.trim()), (Some(0), "", "3 queries captured"));

    let fields = ["dns.id", "dns.flags.response", "dns.qry.name", "dns.a", "udp.checksum.status", "frame.comment"];
    let packets = tshark(&file, &[&fields[..], &["frame.interface_name"]].concat());
    let name = |packet: &Vec<String>| packet[2].to_ascii_lowercase();
    assert_eq!(packets.len(), 5, "{packets:?}");
    for (packet, id, response) in [(0, "0x1001", "0"), (1, "0x1001", "1"), (2, "0x1003", "0"), (3, "0x1003", "1")] {
        let of = |text: &str| text.replace("True", "1").replace("False", "0");
        assert_eq!((packets[packet][0].as_str(), of(&packets[packet][1]).as_str()), (id, response), "{packets:?}");
    }
    assert_eq!((packets[0][2].as_str(), name(&packets[2]).as_str()), ("WWW.edge.test", "none.edge.test"));
    assert_eq!(packets[1][3], "192.0.2.80");
    for packet in &packets[..2] {
        assert_eq!(packet[5], "verdict=answered action=answered address=192.0.2.80", "{packets:?}");
    }
    assert_eq!(packets[2][5], "verdict=nxdomain action=answered");
    assert_eq!((packets[4][0].as_str(), packets[4][5].as_str()), ("0x1004", "verdict=unknown_type action=passed"));
    assert!(packets.iter().all(|packet| packet[6] == "e0"), "{packets:?}");

    // A filter on the comment finds what the kernel said.
    let output = Command::new(TSHARK)
        .args(["-n", "-r"])
        .arg(&file)
        .args(["-Y", "frame.comment contains \"verdict=nxdomain\" && dns.flags.response == 1"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

#[test]
fn it_is_off_however_it_ended() {
    if !is_root("it_is_off_however_it_ended") {
        return;
    }
    let (lab, mut daemon) = lab("selv-capt");
    let json = Running::start(&lab, &["--json", "client=10.61.0.0/24", "verdict=answered", "--count", "1"]);
    ask(&lab, "none.edge.test", 1, 1);
    ask(&lab, "www.edge.test", 1, 2);
    let (code, out, _) = json.end();
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &told["verdict"], &told["question"]),
        (Some(0), &"answered".into(), &"www.edge.test. IN A".into())
    );
    assert_eq!(told["answers"][0].as_str().unwrap().split(' ').next_back(), Some("192.0.2.80"));

    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let running = Running::start(&lab, &[]);
        // One at a time.
        let (code, _, error) =
            selvedge(Some(&lab.edge), &["capture", "--pin-dir", lab.pins().to_str().unwrap()]).unwrap();
        assert!(code == Some(1) && error.contains("another process captures"), "{error}");
        ask(&lab, "www.edge.test", 1, 3);
        running.signal(signal);
        let (code, out, said) = running.end();
        if signal != Signal::SIGKILL {
            assert_eq!((code, said.trim()), (Some(0), "1 queries captured"));
            assert!(out.contains("www.edge.test. IN A answered 192.0.2.80"), "{out}");
        }
        ask(&lab, "www.edge.test", 1, 4);
    }
    // Killed, it left capturing on: the daemon finds that out, if no query does.
    daemon
        .wait_for("the end of the capture", PATIENCE, |_| {
            fs::read_to_string(lab.log()).unwrap().contains("a capture is switched off")
        })
        .unwrap();
    let status = daemon.status().unwrap();
    assert_eq!((status.verdicts["broken"], status.verdicts["answered"]), (0, 7), "{:?}", status.verdicts);
    let ended = Running::start(&lab, &["--duration", "1s"]).end();
    assert_eq!((ended.0, ended.2.trim()), (Some(0), "0 queries captured"));
    let (code, _, error) = selvedge(None, &["capture", "verdict=odd"]).unwrap();
    assert!(code == Some(2) && error.contains("\"odd\" is no verdict"), "{error}");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}
