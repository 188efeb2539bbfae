//! What those pay who have nothing to do with DNS: TCP through an interface with our program, with one that passes
//! everything, and with none, in turn within one run. `make bench-bystander`; a test run does one short round and asserts
//! no figure. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tests::dataplane::{DataplaneLab, EDGE};
use tests::lab::is_root;
use xdp_balancer::testing::{address_record, wire};
use xdp_balancer::{Dataplane, Mode, Name, Options, Rendered, Ring, Rrset, Sizes, Table, attach_pass, detach};

/// Bytes of a request and of its reply.
const MESSAGE: usize = 100;

/// What runs on the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Nothing,
    Pass,
    Ours,
    /// The same program as `Pass` once more: what differs between the two is noise.
    PassAgain,
}

impl Program {
    const ALL: [Self; 4] = [Self::Nothing, Self::Pass, Self::Ours, Self::PassAgain];

    const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Pass => "pass",
            Self::Ours => "ours",
            Self::PassAgain => "pass",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Figures {
    bits_per_s: f64,
    median_us: f64,
    late_us: f64,
}

/// Takes connections: the first byte says whether it is for throughput (`t`) or for requests (`r`).
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        match kind[0] {
            b't' => {
                let mut total = 0_u64;
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    total += len as u64;
                }
                stream.write_all(&total.to_be_bytes()).unwrap();
            }
            b'r' => {
                stream.set_nodelay(true).unwrap();
                while stream.read_exact(&mut buffer[..MESSAGE]).is_ok() {
                    stream.write_all(&buffer[..MESSAGE]).unwrap();
                }
            }
            _ => return,
        }
    }
}

fn connect(kind: u8) -> TcpStream {
    let mut stream = TcpStream::connect((EDGE, 7000)).unwrap();
    stream.write_all(&[kind]).unwrap();
    stream
}

fn measure(length: Duration) -> Figures {
    let mut stream = connect(b't');
    let (begun, bytes) = (Instant::now(), vec![7; 256 * 1024]);
    while begun.elapsed() < length {
        stream.write_all(&bytes).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut total = [0; 8];
    stream.read_exact(&mut total).unwrap();
    let bits_per_s = u64::from_be_bytes(total) as f64 * 8.0 / begun.elapsed().as_secs_f64();

    let mut stream = connect(b'r');
    stream.set_nodelay(true).unwrap();
    let (mut times, mut message) = (Vec::new(), [7; MESSAGE]);
    let begun = Instant::now();
    while begun.elapsed() < length {
        let sent = Instant::now();
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut message).unwrap();
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Figures { bits_per_s, median_us: times[times.len() / 2], late_us: times[times.len() * 99 / 100] }
}

fn table() -> Table {
    let record = address_record("192.0.2.80".parse().unwrap(), 60);
    let answer = Rendered { flags: 0x0400, ancount: 1, bytes: record, ..Rendered::default() };
    let ring = std::sync::Arc::new(Ring::single(answer));
    let name = Name {
        wire: wire("www.edge.test"),
        service: 0,
        rrsets: vec![Rrset { qtype: 1, ring: Some(ring) }],
        others: None,
        below: xdp_balancer::Below::UserSpace,
    };
    Table { generation: 1, local: vec![EDGE.parse().unwrap()], names: vec![name], ..Table::default() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn others_traffic_goes_on() {
    if !is_root("others_traffic_goes_on") {
        return;
    }
    let rounds: u32 = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let length = Duration::from_millis(if rounds > 1 { 1000 } else { 100 });
    let lab = DataplaneLab::create("selv-bystand", "native").unwrap();
    let pins = lab.pins();
    let mut plane = Dataplane::open(&Options { pin_dir: pins.clone(), sizes: Sizes::default() }).unwrap();
    plane.publish(&table()).unwrap();
    let listener = lab.edge.run_in(|| TcpListener::bind((EDGE, 7000)).unwrap()).unwrap();
    let mut found: Vec<(Program, Figures)> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener));
        for round in 0..rounds as usize {
            // Each comes first as often as the others.
            for program in (0..Program::ALL.len()).map(|turn| Program::ALL[(turn + round) % Program::ALL.len()]) {
                lab.edge
                    .run_in(|| match program {
                        Program::Nothing => {}
                        Program::Pass | Program::PassAgain => attach_pass("e0").unwrap(),
                        Program::Ours => drop(plane.attach("e0", Mode::Native).unwrap()),
                    })
                    .unwrap();
                found.push((program, lab.client.run_in(|| measure(length)).unwrap()));
                match program {
                    Program::Nothing => {}
                    Program::Pass | Program::PassAgain => {
                        drop(lab.edge.ip(&["link", "set", "e0", "xdp", "off"]).unwrap())
                    }
                    Program::Ours => drop(lab.edge.run_in(|| detach(&pins, None).unwrap()).unwrap()),
                }
            }
        }
        lab.client.run_in(|| drop(connect(b'q'))).unwrap();
    });
    let all = |program: Program, value: fn(&Figures) -> f64| -> Vec<f64> {
        found.iter().filter(|(p, _)| *p == program).map(|(_, figures)| value(figures)).collect()
    };
    let of = |program, value| median(all(program, value));
    let mut lines = Vec::new();
    for program in Program::ALL {
        let (bits, middle, late) =
            (of(program, |f| f.bits_per_s), of(program, |f| f.median_us), of(program, |f| f.late_us));
        let lates = all(program, |f| f.late_us);
        let (least, most) =
            (lates.iter().fold(f64::INFINITY, |a, b| a.min(*b)), lates.iter().fold(0.0, |a, b| b.max(a)));
        println!(
            "{:5} {:7.2} Gbit/s   request {middle:6.1} us median, {late:6.1} us 99 % ({least:.1} to {most:.1} by round)",
            program.label(),
            bits / 1e9
        );
        lines.push((bits, middle));
    }
    let [_, pass, ours, _] = lines[..] else { panic!("four turns") };
    println!(
        "rounds={rounds} throughput={:.3} latency={:.3} (ours to pass; latency: below 1 is faster)",
        ours.0 / pass.0,
        ours.1 / pass.1
    );
    drop(plane);
    xdp_balancer::remove_all(&pins).unwrap();
    lab.remove().unwrap();
}
