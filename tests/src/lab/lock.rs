//! One lab of a name at a time on a machine: a second one would clean the first one up.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::error::{LabError, Result};

/// Held while it lives. It is a name in the kernel and no file, so nothing of it is left, however its process ends.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

impl Lock {
    /// Takes the lock of that name.
    ///
    /// # Errors
    /// [`LabError::Busy`] where another process holds it.
    pub fn take(name: &str) -> Result<Self> {
        let failed = |error| LabError::system("lock", name)(error);
        let address = SocketAddr::from_abstract_name(format!("selvedge-lab/{name}")).map_err(failed)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self { _listener: listener }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // Who listens is for the message only, and may have gone by now.
                let stream = UnixStream::connect_addr(&address).ok();
                let pid = stream.and_then(|stream| getsockopt(&stream, PeerCredentials).ok()).map(|peer| peer.pid());
                Err(LabError::Busy { name: name.to_owned(), pid: pid.unwrap_or(0) })
            }
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_second_lab_of_a_name_is_refused_until_the_first_has_gone() {
        let name = format!("lock-test-{}", std::process::id());
        let first = Lock::take(&name).unwrap();
        let error = Lock::take(&name).unwrap_err();
        assert_eq!(error.label(), "busy");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Lock::take(&name).unwrap();
    }
}
