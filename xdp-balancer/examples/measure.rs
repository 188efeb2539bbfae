//! What the program costs, by `PROG_TEST_RUN`: needs root and a quiet machine, asserts nothing.
//!
//! The smallest of several rounds is shown, in whole nanoseconds of the kernel's own clock. An answer's
//! time is that of answering and restoring the query, less that of restoring.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]

use std::net::SocketAddr;

use xdp_balancer::testing::{FrameBuilder, Query, address_record, wire};
use xdp_balancer::{Dataplane, Name, Options, Rendered, Rrset, RunAction, Table, remove_all};

const ROUNDS: usize = 9;
const TIMES: u32 = 200_000;

/// A name of so many bytes in wire form.
fn name_of(len: usize) -> String {
    let mut labels = Vec::new();
    let mut left = len - 1;
    while left > 0 {
        let take = left.min(16);
        let take = if left - take == 1 { take - 1 } else { take };
        labels.push("x".repeat(take - 1));
        left -= take;
    }
    labels.join(".")
}

fn least(dataplane: &mut Dataplane, program: &'static str, frame: &[u8]) -> u64 {
    (0..ROUNDS).map(|_| dataplane.time(program, frame, TIMES).unwrap()).min().unwrap()
}

fn main() {
    let options = Options { pin_dir: "/sys/fs/bpf/selvedge-measure".into(), ..Options::default() };
    let mut dataplane = Dataplane::open(&options).unwrap();
    let lengths = [15, 30, 60, 120, 255];
    let records = [1, 2].map(|i| address_record([10, 0, 0, i].into(), 30)).concat();
    let ring = vec![Rendered { flags: 0x0400, ancount: 2, nscount: 0, bytes: records }; 4];
    let name = |text: &str| Name { wire: wire(text), service: 0, rrsets: vec![Rrset { qtype: 1, ring: ring.clone() }] };
    let names = lengths.iter().map(|len| name(&name_of(*len))).collect();
    let local = vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
    dataplane.publish(&Table { generation: 1, local, names }).unwrap();

    let frame = |v6: bool, port: u16, payload: Vec<u8>| {
        let (from, to) = if v6 { ("2001:db8::1", "2001:db8::53") } else { ("192.0.2.1", "192.0.2.53") };
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        FrameBuilder::new(SocketAddr::new(from, 40000), SocketAddr::new(to, port)).payload(payload).build()
    };
    let other = frame(false, 54, vec![0; 64]);
    println!("{:<40} {}", "bare pass", least(&mut dataplane, "selvedge_pass", &other));
    println!("{:<40} {}", "parse, swap, send (v4)", least(&mut dataplane, "bench_swap", &other));
    for v6 in [false, true] {
        let version = if v6 { "v6" } else { "v4" };
        let passed = [
            ("not DNS", frame(v6, 54, vec![0; 64])),
            ("unknown name, 17 bytes", frame(v6, 53, Query::new("www.example.net", 1).build())),
        ];
        for (what, frame) in passed {
            println!("{:<40} {}", format!("{version} {what}"), least(&mut dataplane, "selvedge_xdp", &frame));
            // The same as answers are timed: what this is more than the line above, less a bare pass, is
            // the harness (loads that follow its stores too closely), and part of each answer below.
            let frame = [frame, vec![0; 20]].concat();
            let whole = least(&mut dataplane, "bench_answer", &frame);
            let restore = least(&mut dataplane, "bench_restore", &frame);
            println!("{:<40} {}", format!("{version} {what}, in the harness"), whole.saturating_sub(restore));
        }
        for len in lengths {
            for opt in [false, true] {
                let mut query = Query::new(&name_of(len), 1);
                if opt {
                    query = query.opt(1232, true, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
                }
                // The restoring wants 80 bytes.
                let frame = frame(v6, 53, query.build());
                let frame = if frame.len() < 80 { [frame, vec![0; 20]].concat() } else { frame };
                assert_eq!(dataplane.run(&frame).unwrap().action, RunAction::Answer);
                let whole = least(&mut dataplane, "bench_answer", &frame);
                let restore = least(&mut dataplane, "bench_restore", &frame);
                let what = format!("{version} answer, {len} bytes{}", if opt { ", OPT with cookie" } else { "" });
                println!("{what:<40} {} (of {whole}, less {restore})", whole.saturating_sub(restore));
            }
        }
    }
    drop(dataplane);
    remove_all(&options.pin_dir).unwrap();
}
