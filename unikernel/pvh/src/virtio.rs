//! Virtio devices over MMIO: where they are, and the memory that is shared with them.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;

use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Where a device says what it is (virtio 1.2, 4.2.2: `DeviceID`).
const DEVICE_ID: usize = 8;

/// Memory is where it is: no address differs between device and program.
pub struct Memory;

// SAFETY: pages come zeroed and aligned from the allocator and are nobody else's; memory is mapped as it is.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let pointer = Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).ok().and_then(|layout| {
            // SAFETY: the layout is not empty, for a queue has pages.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        });
        let Some(pointer) = pointer else { crate::fail("no memory for a device") };
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

/// The first device of a kind that the command line names, as `virtio_mmio.device=512@0xfeb00e00:12`, with its interrupt
/// line.
pub fn find(line: &str, kind: DeviceType) -> Option<(MmioTransport<'static>, u32)> {
    let places = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("virtio_mmio.device="));
    places.filter_map(place).find_map(|(address, line)| {
        let header = NonNull::new(address as *mut VirtIOHeader)?;
        // Asked of the register itself: a transport resets its device when it is dropped, and that may be in use.
        // SAFETY: the monitor says that a device is there, and it stays; the register is aligned and may be read.
        let number = unsafe { ((address + DEVICE_ID) as *const u32).read_volatile() };
        if number != kind as u32 {
            return None;
        }
        // SAFETY: as above.
        let transport = unsafe { MmioTransport::new(header, 0x200) }.ok()?;
        Some((transport, line))
    })
}

/// Address and interrupt line of `SIZE@ADDRESS:LINE`.
fn place(text: &str) -> Option<(usize, u32)> {
    let (address, line) = text.split_once('@')?.1.split_once(':')?;
    let address = usize::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    // A further number, the device's, may follow.
    let line = line.split(':').next()?.parse().ok()?;
    Some((address, line))
}
