//! Queries for a service at zero on real sockets of loopback; the test is the operator half.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::model::{Cold, ColdServices, Late, Refusal, ServiceName, Summon, SummonLimits, SummonOrder};

const SOON: Duration = Duration::from_secs(5);
const NAME: &str = "cold.edge.test.";
const INDEX: u32 = 6;

fn summon(hold_ms: u64, late: Late) -> Summon {
    let (hold, idle_after) = (Duration::from_millis(hold_ms), Duration::from_secs(300));
    Summon { hold, late, ttl_s: 2, idle_after, starts_per_minute: 3 }
}

/// The service at zero, and with an instance.
fn at_zero(summon: Summon, sorry: &[&str]) -> PublishedService {
    let addresses = sorry.iter().map(|address| address.parse().unwrap()).collect();
    PublishedService { basis: Basis::Cold, addresses, summon: Some(summon), ..service(INDEX, NAME, vec![]) }
}

fn awake() -> PublishedService {
    let mut backend = backend(1, 1);
    backend.addresses.v6 = None;
    PublishedService { ttl_s: 2, summon: Some(summon(1, Late::Silence)), ..service(INDEX, NAME, vec![backend]) }
}

struct Server {
    address: SocketAddr,
    index: watch::Sender<Arc<Index>>,
    cold: watch::Sender<Arc<ColdServices>>,
    orders: mpsc::Receiver<SummonOrder>,
    stats: Arc<DnsStats>,
    counts: Arc<SummonStats>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(service: PublishedService, limits: SummonLimits) -> Server {
    let listeners = Listeners::bind(&["127.0.0.1".parse().unwrap()], 0).unwrap();
    let address = listeners.addresses()[0];
    let (index, snapshots) = watch::channel(Arc::new(Index::new(&snapshot(vec![service])).unwrap()));
    let (cold, cold_out) = watch::channel(Arc::new(BTreeMap::from([(INDEX, Cold::AtZero)])));
    let (orders_in, orders) = mpsc::channel(16);
    let (stats, counts) = (Arc::<DnsStats>::default(), Arc::<SummonStats>::default());
    let policy = Policy { summon: limits, ..Policy::default() };
    let (_, policies) = watch::channel(Arc::new(policy));
    let channels = SummonChannels { orders: orders_in, cold: cold_out, stats: Arc::clone(&counts) };
    let serving = listeners.serve(snapshots, policies, Arc::clone(&stats), channels, std::future::pending());
    Server { address, index, cold, orders, stats, counts, task: tokio::spawn(serving) }
}

impl Server {
    async fn asker(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket
    }

    async fn order(&mut self) {
        let order = timeout(SOON, self.orders.recv()).await.expect("an order").unwrap();
        assert_eq!(order.service, INDEX);
    }

    fn wake(&self) {
        self.index.send_replace(Arc::new(Index::new(&snapshot(vec![awake()])).unwrap()));
    }

    fn count(&self, what: &str) -> u64 {
        let service = ServiceName::new(format!("s{INDEX}")).unwrap();
        self.counts.report(&service).queries.get(what).copied().unwrap_or(0)
    }

    /// Waits until as many queries have been counted so.
    async fn until(&self, what: &str, count: u64) {
        let counted = async {
            while self.count(what) < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, counted).await.unwrap_or_else(|_| panic!("{what}: {} of {count}", self.count(what)));
    }
}

async fn reply(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 2048];
    let len = timeout(SOON, socket.recv(&mut buffer)).await.expect("a reply in time").unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

fn question(qtype: RecordType) -> Vec<u8> {
    bytes(&query(NAME, qtype))
}

#[tokio::test]
async fn one_order_for_many_askers_and_all_are_answered_when_it_is_there() {
    let mut server = start(at_zero(summon(5000, Late::ServFail), &[]), SummonLimits::default());
    let mut askers = Vec::new();
    for _ in 0..50 {
        let asker = server.asker().await;
        // The second is the first one's retransmission.
        asker.send(&question(RecordType::A)).await.unwrap();
        asker.send(&question(RecordType::A)).await.unwrap();
        askers.push(asker);
    }
    let six = server.asker().await;
    six.send(&question(RecordType::AAAA)).await.unwrap();
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let message = question(RecordType::A);
    tcp.write_all(&[&(message.len() as u16).to_be_bytes(), message.as_slice()].concat()).await.unwrap();
    server.order().await;
    server.until("held", 52).await;
    server.until("repeated", 50).await;
    server.wake();
    for asker in &askers {
        let reply = reply(asker).await;
        assert_eq!((reply.answers.len(), reply.answers[0].ttl), (1, 2));
        assert!(asker.try_recv(&mut [0; 64]).is_err(), "one reply");
    }
    let none = reply(&six).await;
    assert!(none.answers.is_empty() && none.authorities.len() == 1, "it has no IPv6");
    let len = timeout(SOON, tcp.read_u16()).await.expect("a reply in time").unwrap();
    tcp.read_exact(&mut vec![0; len.into()]).await.unwrap();
    assert_eq!((server.count("ordered"), server.orders.try_recv().ok()), (1, None));
    assert_eq!(server.stats.outcome(Transport::Udp, Outcome::Answered), 50);
    assert_eq!(server.stats.outcome(Transport::Udp, Outcome::Repeated), 50);
    assert_eq!(server.stats.outcome(Transport::Tcp, Outcome::Answered), 1);
}

#[tokio::test]
async fn late_policies_say_nothing_that_is_remembered_as_a_no() {
    let mut server = start(at_zero(summon(30, Late::ServFail), &[]), SummonLimits::default());
    let asker = server.asker().await;
    asker.send(&question(RecordType::A)).await.unwrap();
    server.order().await;
    let late = reply(&asker).await;
    assert_eq!(late.metadata.response_code, ResponseCode::ServFail);
    assert!(late.authorities.is_empty(), "no SOA, nothing to cache");
    assert_eq!((server.count("late"), server.stats.outcome(Transport::Udp, Outcome::Late)), (1, 1));

    let server = start(at_zero(summon(30, Late::Sorry), &["192.0.2.9"]), SummonLimits::default());
    let asker = server.asker().await;
    asker.send(&question(RecordType::A)).await.unwrap();
    let sorry = reply(&asker).await;
    assert_eq!(sorry.answers.len(), 1);
    asker.send(&question(RecordType::AAAA)).await.unwrap();
    let none = reply(&asker).await;
    assert_eq!((none.metadata.response_code, none.authorities.len()), (ResponseCode::ServFail, 0));

    let server = start(at_zero(summon(30, Late::Silence), &[]), SummonLimits::default());
    let asker = server.asker().await;
    asker.send(&question(RecordType::A)).await.unwrap();
    server.until("late", 1).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let message = question(RecordType::A);
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message.as_slice()].concat()).await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 8])).await.expect("closed").unwrap(), 0);
    assert!(asker.try_recv(&mut [0; 64]).is_err());
}

#[tokio::test]
async fn a_refusal_answers_those_who_wait_and_those_who_come() {
    let mut server = start(at_zero(summon(5000, Late::ServFail), &[]), SummonLimits::default());
    let (first, second) = (server.asker().await, server.asker().await);
    first.send(&question(RecordType::A)).await.unwrap();
    server.order().await;
    server.until("held", 1).await;
    server.cold.send_replace(Arc::new(BTreeMap::from([(INDEX, Cold::Refused(Refusal::BackOff))])));
    assert_eq!(reply(&first).await.metadata.response_code, ResponseCode::ServFail);
    second.send(&question(RecordType::A)).await.unwrap();
    assert_eq!(reply(&second).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((server.count("back_off"), server.count("ordered")), (2, 1));
    server.cold.send_replace(Arc::new(BTreeMap::from([(INDEX, Cold::Starting)])));
    second.send(&question(RecordType::A)).await.unwrap();
    server.until("held", 2).await;
    assert_eq!(server.count("ordered"), 1, "what is on its way needs no order");
    server.wake();
    assert_eq!(reply(&second).await.answers.len(), 1);
}

#[tokio::test]
async fn monitors_wake_nothing_and_budgets_end() {
    let monitors = SummonLimits { monitors: vec!["127.0.0.0/8".parse().unwrap()], ..SummonLimits::default() };
    let mut server = start(at_zero(summon(5000, Late::ServFail), &[]), monitors);
    let asker = server.asker().await;
    asker.send(&question(RecordType::A)).await.unwrap();
    assert_eq!(reply(&asker).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((server.count("monitor"), server.orders.try_recv().ok()), (1, None));
    assert_eq!(server.stats.service(INDEX), ServiceStats::default(), "no sign of life");

    let mut server = start(at_zero(summon(10, Late::ServFail), &[]), SummonLimits::default());
    let asker = server.asker().await;
    // Its operator half starts nothing, so each needs an order; three are allowed.
    for id in 0..5 {
        let mut message = question(RecordType::A);
        message[1] = id;
        asker.send(&message).await.unwrap();
        assert_eq!(reply(&asker).await.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!((server.count("ordered"), server.count("budget_service")), (3, 2));
    while server.orders.try_recv().is_ok() {}
    // Names that do not exist, and other types of those that do, never come so far.
    let other = bytes(&query("nobody.edge.test.", RecordType::A));
    asker.send(&other).await.unwrap();
    assert_eq!(reply(&asker).await.metadata.response_code, ResponseCode::NXDomain);
    asker.send(&question(RecordType::TXT)).await.unwrap();
    assert_eq!(reply(&asker).await.metadata.response_code, ResponseCode::NoError);
    assert_eq!(server.orders.try_recv().ok(), None);
}

/// The kernel leaves exactly the addresses to the daemon, and holds the same types whether it is at zero or not.
#[test]
fn waking_changes_words_and_no_table() {
    let types = |service: PublishedService| -> Vec<(u16, bool)> {
        let index = Index::new(&snapshot(vec![service])).unwrap();
        let name = index.names().find(|name| name.wire.starts_with(b"\x04cold")).unwrap();
        assert!(name.others.is_some());
        name.rrsets.iter().map(|rrset| (rrset.qtype, rrset.ring.is_some())).collect()
    };
    let cold = types(at_zero(summon(10, Late::Sorry), &["192.0.2.9"]));
    assert_eq!(cold, [(TYPE_A, false), (TYPE_AAAA, false), (TYPE_ANY, false)]);
    assert_eq!(types(awake()), [(TYPE_A, true), (TYPE_AAAA, true), (TYPE_ANY, true)]);
}
