//! Replies in transit as the daemon has them: switched in the running daemon, kept without it, and put right when others
//! take them apart. unbound behind the node, a client in front that asks without a pause. Needs root, `tc` and unbound
//! (`tests/setup.sh lab`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::api::Status;
use control::datapath::audit::DriftReport;
use nix::sys::signal::Signal;
use support::{metrics, video};
use tests::dataplane::{DataplaneLab, EDGE};
use tests::lab::daemon::{Daemon, binary, selvedge};
use tests::lab::netns::veth;
use tests::lab::record::Thing;
use tests::lab::{Namespace, is_root};
use xdp_balancer::testing::{Query, hands};
use xdp_balancer::{Dataplane, EgressBy, Options, TransitHook};

/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const RESOLVER: &str = "10.62.0.2";
const UNBOUND: &str = "/usr/sbin/unbound";
/// Replies that are looked at in each step.
const SOME: usize = 20;

/// The node with a resolver behind it, on `er`; clients are on `e0`.
struct Lab {
    plane: DataplaneLab,
    resolver: Namespace,
    /// The record ends it.
    _unbound: Child,
    starts: u32,
}

impl Lab {
    fn create(name: &str) -> Self {
        let mut plane = DataplaneLab::create(name, "auto").unwrap();
        plane.record.add(Thing::Namespace { name: format!("{name}-resolver") }).unwrap();
        let resolver = Namespace::create(&format!("{name}-resolver")).unwrap();
        veth((&plane.edge, "er"), (&resolver, "r0")).unwrap();
        plane.edge.add_address("er", "10.62.0.1".parse().unwrap(), 24).unwrap();
        resolver.add_address("r0", RESOLVER.parse().unwrap(), 24).unwrap();
        plane.edge.set("ipv4/ip_forward", "1").unwrap();
        resolver.add_route("default", "10.62.0.1".parse().unwrap()).unwrap();
        plane.client.add_route("default", EDGE.parse().unwrap()).unwrap();
        let dir = plane.dir.display();
        let text = format!(
            "server:\n interface: {RESOLVER}\n username: \"\"\n chroot: \"\"\n directory: \"{dir}\"\n pidfile: \"\"\n \
             use-syslog: no\n num-threads: 1\n do-daemonize: no\n access-control: 0.0.0.0/0 allow\n \
             local-zone: \"edge.test.\" static\n \
             local-data: \"video.edge.test. 3600 A 203.0.113.1\"\n local-data: \"video.edge.test. 3600 A 203.0.113.2\"\n\
             remote-control:\n control-enable: no\n"
        );
        let config = plane.dir.join("unbound.conf");
        fs::write(&config, text).unwrap();
        let log = File::create(plane.dir.join("unbound.log")).unwrap();
        let mut unbound = resolver.command(UNBOUND).unwrap();
        unbound.arg("-d").arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let unbound = plane.record.spawn("unbound", &mut unbound).unwrap();
        Self { plane, resolver, _unbound: unbound, starts: 0 }
    }

    /// The configuration with these lists of interfaces and this TTL of the service.
    fn configure(&self, ingress: &str, egress: &str, ttl: u32) {
        let (pins, dir) = (self.plane.pins(), self.plane.dir.display().to_string());
        let text = format!(
            "[dataplane]\ninterfaces = [\"e0\", \"er\"]\npin_dir = \"{}\"\n\
             [dataplane.transit]\ningress = [{ingress}]\negress = [{egress}]\n\
             [dns]\nlisten = [\"{EDGE}\"]\n\
             [control]\nstate_dir = \"{dir}/state\"\nsocket = \"{dir}/socket\"\n\
             [technology.docker]\nsocket = \"{dir}/no-engine\"\n\
             [[zone]]\nname = \"edge.test\"\n\
             [[service]]\nname = \"video\"\nnames = [\"video.edge.test\"]\nimage = \"none\"\nmin = 1\nmax = 1\n\
             ttl_s = {ttl}\n[[service.fallback]]\naddresses = [\"192.0.2.7\", \"192.0.2.8\"]\n",
            pins.display(),
        );
        fs::write(self.plane.config(), text).unwrap();
    }

    fn start(&mut self, program: &Path) -> Daemon {
        self.starts += 1;
        // One of its own each time, so that an earlier one's words are not taken for this one's.
        let (config, socket, log) = (self.plane.config(), self.plane.socket(), self.log());
        let plane = &mut self.plane;
        Daemon::start_program(&mut plane.record, program, &plane.edge, (&config, &socket, &log), &[]).unwrap()
    }

    fn log(&self) -> PathBuf {
        self.plane.dir.join(format!("log.{}", self.starts))
    }

    fn own(&mut self) -> Daemon {
        self.start(&binary("selvedged").unwrap())
    }

    /// What `tc` says, inside the node.
    fn tc(&self, words: &[&str]) -> String {
        let output = self.plane.edge.command("tc").unwrap().args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn has_clsact(&self, interface: &str) -> bool {
        self.tc(&["qdisc", "show", "dev", interface]).contains("clsact")
    }

    /// What the daemon's status says of the way out of `e0`.
    fn egress_of(status: &Status) -> Option<&str> {
        let place = status.transit.iter().find(|place| place.interface == "e0" && place.direction == "egress")?;
        place.egress.as_deref()
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.plane.pins().join(format!("v{}", xdp_balancer_common::LAYOUT)).join(name)
    }

    fn show(&self) -> serde_json::Value {
        let pins = self.plane.pins();
        let words = ["dataplane", "show", "--json", "--pin-dir", pins.to_str().unwrap()];
        let (code, out, error) = selvedge(Some(&self.plane.edge), &words).unwrap();
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str(&out).unwrap()
    }

    fn verify(&self) -> (Option<i32>, String) {
        let config = self.plane.config();
        let words = ["dataplane", "verify", "--config", config.to_str().unwrap()];
        let (code, out, error) = selvedge(Some(&self.plane.edge), &words).unwrap();
        (code, out + &error)
    }

    fn remove(self) {
        xdp_balancer::remove_all(&self.plane.pins()).unwrap();
        self.plane.remove().unwrap();
        drop(self.resolver);
    }
}

/// Whose addresses a reply has, and its longest TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    ours: bool,
    ttl: u32,
}

/// What the client has met.
#[derive(Debug, Default)]
struct Met {
    told: Vec<Told>,
    lost: u32,
}

/// A reply with two addresses, of ours or of the resolver's, never of both.
fn read(reply: &[u8]) -> Told {
    let records = &reply[reply.len() - 32..];
    let of = |record: &[u8]| (record[12..15].to_vec(), u32::from_be_bytes(record[6..10].try_into().unwrap()));
    let ((first, one), (second, other)) = (of(&records[..16]), of(&records[16..]));
    assert_eq!(first, second, "mixed: {reply:02x?}");
    assert!(first == [192, 0, 2] || first == [203, 0, 113], "{reply:02x?}");
    Told { ours: first == [192, 0, 2], ttl: one.max(other) }
}

/// Asks one after the other until told to stop.
fn ask(met: &Mutex<Met>, stop: &AtomicBool) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((RESOLVER, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut query, mut reply) = (Query::new("video.edge.test", 1).build(), [0; 2048]);
    // Until unbound is there.
    while socket.send(&query).is_err() || socket.recv(&mut reply).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    for id in 0_u16.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        query[..2].copy_from_slice(&id.wrapping_mul(257).to_be_bytes());
        let told = match (socket.send(&query), socket.recv(&mut reply)) {
            (Ok(_), Ok(len)) if reply[..2] == query[..2] => Some(read(&reply[..len])),
            _ => None,
        };
        let mut met = met.lock().unwrap();
        match told {
            Some(told) => met.told.push(told),
            None => met.lost += 1,
        }
    }
}

/// The replies of the next moment.
fn next(met: &Mutex<Met>) -> Vec<Told> {
    let from = met.lock().unwrap().told.len();
    let begun = Instant::now();
    loop {
        // The one that was on its way is left out.
        let told = met.lock().unwrap().told.iter().skip(from + 1).copied().collect::<Vec<_>>();
        if told.len() >= SOME {
            return told;
        }
        assert!(begun.elapsed() < PATIENCE, "no replies");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn places(status: &Status) -> Vec<(&str, &str, bool)> {
    let place = |place: &'_ control::datapath::TransitStatus| place.problem.is_none();
    status.transit.iter().map(|t| (t.interface.as_str(), t.direction.as_str(), place(t))).collect()
}

const IN: (&str, &str, bool) = ("er", "ingress", true);
const OUT: (&str, &str, bool) = ("e0", "egress", true);

/// Runs `steps` while a client asks; what it met, and what they came to.
fn under_load<T>(client: &str, steps: impl FnOnce(&Mutex<Met>) -> T) -> (Met, T) {
    let (met, stop) = (Mutex::new(Met::default()), AtomicBool::new(false));
    let client = Namespace::existing(client);
    let done = std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.run_in(|| ask(&met, &stop)).unwrap());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| steps(&met)));
        stop.store(true, Ordering::Relaxed);
        match (outcome, asking.join()) {
            (Ok(done), Ok(())) => done,
            (Err(panic), _) | (_, Err(panic)) => std::panic::resume_unwind(panic),
        }
    });
    (met.into_inner().unwrap(), done)
}

fn skipped(test: &str) -> bool {
    if !is_root(test) {
        return true;
    }
    if !Path::new(UNBOUND).exists() {
        println!("SKIPPED (no unbound; tests/setup.sh lab): {test}");
        return true;
    }
    false
}

#[test]
fn replies_are_rewritten_through_the_daemons_life() {
    if skipped("replies_are_rewritten_through_the_daemons_life") {
        return;
    }
    let mut lab = Lab::create("selv-transit");
    lab.configure("", "", 30);
    let mut daemon = lab.own();
    let reload = |daemon: &mut Daemon, wanted: &[(&str, &str, bool)]| {
        daemon.signal(Signal::SIGHUP).unwrap();
        daemon.wait_for(&format!("{wanted:?}"), PATIENCE, |s| places(s) == wanted).unwrap()
    };
    daemon.wait_for("a table", PATIENCE, |s| s.generation > 0 && video(s).basis == "fallback").unwrap();
    let client = lab.plane.client.name().to_owned();
    let ours = |met: &Mutex<Met>, most: u32| {
        let told = next(met);
        assert!(told.iter().all(|told| told.ours && told.ttl <= most), "{told:?}");
    };
    let theirs = |met: &Mutex<Met>| {
        let told = next(met);
        assert!(told.iter().all(|told| !told.ours && told.ttl > 30), "{told:?}");
    };
    let mut first = 0;
    let mut last = 0;
    // What tc lost packets for where it had to make or remove its qdisc.
    let link = lab.pin("egress").join("e0");
    let (met, daemon) = under_load(&client, |met| {
        for _ in 0..20 {
            lab.configure("", "\"e0\"", 30);
            reload(&mut daemon, &[OUT]);
            ours(met, 30);
            lab.configure("", "", 30);
            reload(&mut daemon, &[]);
            theirs(met);
            assert!(!link.exists());
        }
        // On, on the way out.
        lab.configure("", "\"e0\"", 30);
        let status = reload(&mut daemon, &[OUT]);
        assert_eq!(Lab::egress_of(&status), Some("tcx"));
        assert!(link.exists() && !lab.has_clsact("e0"));
        first = met.lock().unwrap().told.len() + 1;
        ours(met, 30);
        let text = metrics(&lab.plane.edge);
        assert!(text.contains("selvedge_transit_rewriting{direction=\"egress\",interface=\"e0\"} 1"), "{text}");
        assert!(text.contains("selvedge_transit_packets_total{verdict=\"rewritten\"} "), "{text}");
        let shown = lab.show();
        assert_eq!(
            (&shown["transit"][0]["interface"], &shown["transit"][0]["direction"]),
            (&"e0".into(), &"egress".into())
        );
        assert_eq!(shown["transit"][0]["egress"], "tcx");
        assert!(shown["transit"][0]["program_id"].is_u64() && shown["transit"][0]["verified_instructions"].is_u64());
        let mut rewritten = shown["transit_verdicts"]["rewritten"].as_u64().unwrap();
        assert!(rewritten >= SOME as u64, "{shown}");
        let mut grown = |status: Option<&Status>| {
            let now = match status {
                Some(status) => status.transit_verdicts["rewritten"],
                None => lab_count(&lab),
            };
            assert!(now > rewritten, "{now} after {rewritten}");
            rewritten = now;
        };

        // The other direction, then both: never a reply that passes as it was.
        lab.configure("\"er\"", "", 30);
        grown(Some(&reload(&mut daemon, &[IN])));
        ours(met, 30);
        lab.configure("\"er\"", "\"e0\"", 30);
        grown(Some(&reload(&mut daemon, &[IN, OUT])));
        ours(met, 30);
        // The TTL is cut to the service's.
        lab.configure("\"er\"", "\"e0\"", 5);
        daemon.signal(Signal::SIGHUP).unwrap();
        let begun = Instant::now();
        while next(met).iter().any(|told| told.ttl > 5) {
            assert!(begun.elapsed() < PATIENCE, "the TTL stays");
        }
        grown(None);

        // Killed, and started again.
        let pin = lab.pin("TRANSIT_HOOKS");
        daemon.kill().unwrap();
        ours(met, 5);
        assert!(pin.exists());
        grown(None);
        assert_eq!(lab.verify(), (Some(0), "nothing differs\n".to_owned()));
        daemon = lab.own();
        let status = daemon.wait_for("both places", PATIENCE, |s| s.generation > 0 && places(s) == [IN, OUT]).unwrap();
        ours(met, 5);
        assert!(status.transit_verdicts["rewritten"] > rewritten && status.audit.drifts.values().all(|n| *n == 0));
        rewritten = status.transit_verdicts["rewritten"];

        // Another layout of the tables, and back.
        let own = binary("selvedged").unwrap();
        let other = own.parent().unwrap().join("other-layout/selvedged");
        if other.exists() {
            for program in [&other, &own] {
                daemon.kill().unwrap();
                daemon = lab.start(program);
                let up = |s: &Status| s.generation > 0 && places(s) == [IN, OUT];
                let status = daemon.wait_for("both places", PATIENCE, up).unwrap();
                ours(met, 5);
                assert!(status.transit_verdicts["rewritten"] > rewritten, "{:?}", status.transit_verdicts);
                rewritten = status.transit_verdicts["rewritten"];
            }
        } else {
            println!("SKIPPED (no {}; make other-layout): another layout", other.display());
        }

        // Off: nothing is left of it.
        last = met.lock().unwrap().told.len();
        lab.configure("", "", 5);
        reload(&mut daemon, &[]);
        theirs(met);
        assert!(!pin.exists() && !lab.pin("TRANSIT_VERDICTS").exists());
        assert!(!link.exists() && !lab.has_clsact("e0"));
        let shown = lab.show();
        assert_eq!((&shown["transit"], &shown["transit_verdicts"]), (&serde_json::json!([]), &serde_json::json!({})));
        daemon
    });
    println!("replies={} lost={}", met.told.len(), met.lost);
    assert_eq!(met.lost, 0);
    assert!(met.told[first..last].iter().all(|told| told.ours), "while it was on none passed as it was");

    daemon.terminate().unwrap();
    lab.remove();
}

/// As a daemon leaves it that knows no tcx: a filter in a qdisc of its own. The next one goes over to a link without a
/// moment in which replies pass as they were.
#[test]
fn a_filter_of_before_becomes_a_link() {
    if skipped("a_filter_of_before_becomes_a_link") {
        return;
    }
    let mut lab = Lab::create("selv-tr-before");
    lab.configure("", "", 30);
    let daemon = {
        let mut daemon = lab.own();
        daemon.wait_for("a table", PATIENCE, |s| s.generation > 0 && video(s).basis == "fallback").unwrap();
        daemon
    };
    daemon.terminate().unwrap();
    let pins = lab.plane.pins();
    let before = move || {
        let mut plane = Dataplane::open(&Options { pin_dir: pins, ..Options::default() }).unwrap();
        plane.without_tcx();
        plane.set_transit(&[("e0", TransitHook::Egress)]).unwrap();
        assert_eq!(plane.transit()[0].egress, Some(EgressBy::Clsact));
    };
    lab.plane.edge.run_in(before).unwrap();
    let link = lab.pin("egress").join("e0");
    assert!(lab.has_clsact("e0") && !link.exists());

    let client = lab.plane.client.name().to_owned();
    let (met, mut daemon) = under_load(&client, |met| {
        next(met);
        let from = met.lock().unwrap().told.len();
        lab.configure("", "\"e0\"", 30);
        let mut daemon = lab.own();
        let status = daemon.wait_for("the way out", PATIENCE, |s| s.generation > 0 && places(s) == [OUT]).unwrap();
        assert_eq!(Lab::egress_of(&status), Some("tcx"));
        next(met);
        let told = met.lock().unwrap().told[from..].to_vec();
        assert!(told.iter().all(|told| told.ours && told.ttl <= 30), "{told:?}");
        daemon
    });
    println!("replies={} lost={}", met.told.len(), met.lost);
    assert_eq!(met.lost, 0);
    // The filter went, the qdisc waits for the end: its removal costs packets.
    assert!(link.exists() && lab.has_clsact("e0"));
    assert!(lab.tc(&["filter", "show", "dev", "e0", "egress"]).is_empty());
    lab.configure("", "", 30);
    daemon.signal(Signal::SIGHUP).unwrap();
    daemon.wait_for("its end", PATIENCE, |s| s.transit.is_empty()).unwrap();
    assert!(!link.exists() && !lab.has_clsact("e0"));
    daemon.terminate().unwrap();
    lab.remove();
}

fn lab_count(lab: &Lab) -> u64 {
    lab.show()["transit_verdicts"]["rewritten"].as_u64().unwrap()
}

#[test]
fn what_others_take_apart_is_counted_named_and_put_right() {
    if skipped("what_others_take_apart_is_counted_named_and_put_right") {
        return;
    }
    let mut lab = Lab::create("selv-tr-hands");
    lab.configure("\"er\"", "\"e0\", \"late0\"", 30);
    let mut daemon = lab.own();
    let late = ("late0", "egress");
    let up = |s: &Status| places(s) == [IN, OUT, (late.0, late.1, false)] && s.generation > 0 && s.audit.at.is_some();
    let status = daemon.wait_for("two places", PATIENCE, up).unwrap();
    assert_eq!(status.transit[2].problem.as_deref(), Some("no network interface late0"));

    let index =
        |name: &'static str| lab.plane.edge.run_in(move || nix::net::if_::if_nametoindex(name).unwrap()).unwrap();
    let er = index("er");
    let pins = lab.plane.pins();
    let mut counted = std::collections::BTreeMap::<&str, u64>::new();
    let mut mended = |kind: &'static str, object: &str, what: &str| {
        let count = counted.entry(kind).or_default();
        *count += 1;
        let begun = Instant::now();
        let seen = |s: &Status| s.audit.drifts[kind] == *count && s.audit.open.is_empty();
        let status = daemon.wait_for(what, PATIENCE, seen).unwrap();
        let last = status.audit.recent.back().unwrap();
        assert_eq!((last.kind.as_str(), last.object.as_str()), (kind, object), "{last:?}");
        assert!(last.what.contains(what), "{last:?}");
        println!("{kind} {object}: {} ({} ms)", last.what, begun.elapsed().as_millis());
    };
    let link = lab.pin("egress").join("e0");
    hands::detach_link(&link).unwrap();
    mended("filter", "e0", "the link is detached");
    fs::remove_file(&link).unwrap();
    mended("pin", "egress/e0", "the pin is gone");
    let others = pins.with_file_name("selv-tr-others");
    let open = || Dataplane::open(&Options { pin_dir: others.clone(), ..Options::default() }).unwrap();
    let mut foreign = lab.plane.edge.run_in(open).unwrap();
    lab.plane.edge.run_in(|| foreign.set_transit(&[("er", TransitHook::Egress)]).unwrap()).unwrap();
    let id = foreign.transit()[0].program_id.unwrap();
    hands::replace_program(&link, id).unwrap();
    mended("filter", "e0", "instead of ours");
    hands::delete_element(&lab.pin("TAILS"), 0).unwrap();
    mended("program", "TAILS", "the slot is empty");
    hands::delete_element(&lab.pin("TRANSIT_HOOKS"), er).unwrap();
    mended("settings", "TRANSIT_HOOKS", "the entry of er is gone");
    for name in ["TRANSIT_HOOKS", "TRANSIT_VERDICTS"] {
        fs::remove_file(lab.pin(name)).unwrap();
        mended("pin", name, "the pin is gone");
    }
    assert_eq!(lab.verify(), (Some(0), "nothing differs\n".to_owned()));

    // Somebody else's goes in front: named, and left.
    lab.plane.edge.run_in(|| foreign.set_transit(&[("e0", TransitHook::Egress)]).unwrap()).unwrap();
    let status = daemon.wait_for("the program in front", PATIENCE, |s| s.audit.open.len() == 1).unwrap();
    let DriftReport { kind, object, problem, .. } = &status.audit.open[0];
    assert_eq!((kind.as_str(), object.as_str()), ("filter", "e0"));
    assert!(problem.as_ref().unwrap().contains(&format!("selvedge_transi (id {id}, tag ")), "{problem:?}");
    assert!(status.transit[1].problem.is_none(), "{:?}", status.transit);
    *counted.entry("filter").or_default() += 1;
    lab.plane.edge.run_in(|| foreign.set_transit(&[]).unwrap()).unwrap();
    drop(foreign);
    xdp_balancer::remove_all(&others).unwrap();
    daemon.wait_for("its end", PATIENCE, |s| s.audit.open.is_empty()).unwrap();

    // An interface that comes later is no drift.
    lab.plane.edge.ip(&["link", "add", "late0", "type", "veth", "peer", "name", "late1"]).unwrap();
    daemon.wait_for("the third place", PATIENCE, |s| places(s).last() == Some(&(late.0, late.1, true))).unwrap();

    // Off by order stays off; the rest goes on.
    for (interface, left) in [("late0", 2), ("e0", 1)] {
        let words = ["dataplane", "detach", interface, "--pin-dir", pins.to_str().unwrap()];
        let (code, out, error) = selvedge(Some(&lab.plane.edge), &words).unwrap();
        assert_eq!((code, out.trim()), (Some(0), format!("detached from {interface}").as_str()), "{error}");
        let on = |s: &Status| s.transit.iter().filter(|place| place.problem.is_none()).count() == left;
        let status = daemon.wait_for("that it is off", PATIENCE, on).unwrap();
        assert!(!lab.has_clsact(interface) && !lab.pin("egress").join(interface).exists());
        let off =
            status.transit.iter().find(|place| place.interface == interface && place.direction == "egress").unwrap();
        assert!(off.problem.as_deref().unwrap().contains("by order"), "{off:?}");
    }
    let drifts = daemon.status().unwrap().audit.drifts;
    assert!(counted.iter().all(|(kind, count)| drifts[*kind] == *count), "an order is no drift: {drifts:?}");
    let (met, told) = under_load(lab.plane.client.name(), next);
    assert!(met.lost == 0 && told.iter().all(|told| told.ours), "{met:?}");

    // Without the daemon it is told, and a start puts all of it on again.
    daemon.kill().unwrap();
    let (code, said) = lab.verify();
    assert!(code == Some(1) && said.contains("filter e0: egress: replies are not rewritten"), "{said}");
    daemon = lab.own();
    daemon.wait_for("all places", PATIENCE, |s| s.transit.iter().all(|place| place.problem.is_none())).unwrap();
    assert!(link.exists() && !lab.has_clsact("e0"));
    daemon.terminate().unwrap();
    lab.remove();
}
