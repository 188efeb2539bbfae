//! What the daemon keeps: its last accepted configuration and its store, on a real disk that is full, and damaged. And
//! a thousand who watch. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use control::api::{Origin, Status};
use control::model::{
    AddressPair, Instance, InstanceId, InstanceState, ServiceName, Technology, Timestamp, Transition,
};
use control::store::{FILE_NAME, Store, StoreError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::PATIENCE;
use tests::lab::daemon::{Daemon, binary, selvedge};
use tests::lab::process::run;
use tests::lab::record::{Record, Thing, clean_up};
use tests::lab::{Lock, Namespace, is_root};

/// A daemon with a zone and a service that no engine serves, in a namespace.
struct Node {
    name: &'static str,
    namespace: Namespace,
    record: Option<Record>,
    dir: PathBuf,
    _lock: Lock,
}

impl Node {
    fn new(name: &'static str) -> Self {
        let lock = Lock::take(name).unwrap();
        let record_path = Path::new("/run").join(format!("{name}.lab.json"));
        clean_up(&record_path).unwrap();
        let mut record = Record::create(&record_path).unwrap();
        let dir = Path::new("/run").join(name);
        record.add(Thing::Namespace { name: name.to_owned() }).unwrap();
        record.add(Thing::Directory { path: dir.clone() }).unwrap();
        record.add(Thing::Pins { path: Path::new("/sys/fs/bpf").join(name) }).unwrap();
        fs::create_dir_all(&dir).unwrap();
        Self { name, namespace: Namespace::create(name).unwrap(), record: Some(record), dir, _lock: lock }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("selvedge.toml")
    }

    fn text(&self, more: &str) -> String {
        let dir = self.dir.display();
        format!(
            "[node]\nname = \"n\"\n[dns]\nlisten = [\"127.0.0.1\"]\n[control]\nwindow = \"1s\"\nstate_dir = \"{dir}/state\"\n\
             socket = \"{dir}/socket\"\n[dataplane]\npin_dir = \"/sys/fs/bpf/{}\"\n[technology.docker]\n\
             socket = \"{dir}/none\"\n[[zone]]\nname = \"edge.test\"\n[[service]]\nname = \"video\"\n\
             names = [\"video.edge.test\"]\nimage = \"i\"\n{more}",
            self.name
        )
    }

    fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn start(&mut self) -> Daemon {
        let (config, socket, log) = (self.config(), self.socket(), self.dir.join("log"));
        let mut daemon = Daemon::start(self.record.as_mut().unwrap(), &self.namespace, &config, &socket, &log).unwrap();
        daemon.wait_for("the daemon", PATIENCE, |_| true).unwrap();
        daemon
    }

    /// The daemon where it does not come up: exit code and what it says.
    fn refused(&self) -> (Option<i32>, String) {
        let program = binary("selvedged").unwrap();
        let mut command = self.namespace.command(&program.to_string_lossy()).unwrap();
        let output = command.arg("--config").arg(self.config()).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let socket = self.socket();
        selvedge(None, &[arguments, &["--socket", socket.to_str().unwrap()]].concat()).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = umount2(&self.dir.join("state"), MntFlags::MNT_DETACH);
        if let Some(record) = self.record.take()
            && let Err(errors) = record.remove()
        {
            eprintln!("lab: {errors:?}");
        }
    }
}

#[test]
fn a_refused_configuration_changes_nothing_and_the_last_accepted_one_starts() {
    if !is_root("a_refused_configuration_changes_nothing_and_the_last_accepted_one_starts") {
        return;
    }
    let mut node = Node::new("sv-accepted");
    node.write(&node.text("max = 3\n"));
    let mut daemon = node.start();
    // Over the API, tried and done; then by signal, wrong.
    let new = node.dir.join("new.toml");
    fs::write(&new, node.text("max = 5\n")).unwrap();
    let (code, out, error) = node.command(&["config", "apply", new.to_str().unwrap(), "--dry-run"]);
    assert!(code == Some(0) && out.contains("service video: max"), "{out}{error}");
    assert_eq!(fs::read_to_string(node.config()).unwrap(), node.text("max = 3\n"));
    let (code, _, error) = node.command(&["config", "apply", new.to_str().unwrap(), "--if-revision", "1"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(fs::read_to_string(node.config()).unwrap(), node.text("max = 5\n"));
    let max = |s: &Status| s.services.values().next().unwrap().max;
    daemon.wait_for("the new maximum", PATIENCE, |s| max(s) == 5).unwrap();
    fs::write(&new, node.text("max = \"many\"\n")).unwrap();
    let (code, _, error) = node.command(&["config", "apply", new.to_str().unwrap()]);
    assert!(code == Some(1) && error.contains("service.video.max: expects a whole number"), "{error}");
    assert_eq!(fs::read_to_string(node.config()).unwrap(), node.text("max = 5\n"));
    node.write(&node.text("max = \"many\"\n"));
    daemon.signal(Signal::SIGHUP).unwrap();
    let refused = daemon.wait_for("the refusal", PATIENCE, |s| s.config_rejected == 2).unwrap();
    assert_eq!((max(&refused), refused.config_origin, refused.config_problems.len()), (5, Origin::File, 1));

    daemon.kill().unwrap();
    let daemon = node.start();
    let status = daemon.status().unwrap();
    assert_eq!((max(&status), status.config_origin), (5, Origin::LastAccepted));
    assert!(status.config_problems[0].contains("service.video.max"), "{:?}", status.config_problems);
    assert!(daemon.log().contains("started with the one that was accepted last"), "{}", daemon.log());
    assert!(support::metrics(&node.namespace).contains("selvedge_config_last_accepted 1"));
    daemon.terminate().unwrap();
    // Without one that was accepted the file's faults are all that there is.
    fs::remove_file(node.dir.join("state/accepted.toml")).unwrap();
    let (code, said) = node.refused();
    assert!(code == Some(2) && said.contains("service.video.max"), "{said}");
}

#[test]
fn a_damaged_store_is_told_and_a_dump_puts_it_back() {
    if !is_root("a_damaged_store_is_told_and_a_dump_puts_it_back") {
        return;
    }
    let mut node = Node::new("sv-damaged");
    node.write(&node.text(""));
    let daemon = node.start();
    let (code, _, error) = node.command(&["service", "pin", "video", "2", "--reason", "kept"]);
    assert_eq!(code, Some(0), "{error}");
    let (code, dump, error) = node.command(&["store", "dump"]);
    assert_eq!(code, Some(0), "{error}");
    let (code, out, _) = node.command(&["store", "check"]);
    assert!(code == Some(0) && out.contains("orders 1") && out.contains("sound"), "{out}");
    let file = node.dir.join("dump.json");
    fs::write(&file, &dump).unwrap();
    let config = node.config();
    let restore = |node: &Node| {
        selvedge(None, &["store", "restore", file.to_str().unwrap(), "--config", node.config().to_str().unwrap()])
            .unwrap()
    };
    let (code, _, error) = restore(&node);
    assert!(code == Some(1) && error.contains("selvedged is running"), "{error}");
    daemon.terminate().unwrap();

    let store = node.dir.join("state").join(FILE_NAME);
    let mut bytes = fs::read(&store).unwrap();
    for byte in bytes.iter_mut().take(4096) {
        *byte ^= 0x5a;
    }
    fs::write(&store, &bytes).unwrap();
    let (code, said) = node.refused();
    assert!(code == Some(1) && said.contains("cannot read the store") && said.contains("restore"), "{said}");
    assert_eq!(fs::read(&store).unwrap(), bytes, "it was changed");
    let (code, _, error) = node.command(&["store", "check", "--config", config.to_str().unwrap()]);
    assert!(code == Some(1) && error.contains("cannot read the store"), "{error}");
    let (code, _, error) = restore(&node);
    assert!(code == Some(1) && error.contains("a store is there already"), "{error}");
    fs::rename(&store, store.with_extension("old")).unwrap();
    let (code, _, error) = restore(&node);
    assert_eq!(code, Some(0), "{error}");
    let daemon = node.start();
    let (_, shown, _) = node.command(&["service", "show", "video", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((shown["ordered"]["kind"].as_str(), shown["ordered"]["reason"].as_str()), (Some("pin"), Some("kept")));
    daemon.terminate().unwrap();
}

/// On a file system of 256 KiB: what does not fit is refused with its remedy, what was written stays, and what fits
/// again is taken.
#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    if !is_root("a_full_disk_is_told_and_nothing_is_lost") {
        return;
    }
    let node = Node::new("sv-full");
    let state = node.dir.join("state");
    fs::create_dir(&state).unwrap();
    mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
    let path = state.join(FILE_NAME);
    let store = Store::open(&path).unwrap();
    let record = |number: u32| {
        let (id, service) = (InstanceId::from_number(number), ServiceName::new("video").unwrap());
        let addresses = AddressPair { v4: Some(number.into()), v6: None };
        let reason = "r".repeat(500);
        let one = Instance::new(id.clone(), service.clone(), Technology::Docker, addresses, Timestamp(1), &reason);
        let to = InstanceState::Requested;
        let first = Transition { instance: id, service, from: None, to, at: Timestamp(1), reason };
        store.record(&one, &first)
    };
    let (mut written, mut refused) = (0, None);
    while refused.is_none() {
        match record(written) {
            Ok(_) => written += 1,
            Err(error) => refused = Some(error),
        }
        assert!(written < 10_000, "it never was full");
    }
    let error = refused.unwrap();
    assert!(matches!(error, StoreError::Access { .. }) && error.to_string().contains("full?"), "{error}");
    // What was read before can be, and nothing more is taken.
    for _ in 0..3 {
        assert_eq!(store.instances().unwrap().len(), written as usize);
        assert!(record(written).is_err());
    }
    mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=4m")).unwrap();
    // It goes on by itself once there is room, and so does the next process.
    record(written).unwrap();
    assert_eq!(store.instances().unwrap().len(), written as usize + 1);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.instances().unwrap().len(), written as usize + 1);
    assert_eq!(store.examine().unwrap().problems, [""; 0]);
    store.next_generation().unwrap();
}

/// A thousand watchers and heads that never end: windows are closed as before, and everybody hears of an order.
#[test]
fn a_thousand_watchers_do_not_disturb_a_window() {
    if !is_root("a_thousand_watchers_do_not_disturb_a_window") {
        return;
    }
    let mut node = Node::new("sv-watched");
    node.write(&node.text("[api]\nrequests_per_second = 5000\n"));
    let mut daemon = node.start();
    // A second of its own for each.
    let windows = |status: &Status| status.services.values().next().unwrap().history.last().map_or(0, |w| w.window);
    let started = windows(&daemon.wait_for("a window", PATIENCE, |s| windows(s) > 0).unwrap());
    let connect = |text: &str| {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        BufReader::new(stream)
    };
    let slow: Vec<_> = (0..100).map(|_| connect("GET /v1/status HTTP/1.1\r\nHost:")).collect();
    let mut watchers: Vec<_> =
        (0..1000).map(|_| connect("GET /v1/watch?resources=services,decisions HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    let hear = |watcher: &mut BufReader<UnixStream>, wanted: &str| {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            assert_ne!(watcher.read_line(&mut line).unwrap(), 0, "cut off before {wanted}");
        }
    };
    watchers.iter_mut().for_each(|watcher| hear(watcher, "event: listed"));
    let (code, _, error) = node.command(&["service", "pin", "video", "1", "--reason", "heard"]);
    assert_eq!(code, Some(0), "{error}");
    watchers.iter_mut().for_each(|watcher| hear(watcher, "heard"));
    let status = daemon.wait_for("five more windows", PATIENCE, |s| windows(s) >= started + 5).unwrap();
    // Each window follows the one before: none was left out.
    let history = &status.services.values().next().unwrap().history;
    for pair in history.windows(2) {
        assert_eq!(pair[1].window, pair[0].window + 1);
    }
    let starts = history.windows(2).map(|pair| pair[1].start.millis_since(pair[0].start));
    println!("longest_window_ms={}", starts.max().unwrap());
    drop(slow);
    daemon.terminate().unwrap();
}

/// Over TLS: a certificate of the authority is enough, and its fingerprint is who gave an order; without one it takes a
/// token.
#[test]
fn over_tls_a_certificate_or_a_token_lets_in() {
    if !is_root("over_tls_a_certificate_or_a_token_lets_in") {
        return;
    }
    let mut node = Node::new("sv-tls");
    let dir = node.dir.clone();
    let file = |name: &str| dir.join(name).display().to_string();
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments).current_dir(&dir)).unwrap();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    openssl(&[&["req", "-x509"], &curve[..], &["-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"]].concat());
    for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")] {
        let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let signed = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-addext",
            extension,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        let of = ["-subj", &subject, "-keyout", &key, "-out", &certificate];
        openssl(&[&["req", "-x509"], &curve[..], &signed[..], &of[..]].concat());
    }
    let token = "t".repeat(40);
    fs::write(file("tokens"), format!("ci read {token}\n")).unwrap();
    fs::set_permissions(file("tokens"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    node.write(&node.text(&format!(
        "[api]\nlisten = \"127.0.0.1:9554\"\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\ntoken_file = \"{}\"\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
        file("tokens")
    )));
    let daemon = node.start();
    let curl = |more: &[&str]| -> (String, String) {
        let mut command = node.namespace.command("curl").unwrap();
        command.current_dir(&node.dir).args(["-sS", "--cacert", "ca.pem", "-w", "\n%{http_code}"]).args(more);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.to_owned(), body.to_owned())
    };
    let url = "https://127.0.0.1:9554/v1/services/video/override";
    let json = ["-H", "Content-Type: application/json", "-d", "{\"kind\":\"pause\"}", "-X", "PUT", url];
    let certificate = ["--cert", "client.pem", "--key", "client.key"];
    assert_eq!(curl(&json).0, "401");
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(curl(&[&["-H", &bearer][..], &json].concat()).0, "403", "a token that may only read");
    assert_eq!(curl(&["-H", &bearer, "https://127.0.0.1:9554/v1/nodes"]).0, "200");
    assert_eq!(curl(&["-k", "http://127.0.0.1:9554/v1/nodes"]).0, "000", "without TLS");
    let (code, body) = curl(&[&certificate[..], &json].concat());
    assert_eq!(code, "200", "{body}");
    let (_, shown, _) = node.command(&["service", "show", "video", "--json"]);
    let by = serde_json::from_str::<Value>(&shown).unwrap()["ordered"]["by"].as_str().unwrap().to_owned();
    let fingerprint = openssl(&["x509", "-in", "client.pem", "-noout", "-fingerprint", "-sha256"]);
    let digits = fingerprint.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(by, format!("certificate {}", &digits[..16]));
    daemon.terminate().unwrap();
}

/// The document is printed without a daemon, and it is the one that is served.
#[test]
fn the_document_needs_no_daemon() {
    let output = Command::new(binary("selvedge").unwrap()).arg("openapi").output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    if !is_root("the_document_needs_no_daemon") {
        return;
    }
    let mut node = Node::new("sv-document");
    node.write(&node.text(""));
    let daemon = node.start();
    let socket = node.socket();
    let served =
        run(Command::new("curl").args(["-s", "--unix-socket", socket.to_str().unwrap(), "http://x/openapi.json"]));
    assert_eq!(serde_json::from_str::<Value>(&served.unwrap()).unwrap(), document);
    daemon.terminate().unwrap();
}
