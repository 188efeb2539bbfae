//! What others do to our things is found and put right; another layout's place is taken without a gap. On real
//! interfaces, in namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::mem::offset_of;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;
use support::lab::{CLIENT, Lab, SERVER, in_lab};
use support::{A, PinDir, addresses, name, pinned, privileged, table};
use xdp_balancer::testing::{Query, hands};
use xdp_balancer::{
    Dataplane, DriftKind, Error, Limits, LogLevel, Mended, Mode, Rules, Table, Verdict, attach, attach_pass, detach,
    log_level, running, set_log_level, verify,
};
use xdp_balancer_common::{Guard, ListKey, Root, SLIPPED_AT};

const PATIENCE: Duration = Duration::from_secs(10);

fn names(generation: u64) -> Table {
    let www = name("www.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1"])])]);
    let long = name("a-longer-name-than-a-slot-holds.other.example.net", 1, vec![(A, vec![addresses(&["10.0.0.9"])])]);
    table(generation, vec![www, long])
}

/// Asks at the client's end; the thread is at the server's afterwards.
fn answers(lab: &Lab, host: &str) -> usize {
    lab.at_client();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(("192.0.2.53", 53)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&Query::new(host, A).build()).unwrap();
    let mut reply = [0; 4096];
    let received = socket.recv(&mut reply);
    lab.at_server();
    received.map_or(0, |len| Message::from_vec(&reply[..len]).unwrap().answers.len())
}

/// Kinds and objects of what was found; each must have been put right.
fn mended(found: Vec<Mended>) -> Vec<(DriftKind, String)> {
    found.into_iter().map(|(drift, outcome)| (drift.kind, outcome.map(|()| drift.object).unwrap())).collect()
}

#[test]
fn what_others_do_is_named_and_put_right() {
    if !privileged("what_others_do_is_named_and_put_right") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut plane = pins.open();
        plane.publish(&names(1)).unwrap();
        let ours = plane.attach(SERVER, Mode::Native).unwrap().program_id;
        plane.count_flows(SERVER).unwrap();
        lab.at_client();
        attach_pass(CLIENT).unwrap();
        let (pass, _, _) = running(CLIENT).unwrap().unwrap();
        lab.at_server();
        let interfaces = [SERVER.to_owned()];
        let drifts = || verify(&pins.0, &names(1), &interfaces).unwrap();
        assert_eq!(mended(plane.audit().unwrap()), []);
        assert_eq!(drifts(), []);
        let link = pinned(&pins, "links").join(SERVER);

        // The link's pin.
        fs::remove_file(&link).unwrap();
        assert_eq!(mended(plane.glance().unwrap()), [(DriftKind::Pin, format!("links/{SERVER}"))]);
        assert!(link.exists() && answers(&lab, "www.example.net") == 1);

        // A map's pin, and another map in its place.
        fs::remove_file(pinned(&pins, "POOL")).unwrap();
        assert_eq!(drifts()[0].to_string(), "pin POOL: the pin is gone");
        assert_eq!(mended(plane.glance().unwrap()), [(DriftKind::Pin, "POOL".to_owned())]);
        fs::remove_file(pinned(&pins, "VERDICTS")).unwrap();
        fs::rename(pinned(&pins, "SERVICES"), pinned(&pins, "VERDICTS")).unwrap();
        assert_eq!(mended(plane.glance().unwrap()).len(), 2);
        assert_eq!(drifts(), []);

        // The program in the link.
        hands::replace_program(&link, pass).unwrap();
        let found = drifts();
        assert!(found[0].kind == DriftKind::Program && found[0].what.contains("selvedge_pass"), "{found:?}");
        assert_eq!(mended(plane.glance().unwrap()), [(DriftKind::Program, SERVER.to_owned())]);
        assert_eq!(running(SERVER).unwrap().unwrap().0, ours);

        // The link.
        hands::detach_link(&link).unwrap();
        assert_eq!(drifts()[0].to_string(), format!("link {SERVER}: no program is attached"));
        assert_eq!(mended(plane.glance().unwrap()), [(DriftKind::Link, SERVER.to_owned())]);
        assert_eq!((answers(&lab, "www.example.net"), drifts()), (1, vec![]));

        // The link, and another's program in its place: named and left alone.
        hands::detach_link(&link).unwrap();
        attach_pass(SERVER).unwrap();
        let found = plane.glance().unwrap();
        assert!(
            matches!(&found[..], [(drift, Err(Error::Foreign { name, .. }))]
            if drift.kind == DriftKind::Link && name == "selvedge_pass"),
            "{found:?}"
        );
        support::lab::ip(&format!("link set {SERVER} xdp off"));
        assert_eq!(mended(plane.glance().unwrap()).len(), 1);

        // An answer, a name, the table of names, the settings.
        let mut bytes = hands::Bytes::open(&pinned(&pins, "POOL")).unwrap();
        for at in bytes.find(&[10, 0, 0, 9]) {
            bytes.write(at, &[10, 6, 6, 6]);
        }
        let told = "table a-longer-name-than-a-slot-holds.other.example.net.: A: answers differ";
        assert_eq!(drifts().iter().map(ToString::to_string).collect::<Vec<_>>(), [told]);
        assert_eq!(mended(plane.glance().unwrap()), [], "not at a glance");
        assert_eq!(mended(plane.audit().unwrap()).len(), 1);
        assert_eq!((drifts(), bytes.find(&[10, 6, 6, 6]).len()), (vec![], 0));
        for at in bytes.find(b"\x03www\x07example") {
            bytes.write(at - 4, &[0; 4]);
        }
        let found = drifts();
        assert!(
            found.iter().any(|drift| drift.to_string() == "table www.example.net.: is not in the tables"),
            "{found:?}"
        );
        assert_eq!(answers(&lab, "www.example.net"), 0);
        assert_eq!(mended(plane.audit().unwrap()).len(), found.len());
        assert_eq!((answers(&lab, "www.example.net"), drifts()), (1, vec![]));
        let at = xdp_balancer_common::ROOT_AT;
        bytes.write(at, &[0xff; 8]);
        assert_eq!(drifts().len(), 2, "no name is found: {:?}", drifts());
        assert_eq!(mended(plane.audit().unwrap()).len(), 2);
        let local = bytes.find(&[192, 0, 2, 53]);
        bytes.write(local[0], &[192, 0, 2, 99]);
        assert!(drifts()[0].what.contains("IPv4 addresses"), "{:?}", drifts());
        assert_eq!(mended(plane.glance().unwrap()), [(DriftKind::Settings, "POOL".to_owned())]);
        assert_eq!((answers(&lab, "www.example.net"), drifts()), (1, vec![]));

        // A rule, a list, an answer without records.
        let root = xdp_balancer_common::ROOT_AT;
        let limits = Limits { client: 1000, ..Limits::default() };
        let deny = vec![("198.51.100.0".parse().unwrap(), 24), ("2001:db8:bad::".parse().unwrap(), 48)];
        plane.set_rules(&Rules { limits, deny, ..Rules::default() }).unwrap();
        bytes.write(root + offset_of!(Root, guard), &[0; 8]);
        let found = plane.glance().unwrap();
        assert_eq!(
            (found[0].0.what.as_str(), plane.guard().features),
            ("features", Guard::LIMITS | Guard::LISTS | Guard::DENY_DROPS)
        );
        assert_eq!(mended(found), [(DriftKind::Rules, "POOL".to_owned())]);
        let key = ListKey { len: 96 + 24, address: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([198, 51, 100, 0])] };
        hands::delete_element(&pinned(&pins, "LISTS"), key).unwrap();
        assert_eq!(mended(plane.glance().unwrap()), [], "not at a glance");
        assert_eq!(mended(plane.audit().unwrap()), [(DriftKind::Rules, "LISTS".to_owned())]);
        hands::delete_element(&pinned(&pins, "LISTS"), key).unwrap();
        bytes.write(SLIPPED_AT, &[0xff; 8]);
        assert_eq!(mended(plane.audit().unwrap()).len(), 2);
        assert_eq!(mended(plane.audit().unwrap()), []);

        // The counters of an instance.
        let ifindex = plane.flows().unwrap()[0];
        hands::delete_element(&pinned(&pins, "FLOWS"), ifindex).unwrap();
        assert_eq!(mended(plane.audit().unwrap()), [(DriftKind::Counter, SERVER.to_owned())]);
        assert_eq!(plane.flows().unwrap(), [ifindex]);
        assert_eq!(mended(plane.audit().unwrap()), []);
    });
}

#[test]
fn an_order_to_take_it_off_stands_until_one_to_put_it_on() {
    if !privileged("an_order_to_take_it_off_stands_until_one_to_put_it_on") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut plane = pins.open();
        plane.publish(&names(1)).unwrap();
        plane.attach(SERVER, Mode::Generic).unwrap();
        assert_eq!(detach(&pins.0, Some(SERVER)).unwrap(), [SERVER]);
        assert_eq!(mended(plane.audit().unwrap()), []);
        assert_eq!(running(SERVER).unwrap(), None);
        let found = verify(&pins.0, &names(1), &[SERVER.to_owned()]).unwrap();
        assert_eq!(found[0].to_string(), format!("link {SERVER}: taken off by order"));

        // By hand, beside the process that holds the lock, which takes the link over.
        let by_hand = attach(&pins.0, SERVER, Mode::Auto).unwrap();
        assert_eq!((running(SERVER).unwrap().unwrap().0, answers(&lab, "www.example.net")), (by_hand.program_id, 1));
        assert_eq!(mended(plane.glance().unwrap()), []);
        assert_ne!(running(SERVER).unwrap().unwrap().0, by_hand.program_id);
        assert_eq!((mended(plane.audit().unwrap()), answers(&lab, "www.example.net")), (vec![], 1));

        // Without anybody, from the pins alone; without pins it cannot be.
        detach(&pins.0, None).unwrap();
        drop(plane);
        attach(&pins.0, SERVER, Mode::Auto).unwrap();
        assert_eq!(answers(&lab, "www.example.net"), 1);
        assert!(attach(&pins.0.join("nowhere"), SERVER, Mode::Auto).is_err());
        attach(&pins.0, SERVER, Mode::Native).unwrap_err();
    });
}

/// Renames what is pinned, as if a version with another layout had done it.
fn into_layout(pins: &PinDir, from: u32, to: u32) {
    let (from, to) = (pins.0.join(format!("v{from}")), pins.0.join(format!("v{to}")));
    let entries = |directory: &std::path::Path| {
        fs::read_dir(directory).map_or_else(|_| Vec::new(), |all| all.map(|entry| entry.unwrap().path()).collect())
    };
    fs::create_dir_all(to.join("links")).unwrap();
    for directory in ["", "links"] {
        for path in entries(&from.join(directory)).iter().filter(|path| !path.is_dir()) {
            fs::rename(path, to.join(directory).join(path.file_name().unwrap())).unwrap();
        }
    }
    let _ = fs::remove_dir(from.join("links"));
    fs::remove_dir(&from).unwrap();
}

#[test]
fn the_place_of_another_layout_is_taken_without_a_gap() {
    if !privileged("the_place_of_another_layout_is_taken_without_a_gap") {
        return;
    }
    const OURS: u32 = xdp_balancer_common::LAYOUT;
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut plane = pins.open();
        plane.publish(&names(1)).unwrap();
        plane.attach(SERVER, Mode::Native).unwrap();
        lab.at_client();
        attach_pass(CLIENT).unwrap();
        lab.at_server();
        assert_eq!(answers(&lab, "www.example.net"), 1);
        let mut before = plane.counters(2).unwrap();
        assert_eq!((before.verdict(Verdict::Answered), before.services[0].answered()), (1, 1));
        set_log_level(&pins.0, LogLevel::Error).unwrap();
        drop(plane);

        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                lab.at_server();
                let mut looks = 0;
                while !stop.load(Ordering::Relaxed) || looks == 0 {
                    assert!(running(SERVER).unwrap().is_some(), "no program after {looks} looks");
                    looks += 1;
                }
            });
            for round in 0..6 {
                // Up and down: where counters of this layout were kept, and where not.
                let other = [OURS + 1, OURS + 2, OURS + 1, OURS + 3, OURS + 2, OURS + 1][round];
                if !pins.0.join(format!("v{other}")).exists() {
                    into_layout(&pins, OURS, other);
                }
                if pins.0.join(format!("v{OURS}")).exists() {
                    continue;
                }
                let mut plane = pins.open();
                assert!(plane.takes_over().unwrap() && !plane.adopted());
                let error = plane.attach(SERVER, Mode::Auto).unwrap_err();
                assert!(matches!(error, Error::Unpublished { .. }), "{error}");
                assert_eq!(answers(&lab, "www.example.net"), 1, "the other goes on");
                plane.publish(&names(1)).unwrap();
                plane.attach(SERVER, Mode::Auto).unwrap();
                assert_eq!(answers(&lab, "www.example.net"), 1);
                assert_eq!(log_level(&pins.0).unwrap(), Some(LogLevel::Error), "as it was chosen before");
                let after = plane.counters(2).unwrap();
                assert_eq!(after.epoch, before.epoch);
                assert_eq!(after.verdict(Verdict::Answered), before.verdict(Verdict::Answered) + 2);
                assert_eq!(after.services[0].answered(), before.services[0].answered() + 2);
                let left = fs::read_dir(pins.0.join(format!("v{other}"))).unwrap().count();
                assert_eq!(left, 2, "counters alone stay of the other");
                assert!(!plane.takes_over().unwrap());
                assert_eq!(mended(plane.audit().unwrap()), []);
                before = after;
            }
            stop.store(true, Ordering::Relaxed);
            watching.join().unwrap();
        });
        let plane: Dataplane = pins.open();
        assert!(plane.adopted());
        let after = plane.counters(2).unwrap();
        assert_eq!((after.epoch, after.services), (before.epoch, before.services));
    });
}
