//! A virtio network device over MMIO as smoltcp wants it.

use alloc::vec;
use alloc::vec::Vec;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::interrupts;
use crate::virtio::{self, Memory};

/// Longest frame: Ethernet header and 1500 bytes.
const FRAME: usize = 1514;
/// A frame with virtio's header before it.
const BUFFER: usize = FRAME + 12;
/// Frames on their way, in each direction.
const QUEUE: usize = 128;

type Raw = VirtIONetRaw<Memory, MmioTransport<'static>, QUEUE>;

/// Buffers of one direction; each is either free or the device's, which knows it by a token.
struct Buffers {
    all: Vec<[u8; BUFFER]>,
    free: Vec<usize>,
    /// The buffer behind each token, and how much of it was given.
    by_token: [(usize, usize); QUEUE],
}

impl Buffers {
    fn new() -> Self {
        Self { all: vec![[0; BUFFER]; QUEUE], free: (0..QUEUE).rev().collect(), by_token: [(0, 0); QUEUE] }
    }
}

/// The device with its buffers.
pub struct Net {
    raw: Raw,
    incoming: Buffers,
    outgoing: Buffers,
    frame: [u8; FRAME],
}

impl Net {
    /// The first network device that the command line names.
    pub fn find(line: &str) -> Option<Self> {
        let (transport, line) = virtio::find(line, DeviceType::Network)?;
        let raw = Raw::new(transport).ok()?;
        let mut net = Self { raw, incoming: Buffers::new(), outgoing: Buffers::new(), frame: [0; FRAME] };
        while let Some(buffer) = net.incoming.free.pop() {
            net.offer(buffer);
        }
        interrupts::enable_line(line);
        Some(net)
    }

    /// Hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.raw.mac_address()
    }

    /// A frame has come.
    pub fn has_frame(&self) -> bool {
        self.raw.poll_receive().is_some()
    }

    /// Lets the device interrupt again.
    pub fn acknowledge(&mut self) {
        self.raw.ack_interrupt();
    }

    /// Gives the device a buffer to receive into.
    fn offer(&mut self, buffer: usize) {
        // SAFETY: the buffer is neither moved nor touched until the device has given its token back.
        match unsafe { self.raw.receive_begin(&mut self.incoming.all[buffer]) } {
            Ok(token) => self.incoming.by_token[usize::from(token)] = (buffer, BUFFER),
            Err(_) => self.incoming.free.push(buffer),
        }
    }

    /// Takes the next frame out; its length.
    fn take(&mut self) -> Option<usize> {
        let token = self.raw.poll_receive()?;
        let (buffer, _) = self.incoming.by_token[usize::from(token)];
        // SAFETY: it is the buffer that was given with this token.
        let (header, length) = unsafe { self.raw.receive_complete(token, &mut self.incoming.all[buffer]) }.ok()?;
        let frame = self.incoming.all[buffer].get(header..header + length)?;
        self.frame.get_mut(..length)?.copy_from_slice(frame);
        self.offer(buffer);
        Some(length)
    }

    /// Takes back the buffers of frames that have been sent.
    fn reclaim(&mut self) {
        while let Some(token) = self.raw.poll_transmit() {
            let (buffer, given) = self.outgoing.by_token[usize::from(token)];
            // SAFETY: it is the buffer that was given with this token.
            if unsafe { self.raw.transmit_complete(token, &self.outgoing.all[buffer][..given]) }.is_err() {
                return;
            }
            self.outgoing.free.push(buffer);
        }
    }
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
    raw: &'a mut Raw,
    outgoing: &'a mut Buffers,
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // A token is made only where a buffer is free.
        let buffer = self.outgoing.free.pop().unwrap_or(0);
        let bytes = &mut self.outgoing.all[buffer];
        let header = self.raw.fill_buffer_header(bytes).unwrap_or(0);
        let result = f(&mut bytes[header..header + length]);
        let given = header + length;
        // SAFETY: the buffer is neither moved nor touched until the device has given its token back.
        match unsafe { self.raw.transmit_begin(&self.outgoing.all[buffer][..given]) } {
            Ok(token) => self.outgoing.by_token[usize::from(token)] = (buffer, given),
            // Lost, as on any wire.
            Err(_) => self.outgoing.free.push(buffer),
        }
        result
    }
}

impl Device for Net {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        self.reclaim();
        if self.outgoing.free.is_empty() {
            return None;
        }
        let length = self.take()?;
        let frame = self.frame.get(..length)?;
        Some((Received(frame), Sent { raw: &mut self.raw, outgoing: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        self.reclaim();
        (!self.outgoing.free.is_empty()).then_some(Sent { raw: &mut self.raw, outgoing: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}
