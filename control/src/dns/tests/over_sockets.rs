//! The server on real sockets of loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Server {
    address: SocketAddr,
    index: watch::Sender<Arc<Index>>,
    stats: Arc<DnsStats>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn start(listen: &str) -> Server {
    let listeners = Listeners::bind(&[listen.parse().unwrap()], 0).unwrap();
    let address = listeners.addresses()[0];
    let (index, snapshots) = watch::channel(Arc::new(index()));
    let (stop, stopped) = oneshot::channel::<()>();
    let stats = Arc::new(DnsStats::default());
    let (_, policies) = watch::channel(Arc::new(Policy::default()));
    let serving = listeners.serve(snapshots, policies, Arc::clone(&stats), no_summons(), async { _ = stopped.await });
    Server { address, index, stats, stop, task: tokio::spawn(serving) }
}

async fn udp(server: SocketAddr, message: &[u8]) -> Message {
    let local: IpAddr = if server.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
    let socket = UdpSocket::bind((local, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(message).await.unwrap();
    let mut buffer = [0; 2048];
    let len = timeout(SOON, socket.recv(&mut buffer)).await.expect("a reply in time").unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

async fn read_framed(stream: &mut TcpStream) -> Message {
    let len = timeout(SOON, stream.read_u16()).await.expect("a reply in time").unwrap();
    let mut buffer = vec![0; len.into()];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

#[tokio::test]
async fn both_transports_and_families_give_the_same_rrset() {
    for listen in ["127.0.0.1", "::1"] {
        let server = start(listen);
        let query = bytes(&query("four.edge.test.", RecordType::A));
        let over_udp = udp(server.address, &query).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&framed(&query)).await.unwrap();
        let over_tcp = read_framed(&mut stream).await;
        assert_eq!(over_udp.answers, over_tcp.answers);
        assert_eq!(over_udp.answers.len(), 1);
        let counts = TransportStats { queries: 1, answered: 1 };
        assert_eq!(server.stats.service(3), ServiceStats { udp: counts, tcp: counts });
        server.stop.send(()).unwrap();
        timeout(SOON, server.task).await.expect("stops").unwrap();
    }
}

#[tokio::test]
async fn many_queries_share_a_connection_whatever_the_segments() {
    let server = start("127.0.0.1");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let stream_bytes: Vec<u8> = (0..50u16)
        .flat_map(|id| {
            let mut query = query("video.edge.test.", RecordType::AAAA);
            query.metadata.id = id;
            framed(&bytes(&query))
        })
        .collect();
    for piece in stream_bytes.chunks(7) {
        stream.write_all(piece).await.unwrap();
    }
    for id in 0..50 {
        assert_eq!(read_framed(&mut stream).await.metadata.id, id);
    }
    server.task.abort();
}

#[tokio::test]
async fn a_new_index_is_answered_from_at_once() {
    let server = start("127.0.0.1");
    let query = bytes(&query("idle.edge.test.", RecordType::A));
    assert!(udp(server.address, &query).await.answers.is_empty());
    let next = Index::new(&snapshot(vec![service(2, "idle.edge.test.", vec![backend(8, 1)])])).unwrap();
    server.index.send(Arc::new(next)).unwrap();
    assert_eq!(udp(server.address, &query).await.answers.len(), 1);
    server.task.abort();
}

#[tokio::test]
async fn what_gets_no_reply_ends_a_connection_and_nothing_else() {
    let server = start("127.0.0.1");
    let mut reply = bytes(&query("video.edge.test.", RecordType::A));
    reply[2] |= 0x80;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&framed(&reply)).await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 8])).await.expect("closed").unwrap(), 0);
    assert_eq!(udp(server.address, &bytes(&query("video.edge.test.", RecordType::A))).await.answers.len(), 2);
    assert_eq!(server.stats.outcome(Transport::Tcp, Outcome::Dropped), 1);
    server.task.abort();
}

#[tokio::test]
async fn slow_clients_cannot_keep_others_out() {
    let server = start("127.0.0.1");
    let mut slow = Vec::new();
    // More than there is place for, each with half a length.
    for _ in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&[0]).await.unwrap();
        slow.push(stream);
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&framed(&bytes(&query("video.edge.test.", RecordType::A)))).await.unwrap();
    let len = timeout(Duration::from_secs(20), stream.read_u16()).await.expect("a place in time").unwrap();
    assert!(len > 12);
    server.task.abort();
}

#[tokio::test]
async fn bind_errors_say_where_and_what_to_do() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Listeners::bind(&["127.0.0.1".parse().unwrap()], port).unwrap_err();
    assert_eq!(error.label(), "in_use");
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("another program"), "{text}");
    let error = Listeners::bind(&["0.0.0.0".parse().unwrap()], 0).unwrap_err();
    assert_eq!(error.label(), "unspecified");
}

#[tokio::test]
async fn an_address_may_come_later() {
    // Of the documentation ranges, so on no interface of any machine.
    for address in ["192.0.2.77", "2001:db8::77"] {
        let listeners = Listeners::bind(&[address.parse().unwrap()], 0).unwrap();
        assert_eq!(listeners.addresses()[0].ip().to_string(), address);
    }
}
