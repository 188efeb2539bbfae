//! Sockets for the daemon's DNS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, UdpSocket};

use super::Transport;

/// Room for datagrams that have not been read: some thousand queries.
const RECEIVE_BYTES: usize = 4 << 20;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// 0.0.0.0 or `::`, from which a reply could leave with another address than was asked.
    #[error("DNS cannot listen on {address}: name each address that queries are sent to")]
    Unspecified {
        /// The address.
        address: IpAddr,
    },
    /// Another program has the port.
    #[error(
        "DNS over {} on {address}: another program listens there; stop it (`ss -lnp 'sport = :{}'` \
         names it) or set another address or port", .transport.label(), .address.port()
    )]
    InUse {
        /// Where.
        address: SocketAddr,
        /// For what.
        transport: Transport,
        /// The system's reason.
        source: io::Error,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "DNS over {} on {address}: not allowed; run as root or with CAP_NET_BIND_SERVICE and CAP_NET_ADMIN, \
         or set a port above 1023", .transport.label()
    )]
    NotAllowed {
        /// Where.
        address: SocketAddr,
        /// For what.
        transport: Transport,
        /// The system's reason.
        source: io::Error,
    },
    /// Any other reason.
    #[error(
        "DNS over {} on {address}: {source}; check that the kernel has this address family",
        .transport.label()
    )]
    Other {
        /// Where.
        address: SocketAddr,
        /// For what.
        transport: Transport,
        /// The system's reason.
        source: io::Error,
    },
}

impl BindError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unspecified { .. } => "unspecified",
            Self::InUse { .. } => "in_use",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Other { .. } => "other",
        }
    }

    fn new(address: SocketAddr, transport: Transport, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, transport, source },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { address, transport, source },
            _ => Self::Other { address, transport, source },
        }
    }
}

/// Opens the UDP socket of an address.
pub(super) fn udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let open = || {
        let socket = bound(address, SockType::Datagram)?;
        // What a flood brings waits here, and not what comes after it is lost. Beyond the system's limit where we may.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES)?;
        }
        let socket = std::net::UdpSocket::from(socket);
        UdpSocket::from_std(socket)
    };
    check(address)?;
    open().map_err(|source| BindError::new(address, Transport::Udp, source))
}

/// Opens the TCP listener of an address.
pub(super) fn tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = bound(address, SockType::Stream)?;
        listen(&socket, Backlog::new(256)?)?;
        TcpListener::from_std(socket.into())
    };
    check(address)?;
    open().map_err(|source| BindError::new(address, Transport::Tcp, source))
}

fn check(address: SocketAddr) -> Result<(), BindError> {
    if address.ip().is_unspecified() { Err(BindError::Unspecified { address: address.ip() }) } else { Ok(()) }
}

/// A bound socket, with what the standard library has no words for.
fn bound(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if kind == SockType::Stream {
        // For connections of an earlier daemon in TIME_WAIT. Not for UDP, where it would let two
        // daemons share the port in silence, one of them deaf.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    // The address may come later than the daemon: its interface may not be up yet.
    if let Err(errno) = setsockopt(&socket, sockopt::IpFreebind, &true)
        && errno != Errno::ENOPROTOOPT
    {
        return Err(errno.into());
    }
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}
