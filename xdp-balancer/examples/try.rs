//! Scratch.
fn main() {
    let quick = std::env::args().nth(1).as_deref() == Some("v");
    let mut options = xdp_balancer::bench::BenchOptions {
        rounds: std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(5),
        ..Default::default()
    };
    if quick {
        options.rounds = 0;
        options.tables = vec![];
    }
    match xdp_balancer::bench::run(&options) {
        Ok(r) => {
            println!("pass {:.1} swap {:.1}", r.pass_ns, r.swap_tx_ns);
            for c in r.cases {
                println!(
                    "{:14} {:6.1} {:.2}xswap {:.2}xpass {} {}->{}",
                    c.name,
                    c.ns,
                    c.ns / r.swap_tx_ns,
                    c.ns / r.pass_ns,
                    c.verdict,
                    c.frame_bytes,
                    c.result_bytes
                );
            }
            for s in r.scaling {
                println!("{} {} {:.1} {:.1}", s.names, s.services, s.ns, s.zipf_ns);
            }
            for p in r.programs {
                println!("{:?}", p);
            }
        }
        Err(e) => {
            let mut s = format!("{e}\n{e:?}");
            println!("{s}");
        }
    }
}
