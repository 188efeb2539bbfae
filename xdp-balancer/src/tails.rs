//! The slots of programs that the one that answers goes on into.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use xdp_balancer_common::object::TAILS;

use crate::error::Error;
use crate::pins::Pins;
use crate::sys;

/// One of them.
pub(crate) struct Slot {
    map: OwnedFd,
    index: u32,
}

impl Slot {
    /// The one with this index in the pinned array; `None` where the tables are gone.
    pub(crate) fn open(pins: &Pins, index: u32) -> Result<Option<Self>, Error> {
        match sys::get(&pins.map(TAILS)) {
            Ok(map) => Ok(Some(Self { map, index })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system("open the pinned map", TAILS)(error)),
        }
    }

    /// Number of the program in it.
    pub(crate) fn program(&self) -> Result<Option<u32>, Error> {
        sys::lookup_u32(self.map.as_fd(), self.index).map_err(Error::system("read", TAILS))
    }

    /// Puts a program in, in the place of the one there.
    pub(crate) fn set(&self, program: BorrowedFd<'_>) -> Result<(), Error> {
        sys::set_program(self.map.as_fd(), self.index, program).map_err(Error::system("write", TAILS))
    }

    /// Empties it; an empty one is fine.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        match sys::delete(self.map.as_fd(), &self.index) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(Error::system("write", TAILS)(error)),
            _ => Ok(()),
        }
    }
}
