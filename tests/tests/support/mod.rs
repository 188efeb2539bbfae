//! What the end-to-end tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use control::api::{ServiceStatus, Status};
use control::load::LoadReport;
use control::model::InstanceState;
use futures_util::FutureExt as _;
use tests::edge::{EdgeLab, EdgeOptions, downloads};
use tests::lab::Namespace;

/// Longest wait for anything; far above what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A lab of its own for a test.
pub fn lab(name: &str, service: &str) -> EdgeLab {
    let options = EdgeOptions {
        name: format!("sv-{name}"),
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name),
        window: "1s".to_owned(),
        content: 100_000,
        service: service.to_owned(),
    };
    let mut say = |step: &str| {
        println!("{name}: {step}");
        Ok(())
    };
    EdgeLab::create(options, &mut say).unwrap()
}

/// The lab's service.
pub fn video(status: &Status) -> &ServiceStatus {
    status.services.iter().find(|(name, _)| name.as_str() == "video").map(|(_, s)| s).expect("the lab's service")
}

/// Its serving instances.
pub fn serving(status: &Status) -> BTreeSet<String> {
    let all = video(status).instances.iter();
    all.filter(|i| i.report.instance.state == InstanceState::Serving)
        .map(|i| i.report.instance.id.to_string())
        .collect()
}

/// What `dig` printed, in parts.
#[derive(Debug)]
pub struct Dig {
    pub status: String,
    pub flags: BTreeSet<String>,
    pub answer: Vec<Vec<String>>,
    pub authority: Vec<Vec<String>>,
    pub question: String,
    pub edns: bool,
}

/// Asks with the real `dig`.
pub fn dig(from: &Namespace, arguments: &[&str]) -> Dig {
    let mut command = from.command("dig").unwrap();
    let output = command.args(["+tries=1", "+time=3"]).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "dig {arguments:?}: {text}");
    let header = text.lines().find(|l| l.contains("->>HEADER<<-")).unwrap_or_else(|| panic!("no header: {text}"));
    let status = header.split("status: ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let flags = text.lines().find_map(|l| l.strip_prefix(";; flags: ")).unwrap().split(';').next().unwrap();
    let section = |title: &str| -> Vec<Vec<String>> {
        let lines = text.lines().skip_while(|l| *l != title).skip(1);
        lines.take_while(|l| !l.is_empty()).map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let question = section(";; QUESTION SECTION:");
    Dig {
        status,
        flags: flags.split_whitespace().map(str::to_owned).collect(),
        answer: section(";; ANSWER SECTION:"),
        authority: section(";; AUTHORITY SECTION:"),
        question: question.first().map(|q| q[0].trim_start_matches(';').to_owned()).unwrap_or_default(),
        edns: text.contains("; EDNS: version: 0"),
    }
}

impl Dig {
    /// Addresses in the answer section.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.answer.iter().filter(|r| r[3] == "A" || r[3] == "AAAA").map(|r| r[4].parse().unwrap()).collect()
    }

    /// Whether a header flag is set.
    pub fn flag(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}

/// Downloads from a client, a number of requests per second after the other, while `during` does its part; until that is
/// done, fails, or all is offered.
pub fn under_load<T>(from: Namespace, pattern: Vec<u32>, during: impl FnOnce() -> T) -> (LoadReport, T) {
    let options = downloads(pattern, Duration::from_secs(1), 1);
    std::thread::scope(|scope| {
        // It ends with its sender, also where that goes by a panic.
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        let offer = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control::load::run(options, None, ended.map(drop))).unwrap()
        };
        let running = scope.spawn(move || from.run_in(offer).unwrap());
        let result = during();
        drop(done);
        (running.join().unwrap(), result)
    })
}

/// Looks until something is found.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The daemon's metrics, scraped.
pub fn metrics(edge: &Namespace) -> String {
    let scrape = || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9553").unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    edge.run_in(scrape).unwrap()
}
