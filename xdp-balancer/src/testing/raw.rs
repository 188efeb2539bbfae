//! Frames on a real wire.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::sys;

/// Puts a frame on the wire at an interface of the calling thread's namespace, as it is.
pub fn send_frame(interface: &str, frame: &[u8]) -> io::Result<()> {
    // SAFETY: a plain call.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: zero is a valid value of this plain struct.
    let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    place.sll_family = libc::AF_PACKET as u16;
    place.sll_ifindex = sys::if_index(interface).ok_or_else(io::Error::last_os_error)?.cast_signed();
    let (at, len) = ((&raw const place).cast(), size_of_val(&place) as u32);
    // SAFETY: the frame and the address, with their lengths.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, at, len) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
