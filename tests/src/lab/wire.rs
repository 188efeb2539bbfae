//! Cables between namespaces and what is no interface: taps, and the socket of an emulated network card.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::error::{LabError, Result};
use super::netns::Namespace;

/// Longest frame that is carried, in bytes.
const FRAME: usize = 1 << 16;

/// Makes a tap in a namespace and brings it up: frames are read from and written to the file.
///
/// # Errors
/// [`LabError`].
pub fn tap(namespace: &Namespace, name: &str) -> Result<File> {
    let tap = namespace.run_in(|| open_tap(name))?.map_err(LabError::system("make tap", name))?;
    namespace.up(name)?;
    Ok(tap)
}

fn open_tap(name: &str) -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: plain numbers and bytes, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open and the structure lives through the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(device),
    }
}

/// A cable from a new tap in `namespace` to a card that QEMU offers at a socket (`-netdev stream`), where each frame
/// follows its length in four bytes of network byte order. Two threads carry frames until QEMU ends.
///
/// # Errors
/// [`LabError`].
pub fn plug(namespace: &Namespace, name: &str, socket: &Path) -> Result<()> {
    let card = UnixStream::connect(socket).map_err(LabError::system("connect to", socket.display()))?;
    let tap = tap(namespace, name)?;
    let from_card = card.try_clone().map_err(LabError::system("share", socket.display()))?;
    let to_tap = tap.try_clone().map_err(LabError::system("share", name))?;
    std::thread::spawn(move || inward(from_card, to_tap));
    std::thread::spawn(move || outward(tap, card));
    Ok(())
}

fn inward(mut card: UnixStream, mut tap: File) {
    let mut length = [0; 4];
    let mut frame = vec![0; FRAME];
    while card.read_exact(&mut length).is_ok() {
        let Some(frame) = frame.get_mut(..u32::from_be_bytes(length) as usize) else { break };
        if card.read_exact(frame).is_err() {
            break;
        }
        // An interface that is down takes nothing, as a cable that is not plugged in.
        let _ = tap.write(frame);
    }
    // Nobody is at the other end any more; one who has gone already needs not be told.
    let _ = card.shutdown(Shutdown::Both);
}

fn outward(mut tap: File, mut card: UnixStream) {
    let mut buffer = vec![0; FRAME];
    while let Ok(len @ 1..) = tap.read(&mut buffer[4..]) {
        // A frame is shorter than the buffer, which is less than 2³² bytes.
        buffer[..4].copy_from_slice(&(len as u32).to_be_bytes());
        if card.write_all(&buffer[..4 + len]).is_err() {
            break;
        }
    }
}
