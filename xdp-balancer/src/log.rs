//! Messages of the programs: into one pinned ring, whoever loaded them, for the process that holds the dataplane.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use aya::Ebpf;
use aya_log::EbpfLogger;
use xdp_balancer_common::{LogLevel, ROOT_AT, Root, object};

use crate::error::Error;
use crate::maps::{Maps, pin_word, pinned_word};
use crate::pins::Pins;

const LOG_AT: usize = ROOT_AT + offset_of!(Root, log);

/// Reads the programs' messages, also of the one that captures and of those that a command has attached, and hands them to the `log` crate. Wait for its descriptor to become
/// readable, then [`drain`](Self::drain) it; the programs write a hundred in a second at most, and but for
/// [`LogLevel::Debug`] never because of a packet that they understood.
pub struct KernelLog(EbpfLogger<Current>);

/// The process's logger of the moment. aya would keep the one that is set when the buffer is taken,
/// which may be none yet. What was asked for in the kernel is heard here: it comes as `info` at least.
struct Current;

impl log::Log for Current {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = record.level().min(log::Level::Info);
        let mut heard = log::Record::builder();
        heard.args(*record.args()).level(level).target(record.target());
        heard.module_path(record.module_path()).file(record.file()).line(record.line());
        log::logger().log(&heard.build());
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

/// What the pinned programs say; `None` where no maps of this layout are.
pub fn log_level(pin_dir: &Path) -> Result<Option<LogLevel>, Error> {
    Ok(Maps::found(&Pins::new(pin_dir))?.map(|maps| maps.log_level()))
}

/// Has the pinned programs say that much from the next packet on, whoever holds them, and those of later tables too.
pub fn set_log_level(pin_dir: &Path, level: LogLevel) -> Result<(), Error> {
    let missing = || Error::system("open the pinned map", object::POOL)(io::Error::from_raw_os_error(libc::ENOENT));
    let pins = Pins::new(pin_dir);
    let maps = Maps::found(&pins)?.ok_or_else(missing)?;
    maps.pool.store(LOG_AT, level.to_word());
    pin_word(&pins.log(), level.to_word())
}

impl Maps {
    /// What was chosen for earlier tables, also of another layout, holds for these.
    pub(crate) fn carry_log_level(&self, pins: &Pins) -> Result<(), Error> {
        if let Some(word) = pinned_word(&pins.log())? {
            self.pool.store(LOG_AT, word);
        }
        Ok(())
    }

    fn log_level(&self) -> LogLevel {
        LogLevel::of_word(self.pool.get(LOG_AT).unwrap_or_default())
    }
}
