//! Solo5's block device, which gives one block at a time.

use alloc::vec;
use alloc::vec::Vec;

use crate::abi;

/// The device with the block that was read last.
pub struct Disk {
    handle: u64,
    length: u64,
    block: Vec<u8>,
    /// Where that block begins.
    at: Option<u64>,
}

impl Disk {
    /// The device that the manifest names.
    pub fn acquire() -> Option<Self> {
        let (handle, info) = abi::acquire_block()?;
        Some(Self { handle, length: info.capacity, block: vec![0; info.block as usize], at: None })
    }

    /// Bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Copies what is at `offset`, up to the end of its block.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> usize {
        let within = offset % self.block.len() as u64;
        let start = offset - within;
        if self.at != Some(start) {
            self.at = abi::read_block(self.handle, start, &mut self.block).then_some(start);
        }
        let rest = self.block.get(within as usize..).filter(|_| self.at.is_some()).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        count
    }
}
