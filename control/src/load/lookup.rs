//! A stub resolver: one question, three tries over UDP, TCP where the answer is truncated.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::dns::client::{Addresses, Question, ReplyError};

/// Tries over UDP before giving up, as stub resolvers have it.
pub(super) const TRIES: u32 = 3;

/// Why a name was not resolved.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No reply to any try.
    #[error("no reply from {server} to {TRIES} queries")]
    NoReply {
        /// The server asked last.
        server: SocketAddr,
    },
    /// No whole reply over TCP.
    #[error("no reply from {server} over TCP")]
    NoTcpReply {
        /// The server.
        server: SocketAddr,
    },
    /// A reply that says no, or makes no sense.
    #[error("{server}: {source}")]
    Reply {
        /// The server.
        server: SocketAddr,
        /// What it said.
        source: ReplyError,
    },
    /// The system refused a socket, or the server a connection.
    #[error("{operation} {server}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The server.
        server: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

impl LookupError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoReply { .. } => "no_reply",
            Self::NoTcpReply { .. } => "no_tcp_reply",
            Self::Reply { source, .. } => source.label(),
            Self::Io { .. } => "dns_io",
        }
    }
}

/// A resolved name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup {
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// Queries over UDP that got no reply.
    pub lost: u32,
    /// The answer came over TCP.
    pub over_tcp: bool,
}

/// Resolves `question`. `servers` are asked in turn, the `first`th first; each try waits `patience`.
pub(super) async fn lookup(
    question: &Question,
    servers: &[SocketAddr],
    first: usize,
    patience: Duration,
) -> Result<Lookup, LookupError> {
    let turn = |attempt: u32| servers[(first + attempt as usize) % servers.len()];
    for attempt in 0..TRIES {
        let server = turn(attempt);
        let Some(found) = ask_udp(question, server, patience).await? else { continue };
        let (found, over_tcp) =
            if found.truncated { (ask_tcp(question, server, patience).await?, true) } else { (found, false) };
        return Ok(Lookup { addresses: found.list, lost: attempt, over_tcp });
    }
    Err(LookupError::NoReply { server: turn(TRIES - 1) })
}

/// One try; `None` where no reply came in time.
async fn ask_udp(
    question: &Question,
    server: SocketAddr,
    patience: Duration,
) -> Result<Option<Addresses>, LookupError> {
    let failed = |operation| move |source| LookupError::Io { operation, server, source };
    let deadline = Instant::now() + patience;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket and an identifier of its own for each try, so that a late or forged reply does not count.
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed("open a socket for"))?;
    socket.connect(server).await.map_err(failed("find a way to"))?;
    let id = random_id();
    socket.send(&question.bytes(id)).await.map_err(failed("ask"))?;
    let mut buffer = [0; 4096];
    loop {
        let len = match timeout_at(deadline, socket.recv(&mut buffer)).await {
            Err(_) => return Ok(None),
            // Port unreachable: nobody listens now, but somebody may at the next try.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                sleep_until(deadline).await;
                return Ok(None);
            }
            Ok(received) => received.map_err(failed("hear from"))?,
        };
        match question.read(id, &buffer[..len]) {
            Err(ReplyError::Foreign) => {}
            Ok(found) => return Ok(Some(found)),
            Err(source) => return Err(LookupError::Reply { server, source }),
        }
    }
}

async fn ask_tcp(question: &Question, server: SocketAddr, patience: Duration) -> Result<Addresses, LookupError> {
    let id = random_id();
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let query = question.bytes(id);
        let framed = [&(query.len() as u16).to_be_bytes(), query.as_slice()].concat();
        stream.write_all(&framed).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        Ok(reply)
    };
    let reply = match timeout(patience, exchange).await {
        Err(_) => return Err(LookupError::NoTcpReply { server }),
        Ok(exchanged) => exchanged.map_err(|source| LookupError::Io { operation: "ask over TCP", server, source })?,
    };
    question.read(id, &reply).map_err(|source| LookupError::Reply { server, source })
}

/// Not to be guessed from others: a keyed hash under keys of its own.
fn random_id() -> u16 {
    RandomState::new().hash_one(0u8) as u16
}
