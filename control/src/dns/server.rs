//! The daemon's own DNS server: all that the XDP program passes on, over UDP and TCP.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answerer::Answerer;
use super::limiter::Limiter;
use super::sockets::{self, BindError};
use super::summoner::{Asked, Reply, SummonChannels, Summoner};
use super::{DnsStats, Index, Outcome, Policy, Transport};

/// Most TCP connections at a time, all addresses together.
const CONNECTIONS: usize = 256;
/// With fewer free places than this, quiet connections are closed sooner.
const SCARCE: usize = CONNECTIONS / 4;
/// Longest wait for one whole query, and for a client to take one whole reply.
const IDLE: Duration = Duration::from_secs(10);
/// The same where places are scarce.
const IDLE_SCARCE: Duration = Duration::from_secs(1);
/// Longest life of a connection, so that slow clients cannot keep a place by asking now and then.
const LIFETIME: Duration = Duration::from_secs(120);
/// Pause after a socket's error, which might come again at once (no memory, no descriptors).
const PAUSE: Duration = Duration::from_millis(50);

/// Sockets that are open but not yet served.
#[derive(Debug, Default)]
pub struct Listeners {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Listeners {
    /// Opens a UDP socket and a TCP listener per address. With port 0 the system chooses one for UDP,
    /// and TCP takes the same. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] for the first address that cannot be had; none stays open then.
    pub fn bind(addresses: &[IpAddr], port: u16) -> Result<Self, BindError> {
        let mut listeners = Self::default();
        for address in addresses {
            let mut address = SocketAddr::new(*address, port);
            let udp = sockets::udp(address)?;
            if let Ok(bound) = udp.local_addr() {
                address.set_port(bound.port());
            }
            listeners.tcp.push(sockets::tcp(address)?);
            listeners.udp.push(udp);
        }
        Ok(listeners)
    }

    /// Where they listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Answers from the newest index and by the newest policy until `shutdown`. Queries for services at zero are held;
    /// `summons` leads to who starts them.
    pub async fn serve(
        self,
        snapshots: watch::Receiver<Arc<Index>>,
        policies: watch::Receiver<Arc<Policy>>,
        stats: Arc<DnsStats>,
        summons: SummonChannels,
        shutdown: impl Future<Output = ()>,
    ) {
        let answerer = Answerer { snapshots, policies, stats, limiter: Arc::new(Limiter::new()) };
        let front = Front { answerer, summoner: Arc::new(Summoner::new(summons)) };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(socket, front.clone()));
        }
        for listener in self.tcp {
            tasks.spawn(accept(listener, front.clone(), Arc::clone(&places)));
        }
        front.summoner.release(front.answerer, shutdown).await;
        tasks.shutdown().await;
    }
}

/// What is said to a query now.
enum Said {
    Reply(Vec<u8>),
    Nothing,
    /// The reply comes later.
    Later,
}

/// Who answers, and who holds what is to wait.
#[derive(Clone)]
struct Front {
    answerer: Answerer,
    summoner: Arc<Summoner>,
}

impl Front {
    fn answer(&self, message: &[u8], transport: Transport, client: SocketAddr, later: impl FnOnce() -> Reply) -> Said {
        let mut response = self.answerer.respond_by_rules(message, transport, client.ip());
        if response.outcome == Outcome::Late
            && let Some(service) = response.service
        {
            match self.summoner.ask(&self.answerer, service, message, client, later) {
                Asked::Held => return Said::Later,
                Asked::Repeated => {
                    self.answerer.record(transport, Outcome::Repeated, response.service);
                    return Said::Nothing;
                }
                Asked::Monitor => response.service = None,
                Asked::Refused => {}
            }
        }
        self.answerer.record(transport, response.outcome, response.service);
        response.bytes.map_or(Said::Nothing, Said::Reply)
    }
}

async fn serve_udp(socket: UdpSocket, front: Front) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "DNS over UDP: receive");
                sleep(PAUSE).await;
                continue;
            }
        };
        let later = || Reply::Udp(Arc::clone(&socket));
        if let Said::Reply(reply) = front.answer(&buffer[..len], Transport::Udp, client, later)
            && let Err(error) = socket.send_to(&reply, client).await
        {
            // The client asks again; for us it is no more than a lost datagram.
            tracing::debug!(%error, %client, "DNS over UDP: send");
        }
    }
}

async fn accept(listener: TcpListener, front: Front, places: Arc<Semaphore>) {
    // Ends with this task, and with it all connections.
    let mut connections = JoinSet::new();
    loop {
        // A place first: clients that come while there is none wait in the kernel's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let (front, places) = (front.clone(), Arc::clone(&places));
                connections.spawn(async move {
                    if let Err(error) = converse(stream, client, &front, &places, place).await {
                        tracing::debug!(%error, %client, "DNS over TCP: connection");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "DNS over TCP: accept");
                sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Query after query, each behind its length (RFC 7766), until the client or its time ends.
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    front: &Front,
    places: &Semaphore,
    _place: OwnedSemaphorePermit,
) -> io::Result<()> {
    let end = Instant::now() + LIFETIME;
    let mut message = Vec::new();
    loop {
        let idle = if places.available_permits() < SCARCE { IDLE_SCARCE } else { IDLE };
        let deadline = end.min(Instant::now() + idle);
        match timeout_at(deadline, read_message(&mut stream, &mut message)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
        let (later, comes) = oneshot::channel();
        let reply = match front.answer(&message, Transport::Tcp, client, || Reply::Tcp(later)) {
            Said::Reply(reply) => Some(reply),
            Said::Later => comes.await.ok(),
            Said::Nothing => None,
        };
        let Some(reply) = reply else { return Ok(()) };
        // One write, so that length and message leave in one segment. A reply is at most 64 KiB long.
        let mut framed = Vec::with_capacity(2 + reply.len());
        framed.extend_from_slice(&(reply.len() as u16).to_be_bytes());
        framed.extend_from_slice(&reply);
        match timeout(IDLE, stream.write_all(&framed)).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
    }
}

/// False where the client has closed between messages.
async fn read_message(stream: &mut TcpStream, message: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    message.resize(usize::from(u16::from_be_bytes(length)), 0);
    stream.read_exact(message).await?;
    Ok(true)
}
