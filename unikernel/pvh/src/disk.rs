//! A virtio block device, read some sectors at a time. The wait for them is a busy one: the reply takes less than a sleep.

use alloc::vec;
use alloc::vec::Vec;

use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::virtio::{self, Memory};

/// Bytes read at a time.
const PIECE: usize = 64 * SECTOR_SIZE;

/// The device with the piece that was read last.
pub struct Disk {
    raw: VirtIOBlk<Memory, MmioTransport<'static>>,
    piece: Vec<u8>,
    /// Where that piece begins, and how much of it there is.
    at: Option<(u64, usize)>,
}

impl Disk {
    /// The first block device that the command line names.
    pub fn find(line: &str) -> Option<Self> {
        let (transport, _) = virtio::find(line, DeviceType::Block)?;
        Some(Self { raw: VirtIOBlk::new(transport).ok()?, piece: vec![0; PIECE], at: None })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.raw.capacity() * SECTOR_SIZE as u64
    }

    /// Copies what is at `offset`, up to the end of its piece.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> usize {
        let within = offset % PIECE as u64;
        let start = offset - within;
        if self.at.is_none_or(|(at, _)| at != start) {
            let there = usize::try_from(self.length().saturating_sub(start)).unwrap_or(PIECE).min(PIECE);
            let read = self.raw.read_blocks((start / SECTOR_SIZE as u64) as usize, &mut self.piece[..there]);
            self.at = read.is_ok().then_some((start, there));
        }
        let there = self.at.map_or(0, |(_, there)| there);
        let rest = self.piece.get(within as usize..there).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        count
    }
}
