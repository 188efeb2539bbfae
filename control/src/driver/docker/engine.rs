//! The way to the engine: its socket, its version, and what its failures mean.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::query_parameters::LogsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, ClientVersion};
use futures_util::TryStreamExt;
use tokio::net::UnixStream;

use crate::driver::{DriverError, Result};
use crate::model::Technology;

/// Label of the technology in errors.
pub(super) const LABEL: &str = Technology::Docker.label();

/// Oldest API that has all that is used here (engine 20.10).
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// Lines of a container's log that are quoted where it failed.
const LOG_LINES: &str = "10";

/// Longest wait for an answer to a request that the engine has no reason to think long about.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Why the engine cannot be used, by the kind of failure, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such socket.
    #[error("no socket {path:?}: is Docker installed and running?")]
    NoSocket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket may not be used.
    #[error("no permission for socket {path:?}: run as root or as a member of the group that owns it")]
    NoPermission {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody listens on the socket.
    #[error("nobody listens on socket {path:?}: the engine is not running")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket failed in another way.
    #[error("socket {path:?}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It answers, in too old a version.
    #[error("the engine speaks API {found}, {OLDEST} or newer is needed")]
    TooOld {
        /// The newest that it speaks.
        found: String,
    },
    /// It does not answer as an engine does.
    #[error("the engine's answer: {source}")]
    Answer {
        /// What was met.
        source: ApiError,
    },
}

impl EngineError {
    fn of_socket(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoSocket { path, source },
            io::ErrorKind::PermissionDenied => Self::NoPermission { path, source },
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::NotRunning { path, source }
            }
            _ => Self::Socket { path, source },
        }
    }

    fn unavailable(self) -> DriverError {
        DriverError::Unavailable { technology: LABEL, source: Box::new(self) }
    }
}

/// The engine behind a socket. A client is made when it is first needed and again after a failure.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    client: Mutex<Option<bollard::Docker>>,
}

impl Engine {
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket, client: Mutex::new(None) }
    }

    /// A client that has agreed on a version with the engine.
    pub(super) async fn client(&self) -> Result<bollard::Docker> {
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(client) => Ok(client),
            None => self.connect().await,
        }
    }

    /// The same, asking the engine anew.
    pub(super) async fn connect(&self) -> Result<bollard::Docker> {
        self.forget();
        // The client would hide the system's own reason; a connection of our own has it.
        let probe = UnixStream::connect(&self.socket).await;
        drop(probe.map_err(|source| EngineError::of_socket(&self.socket, source).unavailable())?);

        let answer = |source| EngineError::Answer { source }.unavailable();
        let path = self.socket.to_string_lossy();
        let client = bollard::Docker::connect_with_unix(&path, TIMEOUT.as_secs(), API_DEFAULT_VERSION);
        let client = client.map_err(answer)?.negotiate_version().await.map_err(|error| self.lost(error))?;
        let version = client.client_version();
        if version < OLDEST {
            return Err(EngineError::TooOld { found: version.to_string() }.unavailable());
        }
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What a failed call means: the engine is away, or it refused this one thing.
    pub(super) fn failed(&self, operation: &'static str, object: impl ToString, error: ApiError) -> DriverError {
        if cause(&error).is_some() || matches!(error, ApiError::RequestTimeoutError) {
            return self.lost(error);
        }
        DriverError::Failed { technology: LABEL, operation, object: object.to_string(), source: Box::new(error) }
    }

    /// The engine is away; the next call asks for its version anew, it may come back as another one.
    fn lost(&self, error: ApiError) -> DriverError {
        self.forget();
        match cause(&error) {
            Some(source) => EngineError::of_socket(&self.socket, source).unavailable(),
            None => EngineError::Answer { source: error }.unavailable(),
        }
    }
}

/// The end of a container's log in one line, for people.
pub(super) async fn last_words(client: &bollard::Docker, handle: &str) -> String {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LOG_LINES).build();
    let lines = client.logs(handle, Some(options)).map_ok(|line| line.to_string().trim().to_owned());
    match lines.try_collect::<Vec<_>>().await {
        Ok(lines) if lines.is_empty() => "it wrote nothing".to_owned(),
        Ok(lines) => format!("its last words: {}", lines.join(" | ")),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

/// The HTTP status of a refusal.
pub(super) const fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The system's error behind a failed request, where the connection failed and not the engine.
fn cause(error: &ApiError) -> Option<io::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // An error that cannot be cloned, so made anew from what it holds.
            return Some(match io.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(io.kind(), io.to_string()),
            });
        }
        if let Some(http) = error.downcast_ref::<hyper::Error>()
            && (http.is_incomplete_message() || http.is_closed() || http.is_canceled())
        {
            return Some(io::Error::new(io::ErrorKind::ConnectionReset, http.to_string()));
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    /// The causes are told apart without root: a missing socket, and one that nobody listens on.
    #[tokio::test]
    async fn causes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let shown = |error: DriverError| match error {
            DriverError::Unavailable { source, .. } => {
                let engine = source.downcast::<EngineError>().unwrap();
                assert!(StdError::source(&*engine).is_some_and(|cause| cause.is::<io::Error>()));
                format!("{engine:?}").split_whitespace().next().unwrap().to_owned()
            }
            other => format!("{other:?}"),
        };
        assert_eq!(shown(Engine::new(path.clone()).client().await.unwrap_err()), "NoSocket");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(shown(Engine::new(path).client().await.unwrap_err()), "NotRunning");
    }
}
