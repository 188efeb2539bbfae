//! What others do to the dataplane from outside, while the daemon runs and while none does; and other XDP programs on the
//! same interface. The real daemon in a namespace, with zone data alone. Needs root, and xdp-tools for the last part
//! (`tests/setup.sh lab`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::mem::offset_of;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use control::api::Status;
use tests::dataplane::{DataplaneLab, EDGE};
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::is_root;
use xdp_balancer::testing::{Query, hands};
use xdp_balancer_common::{ListKey, ROOT_AT, Root};

/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(lab: &mut DataplaneLab) -> Daemon {
    let (config, socket, log) = (lab.config(), lab.socket(), lab.log());
    let mut daemon = Daemon::start(&mut lab.record, &lab.edge, &config, &socket, &log).unwrap();
    daemon.wait_for("a table", PATIENCE, |s| s.generation > 0 && s.audit.at.is_some()).unwrap();
    daemon
}

/// A pin of this layout.
fn pin(lab: &DataplaneLab, name: &str) -> PathBuf {
    lab.pins().join(format!("v{}", xdp_balancer_common::LAYOUT)).join(name)
}

/// Whether the client is answered with the right address.
fn is_answered(lab: &DataplaneLab) -> bool {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((EDGE, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(&Query::new("www.edge.test", 1).build()).unwrap();
        let mut reply = [0; 2048];
        socket.recv(&mut reply).is_ok_and(|len| reply[..len].ends_with(&[192, 0, 2, 80]))
    };
    lab.client.run_in(ask).unwrap()
}

fn command(lab: &DataplaneLab, words: &[&str]) -> (Option<i32>, String, String) {
    selvedge(Some(&lab.edge), &[&["dataplane"], words].concat()).unwrap()
}

fn verify(lab: &DataplaneLab) -> (Option<i32>, String) {
    let (code, out, error) = command(lab, &["verify", "--config", lab.config().to_str().unwrap()]);
    (code, out + &error)
}

/// Numbers of the programs at the node's and the client's end.
fn programs(lab: &DataplaneLab) -> (Option<u32>, Option<u32>) {
    let on = |interface: &'static str| move || xdp_balancer::program_on(interface).unwrap();
    (lab.edge.run_in(on("e0")).unwrap(), lab.client.run_in(on("c0")).unwrap())
}

/// Offloads of the node's interface, as the kernel tells them.
fn offloads(lab: &DataplaneLab) -> String {
    let output = lab.edge.command("ethtool").unwrap().args(["--show-features", "e0"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_others_do_is_counted_named_and_put_right() {
    if !is_root("what_others_do_is_counted_named_and_put_right") {
        return;
    }
    let mut lab = DataplaneLab::create("selv-hands", "native").unwrap();
    let before = offloads(&lab);
    let rules = "[dataplane.lists]\ndeny = [\"198.51.100.0/24\"]\n";
    fs::write(lab.config(), fs::read_to_string(lab.config()).unwrap() + rules).unwrap();
    let mut daemon = start(&mut lab);
    assert_eq!(verify(&lab), (Some(0), "nothing differs\n".to_owned()));
    let (ours, pass) = programs(&lab);
    let link = pin(&lab, "links/e0");

    // The kernel itself refuses to take the program off a link without it.
    assert!(lab.edge.ip(&["link", "set", "e0", "xdp", "off"]).is_err());
    assert_eq!(programs(&lab).0, ours);

    let seen = |s: &Status, kind: &str, count: u64| s.audit.drifts[kind] == count && s.audit.open.is_empty();
    fs::remove_file(&link).unwrap();
    daemon.wait_for("the link's pin", PATIENCE, |s| seen(s, "pin", 1)).unwrap();
    fs::remove_file(pin(&lab, "POOL")).unwrap();
    daemon.wait_for("the map's pin", PATIENCE, |s| seen(s, "pin", 2)).unwrap();
    hands::replace_program(&link, pass.unwrap()).unwrap();
    daemon.wait_for("the program", PATIENCE, |s| seen(s, "program", 1)).unwrap();
    assert_eq!(programs(&lab).0, ours);
    hands::detach_link(&link).unwrap();
    let status = daemon.wait_for("the link", PATIENCE, |s| seen(s, "link", 1)).unwrap();
    assert_eq!(status.audit.recent.back().unwrap().object, "e0");
    assert!(is_answered(&lab));
    let mut bytes = hands::Bytes::open(&pin(&lab, "POOL")).unwrap();
    // Answers may hold it too; the settings lie behind them.
    let local = bytes.find(&[10, 61, 0, 1]);
    bytes.write(*local.last().unwrap(), &[10, 61, 0, 9]);
    daemon.wait_for("the settings", PATIENCE, |s| seen(s, "settings", 1)).unwrap();

    bytes.write(ROOT_AT + offset_of!(Root, guard), &[0; 8]);
    daemon.wait_for("the rules", PATIENCE, |s| seen(s, "rules", 1)).unwrap();

    // What only the long look sees, by its clock.
    for at in bytes.find(&[192, 0, 2, 80]) {
        bytes.write(at, &[192, 0, 2, 66]);
    }
    let list = ListKey { len: 96 + 24, address: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([198, 51, 100, 0])] };
    hands::delete_element(&pin(&lab, "LISTS"), list).unwrap();
    daemon.wait_for("the look", PATIENCE, |s| seen(s, "table", 1) && seen(s, "rules", 2)).unwrap();
    assert!(is_answered(&lab));

    // On demand.
    for at in bytes.find(&[192, 0, 2, 80]) {
        bytes.write(at, &[192, 0, 2, 66]);
    }
    let (code, said) = verify(&lab);
    assert!(code == Some(1) && said.starts_with("table www.edge.test.: A: answers differ"), "{said}");
    assert!(said.trim_end().ends_with("(put right)"), "{said}");
    for at in bytes.find(b"\x03www\x04edge") {
        bytes.write(at - 4, &[0; 4]);
    }
    let (code, said) = verify(&lab);
    assert!(code == Some(1) && said.contains("table www.edge.test.: is not in the tables (put right)"), "{said}");
    assert_eq!(verify(&lab), (Some(0), "nothing differs\n".to_owned()));
    assert!(is_answered(&lab));

    let log = daemon.log();
    for named in [
        "the pin is gone",
        "selvedge_pass",
        "the link is detached",
        "IPv4 addresses",
        "answers differ",
        "prefixes are missing",
    ] {
        assert!(log.contains(named), "{named} is not in {log}");
    }
    daemon.terminate().unwrap();
    // The kernel's own doing on a veth pair, and its to undo: a program in the driver brings aggregation with it.
    let during = offloads(&lab);
    let changed: Vec<&str> = during.lines().filter(|line| !before.contains(line)).collect();
    assert!(changed.iter().all(|line| line.starts_with("generic-receive-offload: on")), "{changed:?}");
    xdp_balancer::remove_all(&lab.pins()).unwrap();
    assert_eq!(offloads(&lab), before);
    lab.remove().unwrap();
}

#[test]
fn without_a_daemon_it_is_checked_taken_off_and_put_on() {
    if !is_root("without_a_daemon_it_is_checked_taken_off_and_put_on") {
        return;
    }
    let mut lab = DataplaneLab::create("selv-glass", "native").unwrap();
    let (config, pins) = (lab.config(), lab.pins());
    let (config, pins) = (config.to_str().unwrap(), pins.to_str().unwrap());
    let attach = ["attach", "e0", "--mode", "native", "--config", config, "--pin-dir", pins];
    let mut daemon = start(&mut lab);

    // While it runs: off by order stays off, and on by hand is taken over.
    let (code, out, error) = command(&lab, &["detach", "e0", "--pin-dir", pins]);
    assert_eq!((code, out.trim()), (Some(0), "detached from e0"), "{error}");
    let status = daemon.wait_for("that it is off", PATIENCE, |s| s.interfaces[0].mode == "none").unwrap();
    let (code, said) = verify(&lab);
    assert!(code == Some(1) && said.starts_with("link e0: the program was taken off"), "{said}");
    assert_eq!(status.audit.drifts["link"], 0, "an order is no drift");
    let (code, out, error) = command(&lab, &attach);
    assert_eq!((code, out.starts_with("attached to e0: native (program ")), (Some(0), true), "{out}{error}");
    daemon.wait_for("that it is on", PATIENCE, |s| s.interfaces[0].mode == "native").unwrap();

    // Without one.
    daemon.kill().unwrap();
    assert_eq!(verify(&lab), (Some(0), "nothing differs\n".to_owned()));
    assert!(is_answered(&lab));
    let mut bytes = hands::Bytes::open(&pin(&lab, "POOL")).unwrap();
    for at in bytes.find(&[192, 0, 2, 80]) {
        bytes.write(at, &[192, 0, 2, 66]);
    }
    let (code, said) = verify(&lab);
    assert!(code == Some(1) && said.starts_with("table www.edge.test.: A: answers differ"), "{said}");
    assert!(!is_answered(&lab), "nothing was changed");
    // Tables and all: then the last published one is made anew.
    assert_eq!(command(&lab, &["detach", "--tables", "--pin-dir", pins]).0, Some(0));
    let (code, said) = verify(&lab);
    assert!(code == Some(1) && said.contains("pin POOL: the pin is gone"), "{said}");
    assert!(!is_answered(&lab));
    let (code, _, error) = command(&lab, &attach);
    assert_eq!(code, Some(0), "{error}");
    assert!(is_answered(&lab));
    assert_eq!(verify(&lab), (Some(0), "nothing differs\n".to_owned()));
    let (code, _, error) = command(&lab, &["attach", "nothere0", "--pin-dir", pins]);
    assert_eq!((code, error.trim()), (Some(1), "selvedge: no network interface nothere0"));

    // A daemon that starts again finds all as it left it.
    let daemon = start(&mut lab);
    assert!(daemon.status().unwrap().audit.drifts.values().all(|count| *count == 0));
    daemon.terminate().unwrap();
    xdp_balancer::remove_all(&lab.pins()).unwrap();
    lab.remove().unwrap();
}

#[test]
fn beside_xdp_filter_whoever_is_second_is_refused() {
    beside(
        "beside_xdp_filter_whoever_is_second_is_refused",
        "xdp-filter",
        &["load", "--mode", "skb", "e0"],
        &["unload", "e0"],
    );
}

#[test]
fn beside_xdp_loader_whoever_is_second_is_refused() {
    let program = format!("/usr/lib/{}-linux-gnu/bpf/xdpfilt_alw_all.o", std::env::consts::ARCH);
    let load = ["load", "--mode", "skb", "e0", &program];
    beside("beside_xdp_loader_whoever_is_second_is_refused", "xdp-loader", &load, &["unload", "e0", "--all"]);
}

/// Debian's tool first, then we; and the other way round.
fn beside(test: &str, tool: &str, load: &[&str], unload: &[&str]) {
    if !is_root(test) {
        return;
    }
    let path = format!("/usr/sbin/{tool}");
    if !std::path::Path::new(&path).exists() {
        println!("SKIPPED (no xdp-tools; tests/setup.sh lab): {test}");
        return;
    }
    let mut lab = DataplaneLab::create(&format!("selv-{tool}"), "auto").unwrap();
    let run = |lab: &DataplaneLab, words: &[&str]| {
        let output = lab.edge.command(&path).unwrap().args(words).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };

    // They first: named, left alone, and the daemon answers.
    let (loaded, said) = run(&lab, load);
    assert!(loaded, "{said}");
    let theirs = programs(&lab).0.unwrap();
    let mut daemon = start(&mut lab);
    let status = daemon.wait_for("the refusal", PATIENCE, |s| s.interfaces[0].problem.is_some()).unwrap();
    let problem = status.interfaces[0].problem.clone().unwrap();
    assert!(problem.contains(&format!("id {theirs}, tag ")) && problem.contains("not ours"), "{problem}");
    assert!(problem.contains("xdp"), "their program's name: {problem}");
    println!("we say: {problem}");
    assert_eq!((status.interfaces[0].mode.as_str(), programs(&lab).0), ("none", Some(theirs)));
    assert!(is_answered(&lab));
    let pins = lab.pins();
    let (code, _, error) = command(&lab, &["attach", "e0", "--pin-dir", pins.to_str().unwrap()]);
    assert!(code == Some(1) && error.contains(&format!("id {theirs}")), "{error}");
    let (unloaded, said) = run(&lab, unload);
    assert!(unloaded, "theirs works on: {said}");

    // We first.
    daemon.terminate().unwrap();
    let daemon = start(&mut lab);
    let ours = programs(&lab).0.unwrap();
    let (loaded, said) = run(&lab, load);
    assert!(!loaded, "{said}");
    println!("{tool} says: {}", said.trim());
    assert_eq!((programs(&lab).0, is_answered(&lab)), (Some(ours), true));
    daemon.terminate().unwrap();
    xdp_balancer::remove_all(&lab.pins()).unwrap();
    lab.remove().unwrap();
    // What the tools leave where nothing of theirs is loaded.
    for directory in ["/sys/fs/bpf/xdp", "/sys/fs/bpf/xdp-filter/programs", "/sys/fs/bpf/xdp-filter"] {
        let _ = fs::remove_dir(directory);
    }
}

/// May load programs, and is refused by the verifier: without `CAP_PERFMON` it forbids what the program does with
/// pointers. Its own DNS answers, and nothing is tried again.
#[test]
fn a_program_that_the_verifier_refuses_is_told_once() {
    if !is_root("a_program_that_the_verifier_refuses_is_told_once") {
        return;
    }
    let mut lab = DataplaneLab::create("selv-refused", "auto").unwrap();
    let (config, socket, log) = (lab.config(), lab.socket(), lab.log());
    let start = |lab: &mut DataplaneLab| {
        let without = ["sys_admin", "perfmon"];
        Daemon::start_without(&mut lab.record, &lab.edge, &config, &socket, &log, &without).unwrap()
    };
    let mut daemon = start(&mut lab);
    // Some glances and reloads later.
    daemon.wait_for("its start", PATIENCE, |s| s.generation > 0).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
    let status = daemon.wait_for("what comes of it", PATIENCE, |s| s.uptime_s >= 4).unwrap();
    let problem = status.dataplane_problem.clone().unwrap();
    println!("{problem}");
    assert!(problem.starts_with("the kernel's verifier refused the program selvedge_xdp ("), "{problem}");
    assert!(!problem.contains('\n') && !problem.contains("it said nothing"), "{problem}");
    assert_eq!((status.interfaces[0].mode.as_str(), status.interfaces[0].problem.as_ref()), ("none", Some(&problem)));
    assert!(is_answered(&lab));
    let answered = daemon.status().unwrap().dns.udp.values().sum::<u64>();
    assert!(answered > 0, "in user space");
    let said = daemon.log();
    assert_eq!(said.matches("the program cannot be loaded; the daemon answers alone").count(), 1, "{said}");
    assert_eq!(programs(&lab).0, None);
    daemon.terminate().unwrap();

    // Where the driver's mode is demanded it does not start.
    let text = fs::read_to_string(&config).unwrap().replace("mode = \"auto\"", "mode = \"native\"");
    fs::write(&config, text).unwrap();
    let error = start(&mut lab).wait_for("its end", PATIENCE, |_| false).unwrap_err().to_string();
    assert!(error.contains("selvedged ended: exit status: 1"), "{error}");
    let said = fs::read_to_string(&log).unwrap();
    let last = said.lines().last().unwrap();
    let loud =
        "dataplane.mode is \"native\", but e0 could not be attached so: the kernel's verifier refused the program";
    assert!(last.contains(loud), "{last}");
    lab.remove().unwrap();
}
