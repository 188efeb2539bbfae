//! The last tables, rollback and `explain` on the real daemon in a namespace, with zone data alone: no engine is
//! needed. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{PATIENCE, metrics};
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::netns::veth;
use tests::lab::record::{Record, Thing, clean_up};
use tests::lab::{Lock, Namespace, is_root};

/// Of the node.
const EDGE: &str = "10.59.0.1";

struct Lab {
    name: &'static str,
    edge: Namespace,
    _client: Namespace,
    record: Option<Record>,
    dir: PathBuf,
    _lock: Lock,
}

impl Lab {
    fn new(name: &'static str) -> Self {
        let lock = Lock::take(name).unwrap();
        let record_path = Path::new("/run").join(format!("{name}.lab.json"));
        clean_up(&record_path).unwrap();
        let mut record = Record::create(&record_path).unwrap();
        let dir = Path::new("/run").join(name);
        for part in ["edge", "client"] {
            record.add(Thing::Namespace { name: format!("{name}-{part}") }).unwrap();
        }
        for thing in [Thing::Directory { path: dir.clone() }, Thing::Pins { path: pins(name) }] {
            record.add(thing).unwrap();
        }
        fs::create_dir_all(&dir).unwrap();
        let [edge, client] = ["edge", "client"].map(|part| Namespace::create(&format!("{name}-{part}")).unwrap());
        veth((&client, "c0"), (&edge, "e0")).unwrap();
        edge.add_address("e0", EDGE.parse().unwrap(), 24).unwrap();
        Self { name, edge, _client: client, record: Some(record), dir, _lock: lock }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("selvedged.sock")
    }

    fn configure(&self, host: u8) {
        let text = format!(
            r#"[dataplane]
interfaces = ["e0"]
pin_dir = "{pins}"
[dns]
listen = ["{EDGE}"]
[control]
state_dir = "{dir}/state"
socket = "{socket}"
metrics = "127.0.0.1:9553"
[[zone]]
name = "edge.test"
[[zone.record]]
name = "www"
type = "A"
data = "192.0.2.{host}"
"#,
            pins = pins(self.name).display(),
            dir = self.dir.display(),
            socket = self.socket().display(),
        );
        fs::write(self.dir.join("selvedge.toml"), text).unwrap();
    }

    fn start(&mut self) -> Daemon {
        let (config, log) = (self.dir.join("selvedge.toml"), self.dir.join("log"));
        let socket = self.socket();
        Daemon::start(self.record.as_mut().unwrap(), &self.edge, &config, &socket, &log).unwrap()
    }

    fn table(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let socket = self.socket();
        selvedge(Some(&self.edge), &[&["table"], arguments, &["--socket", socket.to_str().unwrap()]].concat()).unwrap()
    }

    fn list(&self) -> Value {
        let (code, out, error) = self.table(&["list", "--json"]);
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str(&out).unwrap()
    }

    fn explain(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let pins = pins(self.name);
        selvedge(Some(&self.edge), &[&["explain"], arguments, &["--pin-dir", pins.to_str().unwrap()]].concat()).unwrap()
    }

    /// The address that the kernel answers.
    fn kernel(&self) -> String {
        let (code, out, error) = self.explain(&["www.edge.test", "--json"]);
        assert_eq!(code, Some(0), "{out}{error}");
        let said: Value = serde_json::from_str(&out).unwrap();
        let line = said["reply"]["decoded"]["answers"][0].as_str().unwrap();
        line.strip_prefix("www.edge.test. 3600 IN A ").unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let detached =
            selvedge(None, &["dataplane", "detach", "--tables", "--pin-dir", pins(self.name).to_str().unwrap()]);
        let removed = self.record.take().map_or(Ok(()), Record::remove);
        if detached.is_err() || removed.is_err() {
            eprintln!("lab: {detached:?} {removed:?}");
        }
    }
}

fn pins(lab: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(lab)
}

#[test]
fn an_earlier_table_is_held_over_a_crash_until_it_is_released() {
    if !is_root("an_earlier_table_is_held_over_a_crash_until_it_is_released") {
        return;
    }
    let mut lab = Lab::new("sv-tables-hold");
    lab.configure(80);
    let mut daemon = lab.start();
    let first = daemon.wait_for("a table", PATIENCE, |s| s.generation > 0).unwrap().generation;
    assert_eq!(lab.kernel(), "192.0.2.80");
    let (code, text, error) = lab.table(&["diff"]);
    assert_eq!((code, text.as_str()), (Some(2), ""), "there is none before it: {error}");

    lab.configure(81);
    daemon.signal(Signal::SIGHUP).unwrap();
    let second = daemon.wait_for("the reload", PATIENCE, |s| s.generation > first).unwrap().generation;
    let (code, text, _) = lab.table(&["diff"]);
    assert_eq!(code, Some(1));
    for line in [
        "-zone edge.test. record www.edge.test. 3600 A 192.0.2.80\n",
        "+zone edge.test. record www.edge.test. 3600 A 192.0.2.81\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(text.lines().count(), 4, "{text}");
    assert_eq!(lab.table(&["diff", &second.to_string()]).0, Some(0), "itself");

    let (code, text, error) = lab.table(&["rollback", &first.to_string()]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(text.contains(&format!("table {first} is in force as generation ")), "{text}");
    assert_eq!(lab.kernel(), "192.0.2.80");
    let status = daemon.wait_for("the hold", PATIENCE, |s| s.held.is_some()).unwrap();
    assert!(status.generation > second && status.held.as_ref().unwrap().of == first);
    assert!(metrics(&lab.edge).contains("\nselvedge_tables_held 1\n"));
    lab.configure(82);
    daemon.signal(Signal::SIGHUP).unwrap();

    daemon.kill().unwrap();
    assert_eq!(lab.kernel(), "192.0.2.80", "nobody but the kernel is there");
    let mut daemon = lab.start();
    daemon.wait_for("the restart", PATIENCE, |s| s.generation > status.generation).unwrap();
    assert_eq!(lab.kernel(), "192.0.2.80");
    assert!(daemon.log().contains("tables are still held"));
    let list = lab.list();
    let newest = list["tables"].as_array().unwrap().last().unwrap();
    assert_eq!((&newest["in_force"], &newest["held"]), (&true.into(), &true.into()), "{list}");
    assert_eq!(list["held"]["of"], first);

    let (code, _, error) = lab.table(&["release"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert_eq!(lab.kernel(), "192.0.2.82");
    let (code, _, error) = lab.table(&["release"]);
    assert_eq!((code, error.trim()), (Some(1), "selvedge: no table is held"));
    let (code, _, error) = lab.table(&["rollback", "999"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("table 999 is not kept"), "{error}");
    let (code, text, _) = lab.table(&["show", &first.to_string(), "--names"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("www.edge.test.  A\n"), "{text}");
    daemon.wait_for("the release in the status", PATIENCE, |s| s.held.is_none()).unwrap();
    assert!(metrics(&lab.edge).contains("\nselvedge_tables_held 0\n"));
    daemon.terminate().unwrap();
}

#[test]
fn explain_needs_no_daemon_counts_nothing_and_asks_it_where_the_kernel_passes() {
    if !is_root("explain_needs_no_daemon_counts_nothing_and_asks_it_where_the_kernel_passes") {
        return;
    }
    let mut lab = Lab::new("sv-tables-explain");
    let (code, _, error) = lab.explain(&["www.edge.test"]);
    assert_eq!(code, Some(2), "nothing is pinned");
    assert!(error.starts_with("selvedge: "), "{error}");
    lab.configure(80);
    let mut daemon = lab.start();
    let before = daemon.wait_for("a table", PATIENCE, |s| s.generation > 0).unwrap();

    let (code, text, _) = lab.explain(&["WWW.edge.test", "--client", "10.59.0.9"]);
    assert_eq!(code, Some(0));
    for part in [
        "verdict: answered - Answered from the tables.",
        "query, 10.59.0.9:40000 -> 10.59.0.1:53",
        "reply, 10.59.0.1:53 -> 10.59.0.9:40000",
        "  NOERROR",
        "  answer      WWW.edge.test. 3600 IN A 192.0.2.80",
        "  EDNS version 0, payload 1232",
        "0000  02 00 00 00 00 01 02 00 00 00 00 02 08 00 45 00  |..............E.|",
    ] {
        assert!(text.contains(part.trim_start()), "{part} not in\n{text}");
    }
    let after = daemon.status().unwrap();
    // The cable itself carries neighbour discovery, which is counted.
    assert_eq!((after.verdicts["answered"], before.verdicts["answered"]), (0, 0), "nothing is counted");

    // A zone transfer is for the daemon to refuse, here because this is no zone.
    let (code, text, _) = lab.explain(&["www.edge.test", "--type", "axfr"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("frame:   goes on to the network stack, not a byte changed"), "{text}");
    assert!(text.contains("the daemon at 10.59.0.1:53 answers this"), "{text}");
    assert!(text.contains("NOTAUTH, flags"), "{text}");
    daemon.terminate().unwrap();
    let (code, text, _) = lab.explain(&["www.edge.test", "--type", "AXFR"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("nobody listens there"), "{text}");

    // A frame, as it was printed.
    let (_, json, _) = lab.explain(&["www.edge.test", "--json"]);
    let said: Value = serde_json::from_str(&json).unwrap();
    let (code, again, _) = lab.explain(&[said["frame"].as_str().unwrap(), "--json"]);
    assert_eq!((code, again), (Some(0), json));
    let file = lab.dir.join("frame");
    fs::write(&file, text.lines().filter(|line| line.contains("  |")).collect::<Vec<_>>().join("\n")).unwrap();
    let (code, text, error) = lab.explain(&[&format!("@{}", file.display())]);
    assert_eq!(code, Some(1), "{error}");
    assert!(text.contains("question    www.edge.test. IN AXFR"), "{text}");
    let (code, _, error) = lab.explain(&["www.edge.test", "--client", "fd00::1"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("no address of this node is an IPv6 one"), "{error}");
}
