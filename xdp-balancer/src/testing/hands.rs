//! What anybody with the rights can do to our things from outside, by plain system calls on their pins.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::sys::{self, Memory};

/// Detaches a pinned link; the pin stays.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    sys::link_detach(sys::get(pin)?.as_fd())
}

/// Puts another program, known by its number, into a pinned link.
pub fn replace_program(pin: &Path, program_id: u32) -> io::Result<()> {
    sys::link_update(sys::get(pin)?.as_fd(), sys::program(program_id)?.as_fd())
}

/// Deletes an element of a pinned map.
pub fn delete_element<K: aya::Pod>(pin: &Path, key: K) -> io::Result<()> {
    sys::delete(sys::get(pin)?.as_fd(), &key)
}

/// The memory of a pinned array of one element.
pub struct Bytes {
    memory: Memory,
    len: usize,
}

impl Bytes {
    /// Maps it.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let map = sys::get(pin)?;
        let [_, len, _] = sys::map_size(map.as_fd())?;
        Ok(Self { memory: Memory::map(map, len as usize)?, len: len as usize })
    }

    /// Where these bytes are.
    #[must_use]
    pub fn find(&self, needle: &[u8]) -> Vec<usize> {
        let all = self.memory.read(0, self.len).unwrap_or_default();
        all.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
    }

    /// Writes there.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }
}
