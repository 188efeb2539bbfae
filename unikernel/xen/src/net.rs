//! The network device as smoltcp wants it: the front's end of Xen's (`public/io/netif.h`). Every frame has a page of its
//! own, granted once; checksums are computed by both sides, and no frame is longer than Ethernet's.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::events;
use crate::grants::{Access, Grants};
use crate::hypercall::{self, Refused};
use crate::page::Shared;
use crate::ring::Ring;
use crate::store::{Store, StoreError};

/// Longest frame: Ethernet header and 1500 bytes.
const FRAME: usize = 1514;
/// Frames on their way, in each direction; neither is more than a ring has entries.
const INCOMING: u16 = 128;
const OUTGOING: u16 = 256;
/// How long it waits for the other side where all pages are on their way.
const PATIENCE_NS: u64 = 5_000_000;

/// Where the device is in the store.
const FRONT: &str = "device/vif/0";
/// `XenbusState` of `public/io/xenbus.h`, as it is written in the store.
const INIT_WAIT: &str = "2";
const CONNECTED: &str = "4";
const CLOSING: [&str; 2] = ["5", "6"];
/// The rest of the frame is in a further response, or what is there is none (`NETRXF_more_data`, `NETRXF_extra_info`).
const MORE: u16 = 4 | 8;

/// Why there is no network.
#[derive(Debug)]
pub enum NetError {
    /// The store.
    Store(StoreError),
    /// The store lacks what is to be there.
    Lacks(&'static str),
    /// What is there has another form.
    Malformed(&'static str),
    /// The hypervisor, which was asked for that.
    Refused(&'static str, Refused),
    /// The domain behind it has closed the device.
    Closed,
    /// There is no memory for rings and frames.
    Memory,
}

impl From<StoreError> for NetError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "network: {error}"),
            Self::Lacks(what) => write!(f, "network: {FRONT}/{what} is not in the store"),
            Self::Malformed(what) => write!(f, "network: {FRONT}/{what} is malformed"),
            Self::Refused(what, Refused(errno)) => write!(f, "network: no {what} ({errno})"),
            Self::Closed => f.write_str("network: the device has been closed"),
            Self::Memory => f.write_str("network: no memory for its frames"),
        }
    }
}

/// A page that is granted.
struct Buffer {
    page: Shared,
    reference: u32,
}

/// The device.
pub struct Net {
    mac: [u8; 6],
    port: u32,
    /// `netif_rx_request` and `_response`: 8 bytes.
    incoming: Ring<8>,
    received: Vec<Buffer>,
    /// `netif_tx_request` and `_response`: 12 bytes.
    outgoing: Ring<12>,
    sent: Vec<Buffer>,
    free: Vec<u16>,
    frame: [u8; FRAME],
}

impl Net {
    /// Connects the first device. It sleeps until the other side is connected as well.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn connect(store: &mut Store) -> Result<Self, NetError> {
        let mac = read(store, "mac")?;
        let mac = parse_mac(&mac).ok_or(NetError::Malformed("mac"))?;
        let back = read(store, "backend")?;
        let domain = read(store, "backend-id")?.parse().map_err(|_| NetError::Malformed("backend-id"))?;
        let refused = |what| move |refused| NetError::Refused(what, refused);

        let mut grants = Grants::start(domain).map_err(refused("grant table"))?;
        let port = hypercall::allocate_channel(domain).map_err(refused("event channel"))?;
        let mut buffers = |count: u16, access| -> Option<Vec<Buffer>> {
            let buffer = |_| {
                let page = Shared::allocate()?;
                Some(Buffer { page, reference: grants.grant(page, access)? })
            };
            (0..count).map(buffer).collect()
        };
        let received = buffers(INCOMING, Access::Write).ok_or(NetError::Memory)?;
        let sent = buffers(OUTGOING, Access::Read).ok_or(NetError::Memory)?;
        let (incoming, outgoing) = (Ring::new().ok_or(NetError::Memory)?, Ring::new().ok_or(NetError::Memory)?);
        let mut ring = |page| grants.grant(page, Access::Write).map(|reference| reference.to_string());
        let incoming_ring = ring(incoming.page).ok_or(NetError::Memory)?;
        let outgoing_ring = ring(outgoing.page).ok_or(NetError::Memory)?;
        let free = (0..OUTGOING).rev().collect();
        let mut net = Self { mac, port, incoming, received, outgoing, sent, free, frame: [0; FRAME] };
        for number in 0..INCOMING {
            net.offer(number);
        }

        let state = format!("{back}/state");
        store.watch(&state)?;
        await_state(store, &state, INIT_WAIT)?;
        let key = |name: &str| format!("{FRONT}/{name}");
        store.write(&[
            (&key("rx-ring-ref"), &incoming_ring),
            (&key("tx-ring-ref"), &outgoing_ring),
            (&key("event-channel"), &port.to_string()),
            (&key("request-rx-copy"), "1"),
            (&key("feature-rx-notify"), "1"),
            (&key("feature-no-csum-offload"), "1"),
            (&key("state"), CONNECTED),
        ])?;
        await_state(store, &state, CONNECTED)?;
        Ok(net)
    }

    /// Hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The port at which frames are told of.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Whether no frame is there. Where there is none, the next one makes an event.
    pub fn arm(&self) -> bool {
        events::take(self.port);
        self.incoming.arm()
    }

    /// Gives the other side a page to receive into.
    fn offer(&mut self, number: u16) {
        let Some(buffer) = self.received.get(usize::from(number)) else { return };
        let mut request = [0; 8];
        request[..2].copy_from_slice(&number.to_le_bytes());
        request[4..].copy_from_slice(&buffer.reference.to_le_bytes());
        if self.incoming.push(request) {
            hypercall::notify(self.port);
        }
    }

    /// Takes the next frame out; its length. Frames that the other side could not give whole are left out.
    fn take(&mut self) -> Option<usize> {
        while let Some(response) = self.incoming.pop() {
            let [number, offset, flags, status] =
                [0, 2, 4, 6].map(|at| u16::from_le_bytes([response[at], response[at + 1]]));
            // Negative where it failed, so that it is longer than any frame.
            let length = usize::from(status);
            let whole = flags & MORE == 0 && (1..=FRAME).contains(&length);
            if let Some(buffer) = self.received.get(usize::from(number)) {
                buffer.page.copy_to(usize::from(offset), &mut self.frame[..if whole { length } else { 0 }]);
                self.offer(number);
            }
            if whole {
                return Some(length);
            }
        }
        None
    }

    /// Takes back the pages of frames that have been sent. Where all are on their way, it sleeps for one, but not long.
    fn reclaim(&mut self) {
        self.collect();
        if self.free.is_empty() {
            events::take(self.port);
            if self.outgoing.arm() {
                hypercall::poll(&[self.port], events::now() + PATIENCE_NS);
            }
            self.collect();
        }
    }

    fn collect(&mut self) {
        while let Some(response) = self.outgoing.pop() {
            self.free.push(u16::from_le_bytes([response[0], response[1]]) % OUTGOING);
        }
    }
}

/// A value of the device's.
fn read(store: &mut Store, name: &'static str) -> Result<String, NetError> {
    store.read(&format!("{FRONT}/{name}"))?.ok_or(NetError::Lacks(name))
}

/// Sleeps until the other side's state, which is watched, is `wanted` or beyond that.
fn await_state(store: &mut Store, path: &str, wanted: &str) -> Result<(), NetError> {
    loop {
        let state = store.read(path)?.unwrap_or_default();
        if CLOSING.contains(&state.as_str()) {
            return Err(NetError::Closed);
        }
        // One digit each, in the order of their steps.
        if state.as_str() >= wanted {
            return Ok(());
        }
        store.wait()?;
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// A frame that came.
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame that goes.
pub struct Sent<'a> {
    port: u32,
    ring: &'a mut Ring<12>,
    buffers: &'a [Buffer],
    free: &'a mut Vec<u16>,
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // A token is made only where a page is free.
        let number = self.free.pop().unwrap_or(0);
        let buffer = &self.buffers[usize::from(number)];
        // SAFETY: the page is free: its frame has been answered, so that the other side reads it no more.
        let result = f(unsafe { buffer.page.bytes(length) });
        // Reference, offset, flags, number, length.
        let mut request = [0; 12];
        request[..4].copy_from_slice(&buffer.reference.to_le_bytes());
        request[8..10].copy_from_slice(&number.to_le_bytes());
        request[10..].copy_from_slice(&(length as u16).to_le_bytes());
        if self.ring.push(request) {
            hypercall::notify(self.port);
        }
        result
    }
}

impl Device for Net {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        self.reclaim();
        if self.free.is_empty() {
            return None;
        }
        let length = self.take()?;
        let sent = Sent { port: self.port, ring: &mut self.outgoing, buffers: &self.sent, free: &mut self.free };
        Some((Received(self.frame.get(..length)?), sent))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        self.reclaim();
        let free = !self.free.is_empty();
        free.then_some(Sent { port: self.port, ring: &mut self.outgoing, buffers: &self.sent, free: &mut self.free })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}
