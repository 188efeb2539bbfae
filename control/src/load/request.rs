//! One request from lookup to last byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::LoadError;
use super::fetch::{FetchError, Fetched, Progress, fetch, host};
use super::lookup::{LookupError, TRIES, lookup};
use super::options::{Family, LoadOptions};
use super::report::{Failure, RequestRecord, Stage};
use crate::dns::client::Question;
use crate::dns::{TYPE_A, TYPE_AAAA};
use crate::model::Timestamp;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// As many as allowed were under way.
    #[error("not begun: {most} requests are under way")]
    Overload {
        /// How many.
        most: u32,
    },
    /// In DNS.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// In HTTP.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its time was over.
    #[error("not done after {after:?}")]
    Timeout {
        /// The time it had.
        after: Duration,
    },
}

impl RequestError {
    /// Short fixed name: key in reports.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Overload { .. } => "overload",
            Self::Lookup(error) => error.label(),
            Self::Fetch(error) => error.label(),
            Self::Timeout { .. } => "timeout",
        }
    }
}

/// The record of a request that was not begun because `most` are under way.
pub(super) fn overloaded(window: usize, most: u32) -> RequestRecord {
    let mut record = empty(window);
    let error = RequestError::Overload { most };
    record.failure = Some(failure(record.at, Stage::Start, &error));
    record
}

fn empty(window: usize) -> RequestRecord {
    RequestRecord {
        window,
        at: Timestamp::now(),
        instance: None,
        lookup_ms: None,
        response_ms: None,
        download_ms: None,
        bytes: None,
        dns_lost: 0,
        dns_over_tcp: false,
        failure: None,
    }
}

fn failure(at: Timestamp, stage: Stage, error: &RequestError) -> Failure {
    Failure { at, stage, kind: error.label().to_owned(), error: error.to_string() }
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// What every request shares.
pub(super) struct Client {
    questions: Vec<Question>,
    servers: Vec<SocketAddr>,
    host: String,
    port: u16,
    path: String,
    timeout: Duration,
    dns_timeout: Duration,
}

impl Client {
    pub(super) fn new(options: &LoadOptions) -> Result<Self, LoadError> {
        let types: &[u16] = match options.family {
            Family::A => &[TYPE_A],
            Family::Aaaa => &[TYPE_AAAA],
            Family::Both => &[TYPE_A, TYPE_AAAA],
        };
        let questions = types.iter().map(|qtype| Question::new(&options.name, *qtype)).collect::<Result<_, _>>()?;
        if !options.path.starts_with('/') || options.path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(LoadError::Path { path: options.path.clone() });
        }
        Ok(Self {
            questions,
            servers: options.servers.clone(),
            host: host(&options.name, options.port),
            port: options.port,
            path: options.path.clone(),
            timeout: options.timeout,
            dns_timeout: options.dns_timeout,
        })
    }

    /// One request from lookup to last byte, within its time.
    pub(super) async fn request(self: Arc<Self>, window: usize, number: usize) -> RequestRecord {
        let mut record = empty(window);
        let deadline = Instant::now() + self.timeout;
        let stage = AtomicU8::new(Stage::Lookup as u8);
        let attempt = self.attempt(number, &mut record, &stage);
        let outcome = match timeout_at(deadline, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RequestError::Timeout { after: self.timeout }),
        };
        match outcome {
            Ok(fetched) => {
                record.response_ms = Some(millis(fetched.response));
                record.download_ms = Some(millis(fetched.download));
                record.bytes = Some(fetched.bytes);
            }
            Err(error) => {
                let reached = stage.load(Ordering::Relaxed);
                let stages = [Stage::Lookup, Stage::Connect, Stage::Response, Stage::Download];
                let stage = stages.into_iter().find(|stage| *stage as u8 == reached).unwrap_or(Stage::Start);
                record.failure = Some(failure(record.at, stage, &error));
            }
        }
        record
    }

    async fn attempt(
        &self,
        number: usize,
        record: &mut RequestRecord,
        stage: &AtomicU8,
    ) -> Result<Fetched, RequestError> {
        let start = Instant::now();
        let question = &self.questions[number % self.questions.len()];
        let found = lookup(question, &self.servers, number, self.dns_timeout).await;
        if let Err(LookupError::NoReply { .. }) = found {
            record.dns_lost = TRIES;
        }
        let found = found?;
        record.lookup_ms = Some(millis(start.elapsed()));
        record.dns_lost = found.lost;
        record.dns_over_tcp = found.over_tcp;
        record.instance = found.addresses.first().copied();
        // As a stub resolver's caller does: the first address, and no other.
        let address = SocketAddr::new(found.addresses[0], self.port);
        stage.store(Stage::Connect as u8, Ordering::Relaxed);
        let progress = |progress| {
            let next = match progress {
                Progress::Connected => Stage::Response,
                Progress::Responded => Stage::Download,
            };
            stage.store(next as u8, Ordering::Relaxed);
        };
        Ok(fetch(address, &self.host, &self.path, progress).await?)
    }
}
