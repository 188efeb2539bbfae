//! Messages of the programs, for the process that loaded them.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

/// Reads the programs' messages and hands them to the `log` crate. Wait for its descriptor to become
/// readable, then [`drain`](Self::drain) it; the programs write rarely, and never because of a packet
/// that they understood.
pub struct KernelLog(EbpfLogger<Current>);

/// The process's logger of the moment. aya would keep the one that is set when the buffer is taken,
/// which may be none yet.
struct Current;

impl log::Log for Current {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        log::logger().log(record);
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

impl KernelLog {
    /// Takes the ring buffer; without one (logging compiled out) there is nothing to read.
    pub(crate) fn take(object: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(object, Current) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                log::warn!("messages of the XDP program cannot be read: {error}");
                None
            }
        }
    }

    /// Logs what is waiting.
    pub fn drain(&mut self) {
        self.0.flush();
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for KernelLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KernelLog").finish_non_exhaustive()
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
