//! Whole runs against our own DNS server and real HTTP servers on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::lookup::{Lookup, lookup};
use super::*;
use crate::dns::client::Question;
use crate::dns::tests::{backend, no_summons, service, snapshot};
use crate::dns::{DnsStats, Index, Listeners, Outcome, Policy, TYPE_A, TYPE_AAAA, Transport};
use crate::model::{AddressPair, Backend};

const NAME: &str = "video.edge.test.";
const BODY: usize = 200_000;

/// DNS for `NAME`, alive as long as this.
struct Dns {
    address: SocketAddr,
    stats: Arc<DnsStats>,
    _index: watch::Sender<Arc<Index>>,
    _task: JoinSet<()>,
}

fn dns(backends: Vec<Backend>) -> Dns {
    dns_for(NAME, backends)
}

fn dns_for(name: &str, backends: Vec<Backend>) -> Dns {
    let mut service = service(0, name, backends);
    service.answers = 16;
    // A port that is free for UDP may be another test's for TCP.
    let bind = || Listeners::bind(&["127.0.0.1".parse().unwrap()], 0);
    let listeners = std::iter::repeat_with(bind).take(20).find_map(Result::ok).unwrap();
    let address = listeners.addresses()[0];
    let (index, snapshots) = watch::channel(Arc::new(Index::new(&snapshot(vec![service])).unwrap()));
    let (_, policies) = watch::channel(Arc::new(Policy::default()));
    let stats = Arc::new(DnsStats::default());
    let mut task = JoinSet::new();
    task.spawn(listeners.serve(snapshots, policies, Arc::clone(&stats), no_summons(), pending()));
    Dns { address, stats, _index: index, _task: task }
}

fn on_loopback(number: u8) -> Backend {
    let addresses = AddressPair { v4: Some([127, 0, 0, number].into()), v6: None };
    Backend { addresses, ..backend(number, 1) }
}

/// An HTTP server per address, all on one port.
async fn http(addresses: &[&str], tasks: &mut JoinSet<()>) -> u16 {
    let mut port = 0;
    for address in addresses {
        let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), port)).await.unwrap();
        port = listener.local_addr().unwrap().port();
        let body = || async { vec![b'x'; BODY] };
        let router = axum::Router::new().route("/content", axum::routing::get(body));
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    }
    port
}

/// A server that reads the request, writes `reply` and closes; with no reply it stays silent.
async fn raw(reply: &'static str, tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            _ = stream.read(&mut [0; 4096]).await;
            if reply.is_empty() {
                open.push(stream);
            } else {
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        }
    });
    port
}

fn options(dns: SocketAddr, port: u16, pattern: &[u32]) -> LoadOptions {
    LoadOptions {
        servers: vec![dns],
        name: NAME.to_owned(),
        port,
        path: "/content".to_owned(),
        pattern: pattern.to_vec(),
        window: Duration::from_millis(300),
        cycles: 1,
        timeout: Duration::from_secs(5),
        dns_timeout: Duration::from_secs(1),
        concurrency: 100,
        family: Family::A,
    }
}

async fn run_plain(options: LoadOptions) -> LoadReport {
    run(options, None, pending()).await.unwrap()
}

#[tokio::test]
async fn every_request_is_one_query_and_one_whole_download() {
    let mut tasks = JoinSet::new();
    let dns = dns(vec![on_loopback(1), on_loopback(2)]);
    let port = http(&["127.0.0.1", "127.0.0.2"], &mut tasks).await;
    let (sender, mut events) = mpsc::channel(1000);
    let options = LoadOptions { cycles: 2, ..options(dns.address, port, &[10, 0, 20]) };
    let report = run(options, Some(sender), pending()).await.unwrap();

    assert!(report.all_ok(), "{report}");
    let total = &report.total;
    assert_eq!((total.offered, total.ok, total.failed, total.cancelled), (60, 60, 0, 0));
    assert_eq!(total.bytes, 60 * BODY as u64);
    assert!(total.instances.values().all(|share| share.requests == 30 && share.share == 0.5), "{total:?}");
    assert_eq!(report.windows.iter().map(|w| w.tally.ok).collect::<Vec<_>>(), [10, 0, 20, 10, 0, 20]);
    assert!((1800..10_000).contains(&report.duration_ms), "{}", report.duration_ms);
    let (response, download) = (total.response_ms.unwrap(), total.download_ms.unwrap());
    let delivery = total.delivery_ms.unwrap();
    assert!(response.p50 > 0.0 && download.p50 > 0.0 && delivery.max >= response.max.max(download.max));
    assert!(total.throughput_mb_s.unwrap().p50 > 0.0 && total.lookup_ms.unwrap().p50 > 0.0);

    assert_eq!(dns.stats.outcome(Transport::Udp, Outcome::Answered), 60);
    assert_eq!(dns.stats.total(Transport::Udp) + dns.stats.total(Transport::Tcp), 60);

    let (mut started, mut requests, mut ended) = (0, 0, 0);
    while let Some(event) = events.recv().await {
        match event {
            LoadEvent::WindowStarted { .. } => started += 1,
            LoadEvent::RequestEnded(record) => requests += u32::from(record.failure.is_none()),
            LoadEvent::WindowEnded(_) => ended += 1,
        }
    }
    assert_eq!((started, requests, ended), (6, 60, 6));

    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<LoadReport>(&json).unwrap(), report);
}

#[tokio::test]
async fn requests_are_spread_over_the_window() {
    let mut tasks = JoinSet::new();
    let dns = dns(vec![on_loopback(1)]);
    let port = http(&["127.0.0.1"], &mut tasks).await;
    let (sender, mut events) = mpsc::channel(1000);
    let options = LoadOptions { window: Duration::from_secs(1), ..options(dns.address, port, &[10]) };
    let report = run(options, Some(sender), pending()).await.unwrap();
    let mut moments = Vec::new();
    while let Some(event) = events.recv().await {
        if let LoadEvent::RequestEnded(record) = event {
            moments.push(record.at.millis_since(report.start));
        }
    }
    moments.sort_unstable();
    for (i, moment) in moments.into_iter().enumerate() {
        let planned = 50 + 100 * i as u64;
        assert!((planned.saturating_sub(2)..planned + 500).contains(&moment), "request {i} at {moment} ms");
    }
}

#[tokio::test]
async fn families_are_asked_for_as_told() {
    let mut tasks = JoinSet::new();
    let both = AddressPair { v4: Some([127, 0, 0, 1].into()), v6: Some("::1".parse().unwrap()) };
    let dns = dns(vec![Backend { addresses: both, ..backend(1, 1) }]);
    let port = http(&["127.0.0.1", "::1"], &mut tasks).await;
    for (family, expected) in [(Family::A, [8, 0]), (Family::Aaaa, [0, 8]), (Family::Both, [4, 4])] {
        let report = run_plain(LoadOptions { family, ..options(dns.address, port, &[8]) }).await;
        assert!(report.all_ok(), "{report}");
        let of = |ip: &str| report.total.instances.get(&ip.parse().unwrap()).map_or(0, |share| share.requests);
        assert_eq!([of("127.0.0.1"), of("::1")], expected);
    }
}

#[tokio::test]
async fn bad_downloads_are_failures_with_stage_and_kind() {
    let rows: [(&'static str, Stage, &str); 6] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort", Stage::Download, "body"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwho knows", Stage::Download, "unbounded"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", Stage::Download, "body"),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Stage::Response, "status"),
        ("nonsense\r\n\r\n", Stage::Response, "response"),
        ("", Stage::Response, "timeout"),
    ];
    for (reply, stage, kind) in rows {
        let mut tasks = JoinSet::new();
        let dns = dns(vec![on_loopback(1)]);
        let port = raw(reply, &mut tasks).await;
        let timeout = if kind == "timeout" { Duration::from_millis(400) } else { Duration::from_secs(10) };
        let options = LoadOptions { timeout, ..options(dns.address, port, &[3]) };
        let report = run_plain(options).await;
        assert_eq!((report.total.ok, report.total.failed), (0, 3), "{reply:?}");
        assert!(!report.all_ok());
        assert_eq!(report.total.failed_by.iter().collect::<Vec<_>>(), [(&kind.to_owned(), &3)], "{reply:?}");
        assert!(report.failures.len() == 3 && report.failures.iter().all(|failure| failure.stage == stage), "{report}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_failure_to_connect() {
    let dns = dns(vec![on_loopback(1)]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let report = run_plain(options(dns.address, free, &[2])).await;
    assert_eq!(report.total.failed_by.get("connect"), Some(&2));
    assert_eq!(report.failures[0].stage, Stage::Connect);
}

#[tokio::test]
async fn lookups_that_fail_say_why() {
    let dns = dns(vec![]);
    for (name, kind) in
        [("nothing.edge.test", "nxdomain"), ("video.edge.test", "no_address"), ("example.org", "refused")]
    {
        let report = run_plain(LoadOptions { name: name.to_owned(), ..options(dns.address, 80, &[2]) }).await;
        assert_eq!(report.total.failed_by.get(kind), Some(&2), "{report}");
        assert_eq!(report.failures[0].stage, Stage::Lookup);
    }
}

#[tokio::test]
async fn slow_servers_do_not_slow_the_load() {
    let mut tasks = JoinSet::new();
    let dns = dns(vec![on_loopback(1)]);
    let port = raw("", &mut tasks).await;
    let options = LoadOptions { timeout: Duration::from_secs(1), ..options(dns.address, port, &[30, 30]) };
    let start = Instant::now();
    let report = run_plain(options).await;
    // Two windows and the last one's timeout, not sixty timeouts.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(report.total.failed_by.get("timeout"), Some(&60));
}

#[tokio::test]
async fn more_than_the_cap_is_refused_and_counted() {
    let mut tasks = JoinSet::new();
    let dns = dns(vec![on_loopback(1)]);
    let port = raw("", &mut tasks).await;
    let options = LoadOptions { concurrency: 5, ..options(dns.address, port, &[12]) };
    let report = run_plain(LoadOptions { timeout: Duration::from_secs(2), ..options }).await;
    assert_eq!((report.total.offered, report.total.failed), (12, 12));
    assert_eq!(report.total.failed_by.get("overload"), Some(&7));
}

#[tokio::test]
async fn a_stop_ends_the_run_at_once() {
    let mut tasks = JoinSet::new();
    let dns = dns(vec![on_loopback(1)]);
    let port = raw("", &mut tasks).await;
    let start = Instant::now();
    let stop = tokio::time::sleep(Duration::from_millis(450));
    let report = run(options(dns.address, port, &[10, 10, 10]), None, stop).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(report.interrupted && !report.all_ok());
    assert!((1..20).contains(&report.total.offered), "{report}");
    assert_eq!(report.total.cancelled, report.total.offered);
    assert!(report.windows.len() <= 2);
}

#[tokio::test]
async fn lost_and_forged_replies_are_asked_again() {
    let dns = dns(vec![on_loopback(1)]);
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = relay.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    let upstream = dns.address;
    tasks.spawn(async move {
        let out = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 1500];
        for turn in 0.. {
            let (len, client) = relay.recv_from(&mut buffer).await.unwrap();
            if turn == 0 {
                continue;
            }
            out.send_to(&buffer[..len], upstream).await.unwrap();
            let mut reply = [0; 1500];
            let len = out.recv(&mut reply).await.unwrap();
            let mut forged = reply;
            forged[0] ^= 1;
            relay.send_to(&forged[..len], client).await.unwrap();
            relay.send_to(&reply[..len], client).await.unwrap();
        }
    });
    let question = Question::new(NAME, TYPE_A).unwrap();
    let found = lookup(&question, &[address], 0, Duration::from_secs(1)).await.unwrap();
    assert_eq!(found, Lookup { addresses: vec!["127.0.0.1".parse().unwrap()], lost: 1, over_tcp: false });
}

#[tokio::test]
async fn silence_is_given_up_after_three_tries() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let closed: SocketAddr = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let question = Question::new(NAME, TYPE_A).unwrap();
    for address in [silent.local_addr().unwrap(), closed] {
        let start = Instant::now();
        let error = lookup(&question, &[address], 0, Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(error.label(), "no_reply");
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    }
    // Another server of the list is asked at the next try.
    let dns = dns(vec![on_loopback(1)]);
    let servers = [silent.local_addr().unwrap(), dns.address];
    assert_eq!(lookup(&question, &servers, 0, Duration::from_millis(500)).await.unwrap().lost, 1);
}

#[tokio::test]
async fn truncated_answers_are_fetched_over_tcp() {
    // EDNS makes room for all that we publish, so this server is one that cuts.
    let dns = dns_for(NAME, (1..=16).map(|n| backend(n, 1)).collect());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (len, client) = udp.recv_from(&mut buffer).await.unwrap();
            // The query itself with QR and TC: a truncated reply without records.
            buffer[2] |= 0x82;
            udp.send_to(&buffer[..len], client).await.unwrap();
        }
    });
    let upstream = dns.address;
    tasks.spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
            _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    });
    let question = Question::new(NAME, TYPE_AAAA).unwrap();
    let found = lookup(&question, &[address], 0, Duration::from_secs(1)).await.unwrap();
    assert!(found.over_tcp);
    assert_eq!(found.addresses.len(), 16);
    assert_eq!(dns.stats.outcome(Transport::Tcp, Outcome::Answered), 1);
}

#[tokio::test]
async fn runs_that_cannot_be_are_refused() {
    let base = options("127.0.0.1:53".parse().unwrap(), 80, &[1]);
    for (options, label) in [
        (LoadOptions { name: "a..b".to_owned(), ..base.clone() }, "name"),
        (LoadOptions { path: "content".to_owned(), ..base.clone() }, "path"),
        (LoadOptions { path: "/a b".to_owned(), ..base.clone() }, "path"),
        (LoadOptions { pattern: vec![10_001], ..base }, "too_much"),
    ] {
        assert_eq!(run(options, None, pending()).await.unwrap_err().label(), label);
    }
}
