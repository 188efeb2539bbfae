//! Pulls and pushes between the store and a registry, this node's, another's or any other.
//!
//! Every blob is verified while it is written. A transfer that breaks goes on where it stood, over restarts of the
//! process as well; it is given up only when several attempts in a row brought nothing.

mod auth;
mod pace;
mod pull;
mod push;
mod remote;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use pace::Throttle;
pub use pace::{Meter, Progress};

use super::layout::Store;
use super::reference::Reference;
use super::{Digest, ImageError};
use remote::Remote;

/// Attempts in a row without a byte of progress, until a transfer is given up.
const FRUITLESS: u32 = 8;
/// Wait before the second attempt, and longest wait before one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How registries are talked to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Registries, `host[:port]`, that are spoken to without TLS. Those on this machine's loopback always are.
    pub plain_http: Vec<String>,
    /// Credentials in the form of Docker's `config.json`.
    pub auth_file: Option<PathBuf>,
    /// Blobs that are transferred at once; at least 1.
    pub parallel: usize,
    /// Bytes per second of all transfers together; `None` for no limit.
    pub bytes_per_second: Option<u64>,
    /// File with the public key that images have to be signed with to be pulled; `None` for no signatures.
    pub verify_key: Option<PathBuf>,
}

/// Moves images between one store and registries.
#[derive(Debug)]
pub struct Client {
    store: Arc<Store>,
    settings: Settings,
    throttle: Arc<Throttle>,
}

/// What a transfer did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transferred {
    /// The image, by the name that it has where it is now.
    pub image: String,
    /// Its manifest.
    pub digest: Digest,
    /// How much was moved.
    #[serde(flatten)]
    pub progress: Progress,
}

impl Client {
    /// A client for `store`. Nothing is connected to yet.
    #[must_use]
    pub fn new(store: Arc<Store>, settings: Settings) -> Self {
        let throttle = Arc::new(Throttle::new(settings.bytes_per_second));
        Self { store, settings, throttle }
    }

    /// The registry that a name says.
    fn remote(&self, name: &Reference) -> Result<Remote, ImageError> {
        let why = "a registry is needed before it, as in registry.example:5000/web:1";
        let registry = name.registry.as_deref();
        let registry = registry.ok_or_else(|| ImageError::Reference { text: name.to_string(), why })?;
        let plain = is_loopback(registry) || self.settings.plain_http.iter().any(|known| known == registry);
        Remote::new(registry, plain, self.settings.auth_file.as_deref())
    }
}

/// As engines see it: what does not leave the machine needs no TLS.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(registry, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Runs work of the store where it holds up nobody.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(ImageError::File {
            operation: "work on",
            path: PathBuf::from("the image store"),
            source: std::io::Error::other(error),
        }),
    }
}

/// Decides after a failure whether to try again, and waits until then.
#[derive(Debug, Default)]
struct Patience {
    fruitless: u32,
}

impl Patience {
    /// `progress` says whether the failed attempt brought anything.
    async fn after(&mut self, error: ImageError, progress: bool) -> Result<(), ImageError> {
        if !error.may_pass() {
            return Err(error);
        }
        if progress {
            self.fruitless = 0;
        }
        self.fruitless += 1;
        if self.fruitless >= FRUITLESS {
            return Err(ImageError::GivenUp { attempts: self.fruitless, source: Box::new(error) });
        }
        tracing::debug!(%error, attempt = self.fruitless, "tried again");
        tokio::time::sleep((PAUSE.0 * 2u32.pow(self.fruitless - 1)).min(PAUSE.1)).await;
        Ok(())
    }
}
