//! The way out of replies in transit on a kernel without tcx, by a filter in a `clsact` qdisc, and from there to a link.
//! In namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::process::Command;

use support::lab::{SERVER, in_lab};
use support::{PinDir, pinned, privileged, table};
use xdp_balancer::{Dataplane, DriftKind, EgressBy, TransitHook};

const OUT: &[(&str, TransitHook)] = &[(SERVER, TransitHook::Egress)];

fn tc(words: &str) -> String {
    let output = Command::new("tc").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "tc {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has_clsact() -> bool {
    tc(&format!("qdisc show dev {SERVER}")).contains("clsact")
}

fn filters() -> String {
    tc(&format!("filter show dev {SERVER} egress"))
}

fn by(plane: &Dataplane) -> Option<EgressBy> {
    plane.transit()[0].egress
}

/// The one drift that a glance finds and mends.
fn mended(plane: &mut Dataplane) -> String {
    let found = plane.glance().unwrap();
    let [(drift, Ok(()))] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((drift.kind, drift.object.as_str()), (DriftKind::Filter, SERVER));
    drift.what.clone()
}

#[test]
fn without_tcx_it_is_a_filter_in_a_qdisc() {
    if !privileged("without_tcx_it_is_a_filter_in_a_qdisc") {
        return;
    }
    in_lab(|_lab| {
        let pins = PinDir::new();
        let mut plane = pins.open();
        plane.publish(&table(1, Vec::new())).unwrap();
        plane.without_tcx();
        plane.set_transit(OUT).unwrap();
        assert_eq!(by(&plane), Some(EgressBy::Clsact));
        assert!(filters().contains("selvedge_transit_out") && !pinned(&pins, "egress").exists());
        assert_eq!(plane.glance().unwrap().len(), 0);

        // A qdisc made for it goes with it, if nobody else uses it by then.
        for used in [false, true] {
            plane.set_transit(OUT).unwrap();
            assert!(has_clsact());
            if used {
                tc(&format!("filter add dev {SERVER} ingress pref 9 protocol ip u32 match u32 0 0"));
            }
            plane.set_transit(&[]).unwrap();
            assert_eq!(has_clsact(), used);
            assert!(filters().is_empty());
        }

        // What others take away comes again. A qdisc that was without the filter for a moment may be theirs since.
        plane.set_transit(OUT).unwrap();
        tc(&format!("qdisc del dev {SERVER} clsact"));
        assert!(mended(&mut plane).contains("the qdisc is gone"));
        tc(&format!("filter del dev {SERVER} egress"));
        assert!(mended(&mut plane).contains("the filter is gone"));
        plane.set_transit(&[]).unwrap();
        assert!(has_clsact() && filters().is_empty());
    });
}

#[test]
fn a_filter_gives_way_to_a_link() {
    if !privileged("a_filter_gives_way_to_a_link") {
        return;
    }
    in_lab(|_lab| {
        for taken_away in [false, true] {
            let pins = PinDir::new();
            let mut plane = pins.open();
            plane.publish(&table(1, Vec::new())).unwrap();
            plane.without_tcx();
            plane.set_transit(OUT).unwrap();
            drop(plane);

            let mut plane = pins.open();
            plane.set_transit(OUT).unwrap();
            if by(&plane) == Some(EgressBy::Clsact) {
                println!("SKIPPED (this kernel has no tcx): a_filter_gives_way_to_a_link");
                return;
            }
            let link = pinned(&pins, "egress").join(SERVER);
            assert!(link.exists() && filters().is_empty());
            assert!(has_clsact(), "its removal costs packets; it waits for the end");
            assert_eq!(plane.glance().unwrap().len(), 0);
            if taken_away {
                // Another's by now.
                tc(&format!("qdisc del dev {SERVER} clsact"));
                assert_eq!(plane.glance().unwrap().len(), 0);
                tc(&format!("qdisc add dev {SERVER} clsact"));
            }
            drop(plane);

            // The next process finds the link.
            let mut plane = pins.open();
            plane.set_transit(OUT).unwrap();
            assert!(link.exists());
            plane.set_transit(&[]).unwrap();
            assert!(!link.exists() && !pinned(&pins, "egress").exists());
            assert_eq!(has_clsact(), taken_away);
        }
    });
}
