//! What a service's load is counted by, with the real daemon and unikernels on Solo5's `spt`: clients that keep an answer ask
//! once and connect often. Needs root and the unikernel (`make unikernel`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use control::api::{ServiceStatus, Status};
use serde_json::Value;
use tests::lab::daemon::selvedge;
use tests::lab::is_root;
use tests::summon::{PATIENCE, SummonLab};

/// Connections in a row from one client, to each of two services, are far more in a window.
const CAPACITY: u32 = 10;

/// Probed twice as often in a window of a second as an instance is taken to serve requests.
fn service(name: &str, keys: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nnames = [\"{name}.edge.test\"]\ntechnology = \"spt\"\nimage = \"{{image}}\"\n\
         arguments = [\"content=1000\"]\nmemory_mib = 32\nprobe_path = \"/healthz\"\nprobe_interval = \"50ms\"\n\
         ttl_s = 1\nmin = 1\nmax = 3\ncapacity = {CAPACITY}\n{keys}\n"
    )
}

fn of<'s>(status: &'s Status, name: &str) -> &'s ServiceStatus {
    status.services.iter().find(|(known, _)| known.as_str() == name).map(|(_, s)| s).expect("the service")
}

#[test]
fn connections_behind_cached_answers_are_load_where_they_are_counted() {
    let test = "connections_behind_cached_answers_are_load_where_they_are_counted";
    if !is_root(test) {
        return;
    }
    let services = service("named", "") + &service("dialled", "[service.scaling]\ndemand = \"connections\"");
    let Some(mut lab) = SummonLab::create("demand", test, &services, None).unwrap() else { return };
    let mut daemon = lab.start_daemon(&[]).unwrap();
    let names = ["named", "dialled"];
    daemon.wait_for("both", PATIENCE, |s| names.iter().all(|name| of(s, name).serving == 1)).unwrap();
    let counted = |s: &Status| of(s, "dialled").history.iter().filter(|w| w.connections.is_some()).count();
    let status = daemon.wait_for("some windows", PATIENCE, |s| counted(s) >= 3).unwrap();
    assert_eq!(of(&status, "dialled").wanted, 1, "probes are no load: {}", of(&status, "dialled").decision);

    // One query each; then nothing but connections.
    let addresses: Vec<IpAddr> =
        names.iter().map(|name| lab.ask(&format!("{name}.edge.test")).unwrap().address()).collect();
    let stop = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        let (lab, stop) = (&lab, &stop);
        for address in &addresses {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // An instance that is removed at the end may refuse one.
                    let _ = lab.get(*address);
                }
            });
        }
        let told = |s: &Status| of(s, "dialled").history.iter().any(|w| w.connections > Some(f64::from(CAPACITY)));
        let scaled =
            daemon.wait_for("instances for connections", PATIENCE, |s| of(s, "dialled").serving == 3 && told(s));
        stop.store(true, Ordering::Relaxed);
        scaled.unwrap()
    });
    let (named, dialled) = (of(&status, "named"), of(&status, "dialled"));
    println!("named: {}\ndialled: {}", named.decision, dialled.decision);
    assert_eq!((named.wanted, named.instances.len()), (1, 1), "{}", named.decision);
    let connections = |s: &ServiceStatus| s.instances.iter().filter_map(|i| i.connections).sum::<u64>();
    assert!(connections(named) > u64::from(CAPACITY) * 3, "as many came: {}", connections(named));
    assert!(dialled.decision.contains("; requests are connections"), "{}", dialled.decision);
    let most = dialled.history.iter().filter_map(|w| w.connections).fold(0.0, f64::max);
    let queries = dialled.history.iter().filter_map(|w| w.dns).fold(0.0, f64::max);
    assert!(most > f64::from(CAPACITY) && queries <= 1.0, "{most} connections, {queries} queries");

    let socket = lab.file("selvedged.sock");
    let (code, out, error) =
        selvedge(None, &["explain", "dialled", "--json", "--socket", socket.to_str().unwrap()]).unwrap();
    assert_eq!(code, Some(0), "{error}");
    let explained: Value = serde_json::from_str(&out).unwrap();
    assert!(explained["reason"].as_str().unwrap().contains("requests are connections"), "{explained}");
    daemon.wait_for("one again", PATIENCE, |s| of(s, "dialled").instances.len() == 1).unwrap();
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}
