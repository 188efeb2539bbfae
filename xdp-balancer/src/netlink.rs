//! Which XDP program an interface runs, what kind of interface it is, setting a program without a link, and the filters
//! of its `clsact` qdisc: small rtnetlink requests.
//! Links cannot tell their mode, and a program attached without a link is only found this way.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::mode::AttachedMode;

const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
const ATTACHED_SKB: u8 = 2;
const ATTACHED_MULTI: u8 = 4;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
/// Where `clsact` is, as a parent.
const TC_H_CLSACT: u32 = 0xffff_fff1;
/// `struct tcmsg`.
const TRAFFIC_HEADER: usize = 20;

const MESSAGE_HEADER: usize = 16;
const INTERFACE_HEADER: usize = 16;

/// The XDP program that an interface runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// Kernel's id of the program.
    pub program_id: u32,
    /// How it is attached.
    pub mode: AttachedMode,
}

/// Asks which program the interface runs.
pub(crate) fn running(ifindex: u32) -> io::Result<Option<Running>> {
    let reply = link(ifindex)?;
    let Some(xdp) = attribute(attributes(&reply), IFLA_XDP) else { return Ok(None) };
    let attached = attribute(xdp, IFLA_XDP_ATTACHED).and_then(|value| value.first().copied()).unwrap_or(0);
    let id = |kind| attribute(xdp, kind).and_then(word);
    let (program_id, mode) = match attached {
        0 => return Ok(None),
        ATTACHED_SKB => (id(IFLA_XDP_SKB_PROG_ID).or_else(|| id(IFLA_XDP_PROG_ID)), AttachedMode::Generic),
        // In more than one mode at once: the driver's program runs first.
        ATTACHED_MULTI => (id(IFLA_XDP_DRV_PROG_ID), AttachedMode::Native),
        _ => (id(IFLA_XDP_DRV_PROG_ID).or_else(|| id(IFLA_XDP_PROG_ID)), AttachedMode::Native),
    };
    Ok(program_id.map(|program_id| Running { program_id, mode }))
}

/// Whether the interface is one end of a veth pair.
pub(crate) fn is_veth(ifindex: u32) -> io::Result<bool> {
    let reply = link(ifindex)?;
    let kind = attribute(attributes(&reply), IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    Ok(kind.is_some_and(|kind| kind.strip_suffix(b"\0").unwrap_or(kind) == b"veth"))
}

/// One of the two lists of filters of a `clsact` qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Of what comes in.
    Ingress,
    /// Of what goes out.
    Egress,
}

/// A filter, whoever's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Its place in the list.
    pub priority: u16,
    /// Its number there.
    pub handle: u32,
    /// Kernel's id of the program that it runs; 0 where it runs none.
    pub program_id: u32,
}

/// The filters in a list; none where there is no such qdisc.
pub(crate) fn filters(ifindex: u32, list: List) -> io::Result<Vec<Filter>> {
    let parent = match list {
        List::Ingress => 0xffff_fff2,
        List::Egress => 0xffff_fff3,
    };
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut request = traffic(libc::RTM_GETTFILTER, flags, ifindex, parent);
    let socket = send(&mut request)?;
    let mut found = Vec::new();
    loop {
        let reply = receive(&socket)?;
        let mut rest = reply.as_slice();
        while let Some(len) = word(rest).map(|len| len as usize).filter(|len| *len >= MESSAGE_HEADER) {
            let Some(message) = rest.get(..len) else { break };
            match kind(message) {
                Some(libc::RTM_NEWTFILTER) => found.extend(filter(message)),
                Some(kind) if i32::from(kind) == libc::NLMSG_DONE => return Ok(found),
                Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => return refusal(message).map(|()| found),
                _ => {}
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A filter in a message; a list tells of its classifiers too, which have no number.
fn filter(message: &[u8]) -> Option<Filter> {
    let header = message.get(MESSAGE_HEADER..)?;
    let handle = word(header.get(8..)?)?;
    let priority = (word(header.get(16..)?)? >> 16) as u16;
    let options = attribute(header.get(TRAFFIC_HEADER..)?, TCA_OPTIONS);
    let program_id = options.and_then(|options| attribute(options, TCA_BPF_ID)).and_then(word).unwrap_or(0);
    (handle != 0).then_some(Filter { priority, handle, program_id })
}

/// Whether an interface has a `clsact` qdisc.
pub(crate) fn has_clsact(ifindex: u32) -> io::Result<bool> {
    // The kernel may tell of it by the acknowledgement alone.
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut request = traffic(libc::RTM_GETQDISC, flags, ifindex, TC_H_CLSACT);
    push_attribute(&mut request, TCA_KIND, b"clsact\0");
    match exchange(&mut request) {
        // None, or one of another kind.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(false),
        other => other.map(|_| true),
    }
}

/// Removes an interface's `clsact` qdisc; gone already is fine.
pub(crate) fn remove_clsact(ifindex: u32) -> io::Result<()> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut request = traffic(libc::RTM_DELQDISC, flags, ifindex, TC_H_CLSACT);
    push_attribute(&mut request, TCA_KIND, b"clsact\0");
    match exchange(&mut request) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Err(error),
        _ => Ok(()),
    }
}

/// A message on a qdisc or its filters.
fn traffic(kind: u16, flags: u16, ifindex: u32, parent: u32) -> Vec<u8> {
    let mut bytes = message(kind, flags, 0);
    bytes.truncate(MESSAGE_HEADER);
    // struct tcmsg: family and padding, interface, handle, parent, info.
    for word in [0, ifindex, 0, parent, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// All that is said of an interface.
fn link(ifindex: u32) -> io::Result<Vec<u8>> {
    exchange(&mut message(libc::RTM_GETLINK, libc::NLM_F_REQUEST as u16, ifindex))
}

/// The attributes in a message on an interface.
fn attributes(reply: &[u8]) -> &[u8] {
    reply.get(MESSAGE_HEADER + INTERFACE_HEADER..).unwrap_or_default()
}

/// Sets a program that stays until it is removed or the interface goes.
pub(crate) fn set(ifindex: u32, program: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let flags_wanted = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut request = message(libc::RTM_SETLINK, flags_wanted, ifindex);
    let start = request.len();
    push_attribute(&mut request, IFLA_XDP | NLA_F_NESTED, &[]);
    push_attribute(&mut request, IFLA_XDP_FD, &program.as_raw_fd().to_ne_bytes());
    push_attribute(&mut request, IFLA_XDP_FLAGS, &flags.to_ne_bytes());
    let nested = (request.len() - start) as u16;
    request[start..start + 2].copy_from_slice(&nested.to_ne_bytes());
    exchange(&mut request).map(drop)
}

fn message(kind: u16, flags: u16, ifindex: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&1_u32.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    // struct ifinfomsg: family, padding, type, index, flags, change.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&ifindex.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Sends one request and returns its one reply; an error reply becomes an error.
fn exchange(request: &mut [u8]) -> io::Result<Vec<u8>> {
    let reply = receive(&send(request)?)?;
    if kind(&reply).is_some_and(|kind| i32::from(kind) == libc::NLMSG_ERROR) {
        refusal(&reply)?;
    }
    Ok(reply)
}

fn send(request: &mut [u8]) -> io::Result<OwnedFd> {
    let len = request.len() as u32;
    request[..4].copy_from_slice(&len.to_ne_bytes());
    // SAFETY: a plain call.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the buffer and its length.
    if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut reply = vec![0_u8; 32 * 1024];
    // SAFETY: the buffer and its length.
    let got = unsafe { libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    reply.truncate(got as usize);
    Ok(reply)
}

fn kind(message: &[u8]) -> Option<u16> {
    message.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// The error in an error message; 0 is none.
fn refusal(message: &[u8]) -> io::Result<()> {
    match message.get(MESSAGE_HEADER..).and_then(word).unwrap_or(0) as i32 {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    let bytes = bytes.get(..4)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The value of the first attribute of a kind.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(header) = bytes.get(..4) {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let found = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        if found == kind {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
    None
}
