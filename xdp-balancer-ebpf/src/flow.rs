//! Counts an instance's packets at the host's end of its interface and keeps its open TCP connections. Never changes a
//! packet, and lets the next filter have its turn.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
use xdp_balancer_common::{Connection, ConnectionKey, QuietPrefix};

use crate::maps::{CONNECTIONS, FLOWS};
use crate::pool::Base;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const ETHERNET: usize = 14;
const IPV6: usize = 40;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// Seen from the instance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards it.
    To,
    /// From it.
    From,
}

/// A packet that counts.
struct Packet {
    v4: bool,
    /// Offset of the header behind IP's.
    transport: usize,
    /// TCP's flags; none of another protocol.
    flags: u8,
}

impl Packet {
    /// Whether it asks for a new connection.
    #[inline(always)]
    fn opens(&self) -> bool {
        self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }
}

/// Counts one packet (or as many as a segmentation offload stands for).
#[inline(always)]
pub fn count(ctx: &TcContext, direction: Direction) -> i32 {
    if let Some(packet) = countable(ctx) {
        // SAFETY: the context is the kernel's.
        let (interface, segments) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).gso_segs) };
        if let Some(flow) = FLOWS.get_ptr_mut(interface) {
            let packets = u64::from(if segments > 1 { segments } else { 1 });
            // SAFETY: a live map element of this CPU, written by classifiers only.
            unsafe {
                match direction {
                    Direction::To => {
                        (*flow).packets_to += packets;
                        (*flow).bytes_to += u64::from(ctx.len());
                        if is_quiet(ctx, &packet) {
                            (*flow).quiet_to += packets;
                        } else {
                            (*flow).connections += u64::from(packet.opens());
                        }
                    }
                    Direction::From => {
                        (*flow).packets_from += packets;
                        (*flow).bytes_from += u64::from(ctx.len());
                    }
                }
            }
            if packet.flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
                track(ctx, direction, &packet, interface);
            }
        }
    }
    TC_ACT_UNSPEC
}

/// Notes that a connection is accepted, half closed, or over.
#[inline(always)]
fn track(ctx: &TcContext, direction: Direction, packet: &Packet, interface: u32) {
    let (client, mine) = match direction {
        Direction::To => (address(ctx, packet, Side::Source), 0),
        Direction::From => (address(ctx, packet, Side::Destination), 1),
    };
    let (Some(client), Ok(ports)) = (client, ctx.load::<[u16; 2]>(packet.transport)) else { return };
    let ports = if mine == 0 { ports } else { [ports[1], ports[0]] };
    let key = ConnectionKey { interface, ports, client };
    if packet.flags & TCP_SYN != 0 {
        // Once the instance accepts it: a bridge floods what it has no port for yet, so that a SYN alone may be another's.
        // One that the instance opens is none of its clients'.
        if mine == 1 && packet.flags & TCP_ACK != 0 {
            // A slow instance repeats it, even when its client has given up already; what was known of the connection holds.
            // After its own FIN it repeats nothing: that is another connection of the same ports.
            // SAFETY: a live map element, written by classifiers only.
            if CONNECTIONS.get_ptr(key).is_some_and(|known| unsafe { (*known).closed[1] } == 0) {
                return;
            }
            // SAFETY: reads the clock.
            let opened_ns = unsafe { bpf_ktime_get_ns() };
            let _ = CONNECTIONS.insert(key, Connection { opened_ns, closed: [0; 2] }, 0);
        }
        return;
    }
    let Some(connection) = CONNECTIONS.get_ptr_mut(key) else { return };
    // SAFETY: a live map element; each direction writes a word of its own.
    let closed = unsafe {
        if packet.flags & TCP_FIN != 0 {
            (*connection).closed[mine] = 1;
        }
        (*connection).closed[0] & (*connection).closed[1]
    };
    if packet.flags & TCP_RST != 0 || closed != 0 {
        let _ = CONNECTIONS.remove(key);
    }
}

/// Whose address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// An address of the packet, IPv4 as IPv6 maps it.
#[inline(always)]
fn address(ctx: &TcContext, packet: &Packet, side: Side) -> Option<[u32; 4]> {
    let [a, b, c] = QuietPrefix::MAPPED;
    let behind = side == Side::Destination;
    if packet.v4 {
        let at = ETHERNET + if behind { 16 } else { 12 };
        ctx.load::<u32>(at).ok().map(|word| [a, b, c, word])
    } else {
        ctx.load::<[u32; 4]>(ETHERNET + if behind { 24 } else { 8 }).ok()
    }
}

/// Whether it comes from somebody who is no sign of use.
#[inline(always)]
fn is_quiet(ctx: &TcContext, packet: &Packet) -> bool {
    let Ok(pool) = Base::get() else { return false };
    let settings = &pool.root().settings;
    address(ctx, packet, Side::Source).is_some_and(|sender| settings.is_quiet(settings.quiet_lens[1], sender))
}

/// What there is to know of a packet that counts. Not counted: broadcast, multicast, anything but IP, and neighbour
/// discovery, which goes on when an instance has nothing to do.
#[inline(always)]
fn countable(ctx: &TcContext) -> Option<Packet> {
    if ctx.load::<u8>(0).ok()? & 1 != 0 {
        return None;
    }
    let (v4, protocol, transport) = match u16::from_be(ctx.load::<u16>(12).ok()?) {
        ETHERTYPE_IPV4 => {
            let header = ctx.load::<u8>(ETHERNET).ok()?;
            (true, ctx.load::<u8>(ETHERNET + 9).ok()?, ETHERNET + usize::from(header & 0x0f) * 4)
        }
        ETHERTYPE_IPV6 => (false, ctx.load::<u8>(ETHERNET + 6).ok()?, ETHERNET + IPV6),
        _ => return None,
    };
    let flags = match protocol {
        ICMPV6 => match ctx.load::<u8>(transport).ok()? {
            133..=137 => return None,
            _ => 0,
        },
        // A later fragment has no flags where we look; at worst one connection is miscounted.
        TCP => ctx.load::<u8>(transport + 13).unwrap_or(0),
        _ => 0,
    };
    Some(Packet { v4, transport, flags })
}
