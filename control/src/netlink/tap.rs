//! Taps: interfaces whose other end is a file. Made by `/dev/net/tun`'s own calls, for netlink cannot; everything
//! else about them goes through netlink as for any port.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::error::{NetError, Result};
use crate::model::TapUse;

/// Makes the tap `name`, without offloads: what comes out of it are whole frames with checksums. The descriptor is
/// for the process that serves it; none where that opens the tap by name.
pub(super) fn create(name: &str, how: TapUse) -> Result<Option<OwnedFd>> {
    let failed = |source| NetError::Refused { operation: "make tap", object: name.to_owned(), source };
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let device = device.map_err(failed)?;
    // An interface of that name that is there already is another's: ours was removed before.
    request(&device, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL).map_err(failed)?;
    set(&device, libc::TUNSETOFFLOAD, 0).map_err(failed)?;
    match how {
        TapUse::Descriptor => Ok(Some(device.into())),
        TapUse::Name { user } => {
            set(&device, libc::TUNSETOWNER, user.into()).map_err(failed)?;
            set(&device, libc::TUNSETPERSIST, 1).map_err(failed)?;
            Ok(None)
        }
    }
}

/// Binds the open device to an interface.
fn request(device: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: plain numbers and bytes, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the final zero; names of ports are shorter.
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and the structure lives through the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A call that takes a number.
fn set(device: &File, call: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open and these calls take their argument by value.
    match unsafe { libc::ioctl(device.as_raw_fd(), call, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
