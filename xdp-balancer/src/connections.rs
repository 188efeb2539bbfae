//! Open TCP connections of instances, as the classifiers at their interfaces keep them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use xdp_balancer_common::{Connection, ConnectionKey, object};

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::fill::Fill;
use crate::sys;

/// A connection that a client opened to an instance and that neither side has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenConnection {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The instance's port.
    pub port: u16,
    /// Time since it was accepted.
    pub age: Duration,
}

impl Dataplane {
    /// Connections through the interface of an instance whose packets are counted, that neither a reset nor their client
    /// has closed. One that a client has left without a word is among them; one of which it has closed its half is not,
    /// though data may still come to it; of more than the map holds, those that are oldest are not.
    pub fn connections(&self, ifindex: u32) -> Result<Vec<OpenConnection>, Error> {
        let now = sys::monotonic_ns();
        let open = |(key, connection): (ConnectionKey, Connection)| OpenConnection {
            client: SocketAddr::new(client(key), u16::from_be(key.ports[0])),
            port: u16::from_be(key.ports[1]),
            age: Duration::from_nanos(now.saturating_sub(connection.opened_ns)),
        };
        let all = self.connections_of(ifindex)?.into_iter();
        Ok(all.filter(|(_, connection)| connection.closed[0] == 0).map(open).collect())
    }

    /// How many connections are known, of how many that can be.
    pub(crate) fn connections_fill(&self) -> Result<Fill, Error> {
        let map = self.maps.connections.fd().as_fd();
        let all =
            sys::lookup_batch::<ConnectionKey, Connection>(map).map_err(Error::system("read", object::CONNECTIONS))?;
        let [_, _, capacity] = sys::map_size(map).map_err(Error::system("inspect the map", object::CONNECTIONS))?;
        Ok(Fill { map: object::CONNECTIONS, used: all.len() as u32, capacity })
    }

    /// Forgets an interface's connections.
    pub(crate) fn forget_connections(&mut self, ifindex: u32) -> Result<(), Error> {
        for (key, _) in self.connections_of(ifindex)? {
            match sys::delete(self.maps.connections.fd().as_fd(), &key) {
                // Closed in this moment.
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                    return Err(Error::system("write", object::CONNECTIONS)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn connections_of(&self, ifindex: u32) -> Result<Vec<(ConnectionKey, Connection)>, Error> {
        let all = sys::lookup_batch::<ConnectionKey, Connection>(self.maps.connections.fd().as_fd());
        let mut all = all.map_err(Error::system("read", object::CONNECTIONS))?;
        all.retain(|(key, _)| key.interface == ifindex);
        Ok(all)
    }
}

fn client(key: ConnectionKey) -> IpAddr {
    let mut bytes = [0; 16];
    for (part, word) in bytes.chunks_mut(4).zip(key.client) {
        part.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn addresses_are_read_as_they_stand_in_packets() {
        let words = |text: &str| {
            let address: Ipv6Addr = text.parse().unwrap();
            let octets = address.octets();
            let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
            ConnectionKey { client: [word(0), word(4), word(8), word(12)], ..ConnectionKey::default() }
        };
        assert_eq!(client(words("2001:db8::7")), "2001:db8::7".parse::<IpAddr>().unwrap());
        assert_eq!(client(words("::ffff:192.0.2.7")), "192.0.2.7".parse::<IpAddr>().unwrap());
    }
}
