//! Frames.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
mod support;
use support::*;
use xdp_balancer::testing::{Datagram, Query};
#[test]
fn smoke() {
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    let published = dataplane
        .publish(&table(1, vec![name("www.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1", "10.0.0.2"])])])]))
        .unwrap();
    println!("{published:?}");
    for v6 in [false, true] {
        for opt in [false, true] {
            let mut q = Query::new("wWw.eXample.net", A);
            if opt {
                q = q.opt(4096, true, &[0, 10, 0, 1, 3]);
            }
            let result = dataplane.run(&query(v6, &q)).unwrap();
            println!("{result:02x?}");
            println!("{:02x?}", Datagram::parse(&result.frame));
        }
    }
    println!("{:?}", dataplane.counters(1));
}
