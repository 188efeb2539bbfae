//! A monitor as a process, watched by its descriptor.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Whom a monitor runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    /// Numerical user id.
    pub user: u32,
    /// Numerical group id.
    pub group: u32,
}

/// A process by its descriptor: it stays the same process, even when its number is used again.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    descriptor: AsyncFd<OwnedFd>,
}

impl Process {
    /// Opens the process of that number; `None` where there is none.
    pub(super) fn open(pid: u32) -> io::Result<Option<Self>> {
        // SAFETY: takes two numbers.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if opened < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        let number = RawFd::try_from(opened).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made it, for nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // SAFETY: an owned descriptor is the same and open until it is dropped.
        let descriptor = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Some(Self { pid, descriptor }))
    }

    /// Its number.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; one that has ended is a success.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let (descriptor, nothing) = (self.descriptor.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open, and no information is given along.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, signal as libc::c_int, nothing, 0) };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.descriptor.readable().await.map(drop)
    }

    /// Takes its exit status and with it the last of it; in words. Not known of a process that an earlier run of the
    /// daemon started.
    pub(super) fn reap(&self) -> String {
        match waitid(Id::PIDFd(std::os::fd::AsFd::as_fd(self.descriptor.get_ref())), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => format!("exit code {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let number = signal as i32;
                format!("exit code {} (killed by signal {number})", 128 + number)
            }
            Ok(other) => format!("it ended as {other:?}"),
            Err(_) => "it ended; how is not known, for an earlier run of the daemon had started it".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::fs::OpenOptions;
    use std::path::Path;

    use super::super::spawn::{Launch, spawn};
    use super::*;

    fn start(program: &str, arguments: &[&str], console: &Path) -> io::Result<u32> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let me = User { user: nix::unistd::getuid().as_raw(), group: nix::unistd::getgid().as_raw() };
        spawn(&Launch {
            program: Path::new(program),
            arguments: &arguments,
            user: me,
            doors: vec![],
            descriptors: vec![],
            console: OpenOptions::new().create(true).append(true).open(console).unwrap(),
        })
    }

    #[tokio::test]
    async fn ends_are_told_with_their_cause() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console");
        let pid = start("/bin/sh", &["-c", "echo said; exit 7"], &console).unwrap();
        let process = Process::open(pid).unwrap().unwrap();
        process.ended().await.unwrap();
        assert_eq!(process.reap(), "exit code 7");
        assert_eq!(std::fs::read_to_string(&console).unwrap(), "said\n");
        process.signal(Signal::SIGKILL).unwrap();
        assert!(Process::open(pid).unwrap().is_none());

        let process = Process::open(start("/bin/sleep", &["60"], &console).unwrap()).unwrap().unwrap();
        process.signal(Signal::SIGKILL).unwrap();
        process.ended().await.unwrap();
        assert_eq!(process.reap(), "exit code 137 (killed by signal 9)");
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = start("/no/such/program", &[], &dir.path().join("console")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
