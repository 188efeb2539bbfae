//! A virtio network device over MMIO as smoltcp wants it.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::interrupts;

/// Longest frame: Ethernet header and 1500 bytes.
const FRAME: usize = 1514;
/// A frame with virtio's header before it.
const BUFFER: usize = FRAME + 12;
/// Frames on their way, in each direction.
const QUEUE: usize = 128;

/// Memory is where it is: no address differs between device and program.
struct Memory;

// SAFETY: pages come zeroed and aligned from the allocator and are nobody else's; memory is mapped as it is.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let pointer = Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).ok().and_then(|layout| {
            // SAFETY: the layout is not empty, for a queue has pages.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        });
        let Some(pointer) = pointer else { crate::fail("no memory for the network device") };
        (pointer.as_ptr() as PhysAddr, pointer)
    }

    unsafe fn dma_dealloc(_: PhysAddr, pointer: NonNull<u8>, pages: usize) -> i32 {
        if let Ok(layout) = Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE) {
            // SAFETY: the caller gives back what `dma_alloc` gave with this layout.
            unsafe { dealloc(pointer.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

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
    /// The first network device that the command line names, as `virtio_mmio.device=512@0xfeb00e00:12`.
    pub fn find(line: &str) -> Option<Self> {
        let places = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("virtio_mmio.device="));
        places.filter_map(place).find_map(|(address, line)| Self::open(address, line))
    }

    fn open(address: usize, line: u32) -> Option<Self> {
        let header = NonNull::new(address as *mut VirtIOHeader)?;
        // SAFETY: the monitor says that a device is there, and it stays.
        let transport = unsafe { MmioTransport::new(header, 0x200) }.ok()?;
        if transport.device_type() != DeviceType::Network {
            return None;
        }
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

/// Address and interrupt line of `SIZE@ADDRESS:LINE`.
fn place(text: &str) -> Option<(usize, u32)> {
    let (address, line) = text.split_once('@')?.1.split_once(':')?;
    let address = usize::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    // A further number, the device's, may follow.
    let line = line.split(':').next()?.parse().ok()?;
    Some((address, line))
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
