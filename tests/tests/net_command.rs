//! Declared networks through the real daemon, its command and a container engine: rates as configured, repairs, refused
//! reloads, `selvedge net` with and without the daemon. Needs root, nginx and dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{PATIENCE, metrics, serving, video, wait_until};
use tests::edge::{EdgeLab, EdgeOptions};
use tests::lab::daemon::selvedge;
use tests::lab::is_root;
use tests::lab::process::run;

/// Behind the service of the lab's configuration.
const NETWORKS: &str = r#"
[[network.vxlan]]
name = "sv-vx"
vni = 77
local = "10.53.0.1"
remotes = ["10.53.0.2"]
addresses = ["10.99.0.1/24"]

[[network.route]]
to = "10.214.0.0/24"
via = "10.99.0.2"

[[network.uplink]]
interface = "e0"
rate = "900mbit"
"#;

fn lab(service: &str) -> EdgeLab {
    let options = EdgeOptions {
        name: "sv-net".to_owned(),
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("net"),
        window: "1s".to_owned(),
        // More than a second's worth of the highest rate.
        content: 40_000_000,
        service: service.to_owned(),
    };
    EdgeLab::create(options, &mut |_| Ok(())).unwrap()
}

/// Content that came in the first second of a download, as a share of the rate; whole frames count, as for `tc`.
fn first_second(lab: &EdgeLab, address: Ipv4Addr, rate_bps: f64) -> f64 {
    let download = || {
        let mut stream = TcpStream::connect((address, 80)).unwrap();
        stream.write_all(b"GET /content HTTP/1.0\r\n\r\n").unwrap();
        let (mut sum, mut buffer, mut begun) = (0, vec![0; 1 << 18], None);
        loop {
            let count = stream.read(&mut buffer).unwrap();
            let elapsed = begun.get_or_insert_with(Instant::now).elapsed();
            if count == 0 || elapsed >= Duration::from_secs(1) {
                assert_ne!(count, 0, "the content was too short");
                return sum;
            }
            sum += count;
        }
    };
    let content: usize = lab.client.run_in(download).unwrap();
    content as f64 * 8.0 * 1514.0 / 1448.0 / rate_bps
}

/// A rate that a busy machine cannot make higher, and seldom lower: three tries.
fn assert_rate(lab: &EdgeLab, address: Ipv4Addr, rate_bps: f64) {
    let mut seen = Vec::new();
    let held = (0..3).any(|_| {
        let share = first_second(lab, address, rate_bps);
        seen.push(share);
        assert!(share < 1.05, "{seen:?} of {rate_bps}");
        share > 0.95
    });
    println!("{rate_bps} bit/s: {seen:?} of the rate in the first second");
    assert!(held, "{seen:?} of {rate_bps}");
}

/// `selvedge net …` with the lab's configuration: exit code and JSON.
fn net(lab: &EdgeLab, command: &str) -> (Option<i32>, Value) {
    let config = lab.config();
    let arguments = ["net", command, "--json", "--config", config.to_str().unwrap()];
    let (code, out, err) = selvedge(Some(&lab.edge), &arguments).unwrap();
    let document = serde_json::from_str(&out).unwrap_or(Value::String(err));
    (code, document)
}

fn show(lab: &EdgeLab) -> Value {
    let socket = lab.socket();
    let (code, out, err) =
        selvedge(Some(&lab.edge), &["net", "show", "--json", "--socket", socket.to_str().unwrap()]).unwrap();
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

fn changes(plan: &Value) -> Vec<String> {
    let all = plan["changes"].as_array().unwrap_or_else(|| panic!("{plan}"));
    all.iter().map(|c| format!("{} {}", c["object"].as_str().unwrap(), c["name"].as_str().unwrap())).collect()
}

fn edit(lab: &EdgeLab, from: &str, to: &str) {
    let text = fs::read_to_string(lab.config()).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(lab.config(), text.replace(from, to)).unwrap();
}

fn delete(lab: &EdgeLab, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    run(lab.edge.command(words[0]).unwrap().args(&words[1..])).unwrap();
}

#[test]
fn networks_are_as_the_configuration_says() {
    if !is_root("networks_are_as_the_configuration_says") {
        return;
    }
    let mut lab = lab("min = 1\nmax = 1\nttl_s = 1\nrate = \"200mbit\"");
    let mut text = fs::read_to_string(lab.config()).unwrap();
    text.push_str(NETWORKS);
    fs::write(lab.config(), text).unwrap();

    // Before there is anything: all of it is to be made.
    let (code, plan) = net(&lab, "plan");
    assert_eq!(code, Some(2), "{plan}");
    for wanted in ["bridge sv-docker", "vxlan sv-vx", "address 10.99.0.1/24", "route 10.214.0.0/24", "qdisc e0"] {
        assert!(changes(&plan).contains(&wanted.to_owned()), "{wanted}: {plan}");
    }
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("an instance", PATIENCE, |s| serving(s).len() == 1).unwrap();
    let instance = video(&status).instances[0].report.instance.clone();
    let (address, port) = (instance.addresses.v4.unwrap(), instance.id.interface());
    wait_until("the end of the first look", || (net(&lab, "plan").0 == Some(0)).then_some(()));
    assert_rate(&lab, address, 200e6);

    assert_eq!(show(&lab)["repairs"], serde_json::json!({}), "what we do ourselves is no repair");

    // Changed in place: same instance, new rate.
    edit(&lab, "rate = \"200mbit\"", "rate = \"10mbit\"");
    assert_eq!(changes(&net(&lab, "plan").1).len(), 2, "both directions");
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_until("the new rate", || (net(&lab, "plan").0 == Some(0)).then_some(()));
    assert_rate(&lab, address, 10e6);
    assert_eq!(serving(&daemon.status().unwrap()), serving(&status));

    // What others delete is back, counted and named.
    for (command, object, name) in [
        ("ip link del sv-docker", "bridge", "sv-docker"),
        ("ip route del 10.214.0.0/24", "route", "10.214.0.0/24"),
        ("tc qdisc del dev e0 root", "qdisc", "e0"),
        (&format!("ip link del {port}"), "port", &port),
        (&format!("tc qdisc del dev {port} clsact"), "qdisc", &port),
    ] {
        delete(&lab, command);
        let begun = Instant::now();
        wait_until(command, || {
            let shown = show(&lab);
            let named = shown["recent"].as_array().unwrap().iter();
            named.clone().find(|r| r["object"] == object && r["name"] == name)?;
            (net(&lab, "plan").0 == Some(0)).then_some(())
        });
        println!("{command}: seen to be back after {:?}", begun.elapsed());
    }
    let text = metrics(&lab.edge);
    for object in ["bridge", "route", "qdisc", "port", "neighbour", "address"] {
        assert!(text.contains(&format!("selvedge_net_repairs_total{{object=\"{object}\"}}")), "{object} not in {text}");
    }
    assert_rate(&lab, address, 10e6);
    let after = daemon.wait_for("health", PATIENCE, |s| serving(s).len() == 1).unwrap();
    assert_eq!(serving(&after), serving(&status), "the instance was never in doubt");
    // Its packets are counted again, so that a drain sees them.
    let counted = |s: &control::api::Status| {
        let instance = &video(s).instances[0];
        instance.packets_to.unwrap().min(instance.packets_from.unwrap())
    };
    daemon.wait_for("counted packets", PATIENCE, |s| counted(s) > 100).unwrap();

    // A reload that the kernel refuses changes nothing.
    edit(&lab, "via = \"10.99.0.2\"", "via = \"203.0.113.9\"");
    edit(&lab, "rate = \"900mbit\"", "rate = \"800mbit\"");
    daemon.signal(Signal::SIGHUP).unwrap();
    daemon.wait_for("the refusal", PATIENCE, |s| s.config_rejected == 1).unwrap();
    assert!(daemon.log().contains("10.214.0.0/24"), "{}", daemon.log());
    let show_e0 = run(lab.edge.command("tc").unwrap().args(["qdisc", "show", "dev", "e0"])).unwrap();
    assert!(show_e0.contains("rate 900Mbit"), "{show_e0}");
    edit(&lab, "via = \"203.0.113.9\"", "via = \"10.99.0.2\"");
    edit(&lab, "rate = \"800mbit\"", "rate = \"900mbit\"");
    let (code, applied) = net(&lab, "apply");
    assert_eq!((code, changes(&applied["done"]).len()), (Some(0), 0), "{applied}");

    // Without a daemon.
    daemon.kill().unwrap();
    delete(&lab, "ip route del 10.214.0.0/24");
    delete(&lab, &format!("tc qdisc del dev {port} root"));
    let (code, plan) = net(&lab, "plan");
    assert_eq!((code, changes(&plan)), (Some(2), vec![format!("qdisc {port}"), "route 10.214.0.0/24".to_owned()]));
    let (code, applied) = net(&lab, "apply");
    assert_eq!((code, changes(&applied["done"])), (Some(0), changes(&plan)), "{applied}");
    assert_eq!(net(&lab, "plan").0, Some(0));
    let (code, _, err) =
        selvedge(Some(&lab.edge), &["net", "show", "--socket", lab.socket().to_str().unwrap()]).unwrap();
    assert_eq!(code, Some(1), "{err}");

    // The next daemon takes all of it up without touching anything.
    let mut daemon = lab.start_daemon().unwrap();
    let again = daemon.wait_for("adoption", PATIENCE, |s| serving(s).len() == 1).unwrap();
    assert_eq!(serving(&again), serving(&status));
    assert_eq!(show(&lab)["repairs"], serde_json::json!({}), "{}", show(&lab));
    assert_rate(&lab, address, 10e6);
    daemon.terminate().unwrap();

    let config = lab.config();
    let (code, out, err) =
        selvedge(Some(&lab.edge), &["clear", "--yes", "--config", config.to_str().unwrap()]).unwrap();
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("vxlan sv-vx") && out.contains("route 10.214.0.0/24"), "{out}");
    let mut left = lab.edge.interfaces().unwrap();
    left.sort();
    assert_eq!(left, ["e0", "lo"]);
    let show_e0 = run(lab.edge.command("tc").unwrap().args(["qdisc", "show", "dev", "e0"])).unwrap();
    assert!(!show_e0.contains("tbf"), "{show_e0}");
    lab.remove().unwrap();
}
