//! What a domain says on its console. Xen's console daemon offers it as a terminal; nobody else may read that at the same
//! time (`xl console` would), for each byte is read once.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// Bytes that are kept.
const KEPT: usize = 64 << 10;

/// The last words of a domain, gathered for as long as this is held.
#[derive(Debug)]
pub struct Console {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Console {
    /// Reads from a terminal.
    pub(crate) fn open(tty: &Path) -> io::Result<Self> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(tty)?;
        // SAFETY: the file is owned by the `AsyncFd` from here on, which never gives it away, so its descriptor stays open
        // and the same.
        let file = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?;
        let text = Arc::new(Mutex::new(Vec::new()));
        let reader = tokio::spawn(gather(file, Arc::clone(&text)));
        Ok(Self { text, reader })
    }

    /// What has been said so far, of which the last 64 KiB are kept.
    #[must_use]
    pub fn text(&self) -> String {
        // A reader that panicked has left whole bytes.
        let bytes = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads until the domain is gone, which an error tells.
async fn gather(file: AsyncFd<std::fs::File>, text: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok(mut ready) = file.readable().await else { return };
        match ready.try_io(|file| file.get_ref().read(&mut buffer)) {
            Ok(Ok(count)) if count > 0 => {
                let mut kept = text.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
            Ok(_) => return,
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn the_last_words_are_kept() {
        // Both ends of a fifo in place of a terminal.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let console = Console::open(&path).unwrap();
        let writing = path.clone();
        let write = move || {
            let mut file = OpenOptions::new().write(true).open(writing).unwrap();
            file.write_all(&vec![b'x'; 2 * KEPT]).unwrap();
            file.write_all(b"\r\nlast words\r\n").unwrap();
        };
        tokio::task::spawn_blocking(write).await.unwrap();
        while !console.reader.is_finished() {
            tokio::task::yield_now().await;
        }
        let text = console.text();
        assert!(text.ends_with("x\nlast words\n") && text.len() < KEPT, "{}", text.len());
    }
}
