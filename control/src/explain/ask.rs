//! What the daemon says to a query that the kernel leaves to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::frame::{DNS_PORT, Datagram};
use super::{Message, message};

/// Longest wait for its answer; it answers from memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of asking it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Where it was asked; from this machine, not from the frame's client.
    pub server: SocketAddr,
    /// Its reply.
    pub reply: Option<Message>,
    /// Why there is none.
    pub problem: Option<String>,
}

/// Sends the datagram's payload to where it was meant to go; `None` where it is none for a DNS server.
pub(super) async fn daemon(datagram: &Datagram<'_>) -> Option<Asked> {
    (datagram.to.port() == DNS_PORT).then_some(())?;
    let server = datagram.to;
    let (reply, problem) = match timeout(PATIENCE, ask(server, datagram.payload)).await {
        Ok(Ok((from, to, payload))) => (Some(message(&Datagram { from, to, payload: &payload })), None),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (None, Some("nobody listens there; is selvedged running?".to_owned()))
        }
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(_) => (None, Some(format!("no reply within {PATIENCE:?}"))),
    };
    Some(Asked { server, reply, problem })
}

async fn ask(server: SocketAddr, query: &[u8]) -> io::Result<(SocketAddr, SocketAddr, Vec<u8>)> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // An address that is not this machine's must not be asked: the query would go out.
    UdpSocket::bind(SocketAddr::new(server.ip(), 0)).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => io::Error::new(error.kind(), "it is not an address of this machine"),
        _ => error,
    })?;
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; 65_535];
    let length = socket.recv(&mut reply).await?;
    reply.truncate(length);
    Ok((server, socket.local_addr()?, reply))
}
