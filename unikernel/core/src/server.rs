//! The loop that joins a network device, smoltcp and the connections.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, TxToken};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpCidr,
};

use crate::connection::Connection;
use crate::content::{Pages, ReadDisk};
use crate::settings::Settings;

/// The machine below: one network device, a clock, a way to sleep until something happens.
pub trait Platform {
    /// Its network device.
    type Net: Device;

    /// The network device.
    fn net(&mut self) -> &mut Self::Net;
    /// The device's hardware address.
    fn mac(&self) -> [u8; 6];
    /// Time since start.
    fn now(&self) -> Instant;
    /// A number that nobody can guess, for TCP's first sequence numbers.
    fn seed(&mut self) -> u64;
    /// Bytes of memory that may be allocated.
    fn memory(&self) -> usize;
    /// Sleeps until a frame has come or `until` has passed; without a moment, until a frame has come.
    fn wait(&mut self, until: Option<Instant>);
    /// Writes a line to the console.
    fn say(&mut self, line: &str);
    /// Bytes of its disk, where it has one.
    fn disk_length(&self) -> Option<u64> {
        None
    }
    /// Reads from the disk, as [`ReadDisk`](crate::content::ReadDisk) says.
    fn read_disk(&mut self, _offset: u64, _out: &mut [u8]) -> usize {
        0
    }
}

/// Requests are small, so the window towards the client is.
const RECEIVE_BUFFER: usize = 4096;
/// A connection that hears nothing of its client for so long is ended.
const IDLE: Duration = Duration::from_secs(60);
/// How long a connection that both sides have ended stays to acknowledge once more. Much less than TCP's two
/// minutes: memory is dear here, and a late FIN is then answered with a reset, which ends it as well.
const LINGER: Duration = Duration::from_millis(200);
/// Bytes of `/content` where neither the command line nor a disk says.
const CONTENT: u64 = 1_000_000;
/// Frames taken in before answers go out.
const BATCH: usize = 64;

/// Memory for what is on its way to one client: much while there are few clients.
const fn send_buffer(connections: usize) -> usize {
    match connections {
        0..64 => 64 * 1024,
        64..256 => 16 * 1024,
        _ => 4 * 1024,
    }
}

/// A TCP socket with the connection on it.
struct Client {
    socket: SocketHandle,
    connection: Connection,
    /// Since when both sides have ended it.
    ended: Option<Instant>,
}

/// Serves without end.
pub fn serve<P: Platform>(platform: &mut P, settings: &Settings) -> ! {
    let mut server = Server::new(platform, settings);
    announce(platform, settings);
    platform.say(&format!("serving on port {}", settings.port));
    loop {
        let until = server.turn(platform);
        let now = platform.now();
        if until.is_none_or(|until| until > now) {
            platform.wait(until);
        }
    }
}

struct Server {
    interface: Interface,
    sockets: SocketSet<'static>,
    listener: Option<SocketHandle>,
    clients: Vec<Client>,
    most_clients: usize,
    port: u16,
    pages: Pages,
}

impl Server {
    fn new<P: Platform>(platform: &mut P, settings: &Settings) -> Self {
        let mut config = Config::new(EthernetAddress(platform.mac()).into());
        config.random_seed = platform.seed();
        let now = platform.now();
        let mut interface = Interface::new(config, platform.net(), now);
        interface.update_ip_addrs(|addresses| {
            // There is room for four.
            for address in settings.v4.map(IpCidr::Ipv4).into_iter().chain(settings.v6.map(IpCidr::Ipv6)) {
                let _ = addresses.push(address);
            }
        });
        // There is room for two.
        if let Some(gateway) = settings.gateway4 {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = settings.gateway6 {
            let _ = interface.routes_mut().add_default_ipv6_route(gateway);
        }
        let mut server = Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            listener: None,
            clients: Vec::new(),
            most_clients: platform.memory() / (16 * 1024),
            port: settings.port,
            pages: match platform.disk_length() {
                // The disk's length is a whole number of sectors; what is said of the content is exact.
                Some(length) => Pages { length: settings.content.unwrap_or(length).min(length), from_disk: true },
                None => Pages { length: settings.content.unwrap_or(CONTENT), from_disk: false },
            },
        };
        server.listen();
        server
    }

    /// Everything that can be done now; when to be called again at the latest.
    fn turn<P: Platform>(&mut self, platform: &mut P) -> Option<Instant> {
        let now = platform.now();
        for _ in 0..BATCH {
            match self.interface.poll_ingress_single(now, platform.net(), &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                // A new client may be on the listener: the next one finds another.
                PollIngressSingleResult::SocketStateChanged => self.listen(),
            }
        }
        let (sockets, pages) = (&mut self.sockets, self.pages);
        let mut disk = |offset, out: &mut [u8]| platform.read_disk(offset, out);
        self.clients.retain_mut(|client| client.advance(sockets, pages, &mut disk, now));
        for _ in 0..BATCH {
            if self.interface.poll_egress(now, platform.net(), &mut self.sockets) == PollResult::None {
                break;
            }
        }
        self.interface.poll_maintenance(now);
        let lingering = self.clients.iter().filter_map(|client| client.ended).map(|since| since + LINGER).min();
        let due = self.interface.poll_at(now, &self.sockets);
        lingering.into_iter().chain(due).min()
    }

    /// Sees to it that one socket listens, as long as there is room for one more client.
    fn listen(&mut self) {
        if let Some(socket) = self.listener {
            if self.sockets.get::<tcp::Socket>(socket).is_listening() {
                return;
            }
            self.clients.push(Client { socket, connection: Connection::default(), ended: None });
            self.listener = None;
        }
        if self.clients.len() >= self.most_clients {
            return;
        }
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(send_buffer(self.clients.len())));
        socket.set_timeout(Some(IDLE));
        // Answers are written whole; the end of one must not wait for the client's acknowledgement.
        socket.set_nagle_enabled(false);
        if socket.listen(self.port).is_ok() {
            self.listener = Some(self.sockets.add(socket));
        }
    }
}

impl Client {
    /// Moves bytes between socket and connection. False where nothing is left to do; the socket is gone then.
    fn advance(&mut self, sockets: &mut SocketSet<'static>, pages: Pages, disk: ReadDisk<'_>, now: Instant) -> bool {
        let socket = sockets.get_mut::<tcp::Socket>(self.socket);
        let over = match socket.state() {
            // A client that took its SYN back leaves its socket listening.
            State::Closed | State::Listen => true,
            State::TimeWait => now >= *self.ended.get_or_insert(now) + LINGER,
            _ => false,
        };
        if over {
            sockets.remove(self.socket);
            return false;
        }
        loop {
            let before = socket.recv_queue() + socket.send_queue();
            let done = self.connection.is_done();
            if socket.can_recv() {
                // What comes behind the end is read and forgotten, so that the client's FIN gets through.
                let take = |bytes: &mut [u8]| {
                    let count = if done { bytes.len() } else { self.connection.take(bytes, pages) };
                    (count, ())
                };
                let _ = socket.recv(take);
            } else if !socket.may_recv() && socket.state() == State::CloseWait {
                self.connection.end_of_input();
            }
            if self.connection.is_answering() && socket.can_send() {
                let _ = socket.send(|room| (self.connection.write(room, disk), ()));
            }
            if socket.recv_queue() + socket.send_queue() == before {
                break;
            }
        }
        if self.connection.is_done() {
            socket.close();
        }
        true
    }
}

/// Tells the segment who is here, and asks for the gateway by the same frame: its answer is there before the
/// first client's.
fn announce<P: Platform>(platform: &mut P, settings: &Settings) {
    let Some(own) = settings.v4 else { return };
    let mac = EthernetAddress(platform.mac());
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: own.address(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: settings.gateway4.unwrap_or(own.address()),
    };
    let ethernet =
        EthernetRepr { src_addr: mac, dst_addr: EthernetAddress::BROADCAST, ethertype: EthernetProtocol::Arp };
    let now = platform.now();
    let Some(token) = platform.net().transmit(now) else { return };
    token.consume(ethernet.buffer_len() + arp.buffer_len(), |bytes| {
        let mut frame = EthernetFrame::new_unchecked(bytes);
        ethernet.emit(&mut frame);
        arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    });
}
