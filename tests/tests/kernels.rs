//! The daemon and its program on the kernels of Debian's stable releases, on emulated network cards: the object loads,
//! attaches as it should and answers. Needs root, `dig`, QEMU and the kernels (`tests/setup.sh kernels`).
//!
//! `KERNELS` and `CARDS` say which pairs are tried, `make test-kernels` all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use support::dig;
use tests::lab::machine::{Finished, Kernel, Machine, Shown, has_card};
use tests::lab::{Namespace, is_root};
use xdp_balancer::testing::{FrameBuilder, Query, address_record, send_frame};

/// Half of what the kernel's verifier walks at most before it gives up, so that the next change fits too.
const BUDGET: u64 = 600_000;
/// The machine's card.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x99, 0, 1];
/// Questions of each kind; sent once each, so that one that is lost shows.
const QUESTIONS: u64 = 5;

const ZONE: &str = "$TTL 30\n@ SOA ns hostmaster 1 3600 900 86400 30\n@ NS ns\nns A 10.99.0.1\nwww A 192.0.2.1\n\
    www A 192.0.2.2\nwww AAAA 2001:db8::1\na-rather-long-name.in-a-rather-long.branch A 192.0.2.3\n";

/// Drivers that run XDP programs themselves on all of these kernels; on others generic mode has to do.
fn is_native(card: &str) -> bool {
    card == "virtio-net-pci" || card == "igb"
}

fn config(mode: &str) -> String {
    format!(
        "[dataplane]\ninterfaces = [\"eth0\"]\nmode = \"{mode}\"\n\
         [dataplane.transit]\ningress = [\"eth0\"]\negress = [\"eth0\"]\n\
         [dns]\nlisten = [\"10.99.0.1\", \"fd00:99::1\"]\n\
         [control]\nstate_dir = \"/tmp/state\"\nsocket = \"/run/selvedge.sock\"\n\
         [[zone]]\nname = \"edge.test.\"\nfile = \"/t/zone\"\n\
         [[service]]\nname = \"video\"\nnames = [\"video.edge.test\"]\nimage = \"none\"\nmin = 1\nmax = 1\nttl_s = 30\n\
         [[service.fallback]]\naddresses = [\"192.0.2.7\"]\n"
    )
}

fn words(variable: &str, default: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.split_whitespace().map(str::to_owned).collect()
}

/// By what the program on the way out is attached on a kernel.
fn egress(version: &str) -> &'static str {
    if version == "6.1" { "clsact" } else { "tcx" }
}

/// One line for each kernel and card: release, driver, mode, instructions that the verifier walked, of the program that
/// answers, of those that rewrite replies in transit with what the one on the way out is attached by, and of the one
/// that captures, result.
#[test]
fn the_program_runs_on_debians_kernels() {
    let test = "the_program_runs_on_debians_kernels";
    if !is_root(test) {
        return;
    }
    let mut failed = Vec::new();
    for version in words("KERNELS", "6.1 6.12") {
        let Some(kernel) = Kernel::find(&version, test).unwrap() else { continue };
        for card in words("CARDS", "virtio-net-pci") {
            if !has_card(&card).unwrap() {
                println!("{version} {card}: this QEMU has no such card");
                continue;
            }
            match std::panic::catch_unwind(|| try_pair(&kernel, &version, &card)) {
                Ok(line) => println!("{line} ok"),
                Err(_) => {
                    println!("{version} {card} FAILED");
                    failed.push(format!("{version} {card}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

fn try_pair(kernel: &Kernel, version: &str, card: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let namespace = Namespace::create(&format!("sv-kernel-{}", std::process::id())).unwrap();
    let mut machine = Machine::boot(kernel, card, &namespace, directory.path(), &config("auto"), ZONE).unwrap();
    let shown = machine.wait_until_ready().unwrap();
    let log = machine.log();
    assert!(shown.release.starts_with(version), "{}", shown.release);
    let attached = attached(&shown, &log);
    assert_eq!(attached.mode, if is_native(card) { "native" } else { "generic" }, "{log}");
    if !is_native(card) {
        assert!(log.contains("generic mode"), "nothing is said of it: {log}");
    }
    assert!((1..=BUDGET).contains(&attached.verified), "{} instructions verified", attached.verified);

    let transit = ["ingress", "egress"].map(|direction| {
        let places = shown.dataplane["transit"].as_array().unwrap();
        let place = places.iter().find(|place| place["direction"] == direction);
        let verified = place.and_then(|place| place["verified_instructions"].as_u64());
        let verified = verified.unwrap_or_else(|| panic!("{direction} is not rewritten: {places:?}; {log}"));
        assert!(verified <= BUDGET, "{verified} instructions verified");
        assert_eq!(place.unwrap()["egress"].as_str(), (direction == "egress").then(|| egress(version)), "{log}");
        verified
    });
    let capture = shown.dataplane["capture"]["verified_instructions"].as_u64();
    let capture = capture.unwrap_or_else(|| panic!("nothing is captured; {log}"));
    assert!(capture <= BUDGET, "{capture} instructions verified");
    let asked = ask_all(&namespace);
    reply_in_transit(&namespace);
    let Finished { status, captured } = machine.finish().unwrap();
    assert_eq!((&captured["verdict"], &captured["question"]), (&"answered".into(), &"www.edge.test. IN A".into()));
    let count = |verdict: &str| status["verdicts"][verdict].as_u64().unwrap();
    assert_eq!((count("answered"), count("nodata"), count("nxdomain")), asked, "{}", status["verdicts"]);
    // Each on its way in and on its way out.
    assert_eq!(
        status["transit_verdicts"]["rewritten"].as_u64().unwrap(),
        2 * QUESTIONS,
        "{}",
        status["transit_verdicts"]
    );
    let [in_, out] = transit;
    format!(
        "{} {} {} verified={} transit={in_}/{out} egress={} capture={capture}",
        shown.release,
        shown.driver,
        attached.mode,
        attached.verified,
        egress(version)
    )
}

/// Sends replies of another server through the machine, which has them come back: with its address, its TTL and a right
/// checksum, or they would not be delivered.
fn reply_in_transit(namespace: &Namespace) {
    let server: SocketAddr = "10.98.0.53:53".parse().unwrap();
    let client: SocketAddr = "10.99.0.2:40000".parse().unwrap();
    let rest = address_record([203, 0, 113, 1].into(), 3600);
    let query = Query { flags: 0x8180, counts: [1, 1, 0, 0], rest, ..Query::new("video.edge.test", 1) };
    let frame = FrameBuilder::new(server, client).macs([2, 0, 0, 0, 0, 53], MAC).payload(query.build()).build();
    for filter in ["all", "t0"] {
        // Nobody here knows a way to that server.
        namespace.set(&format!("ipv4/conf/{filter}/rp_filter"), "0").unwrap();
    }
    let exchange = || {
        let socket = UdpSocket::bind(client).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for _ in 0..QUESTIONS {
            send_frame("t0", &frame).unwrap();
            let mut reply = [0; 512];
            let (len, from) = socket.recv_from(&mut reply).unwrap();
            assert_eq!(from, server);
            assert_eq!(reply[len - 16..len], address_record([192, 0, 2, 7].into(), 30), "{:02x?}", &reply[..len]);
        }
    };
    namespace.run_in(exchange).unwrap();
}

struct Attached {
    mode: String,
    verified: u64,
}

fn attached(shown: &Shown, log: &str) -> Attached {
    let interface = &shown.dataplane["interfaces"][0];
    assert_eq!(interface["interface"], "eth0", "not attached; {log}");
    Attached {
        mode: interface["mode"].as_str().unwrap().to_owned(),
        verified: interface["verified_instructions"].as_u64().unwrap(),
    }
}

/// Asks over both families, with and without EDNS; how many of the questions have data, none, or no name.
fn ask_all(client: &Namespace) -> (u64, u64, u64) {
    for _ in 0..QUESTIONS {
        for server in ["@10.99.0.1", "@fd00:99::1"] {
            for edns in ["+noedns", "+edns=0"] {
                let ask = |name: &str, kind: &str| dig(client, &[server, edns, "+norec", name, kind]);
                let reply = ask("www.edge.test", "A");
                let addresses: Vec<_> = reply.addresses().iter().map(ToString::to_string).collect();
                assert_eq!(addresses, ["192.0.2.1", "192.0.2.2"], "{server} {edns}");
                let reply = ask("a-rather-long-name.in-a-rather-long.branch.edge.test", "A");
                assert_eq!(reply.answer.len(), 1, "{server} {edns}");
                let reply = ask("www.edge.test", "MX");
                assert_eq!((reply.status.as_str(), reply.answer.len()), ("NOERROR", 0));
                assert_eq!(ask("nowhere.edge.test", "A").status, "NXDOMAIN");
            }
        }
    }
    let rounds = QUESTIONS * 4;
    (2 * rounds, rounds, rounds)
}
