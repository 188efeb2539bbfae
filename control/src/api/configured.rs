//! What the daemon knows of its configuration, and what it is asked about it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::Timestamp;

/// Where the configuration in force came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From the configuration file.
    #[default]
    File,
    /// The file was wrong when the daemon started; this is what it had accepted last.
    LastAccepted,
}

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationResource {
    /// Rises with each one that is taken, since the daemon started.
    pub revision: u64,
    /// The file.
    pub path: String,
    /// Its text, as it was taken.
    pub text: String,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Where it came from.
    pub origin: Origin,
    /// Keys that have changed and take effect at the next start only.
    pub restart: Vec<String>,
    /// Configurations that were refused since the daemon started.
    pub rejected: u64,
    /// Why the last one was, one line for each fault; empty where the last one was taken.
    pub problems: Vec<String>,
}

/// What the daemon knows of its configuration; written by it alone.
#[derive(Debug, Default)]
pub struct Configuration {
    current: Mutex<ConfigurationResource>,
    rejected: AtomicU64,
}

impl Configuration {
    /// As it is.
    #[must_use]
    pub fn now(&self) -> ConfigurationResource {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ConfigurationResource { rejected: self.rejected(), ..current }
    }

    /// Configurations that were refused.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// One was taken; gives its revision.
    pub fn taken(&self, path: &str, text: String, origin: Origin, restart: Vec<String>, problems: Vec<String>) -> u64 {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = current.revision + 1;
        let (path, taken_at) = (path.to_owned(), Timestamp::now());
        *current = ConfigurationResource { revision, path, text, taken_at, origin, restart, rejected: 0, problems };
        revision
    }

    /// One was refused; the old one stays.
    pub fn refused(&self, problems: Vec<String>) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.current.lock().unwrap_or_else(PoisonError::into_inner).problems = problems;
    }
}

/// An order to the daemon.
#[derive(Debug)]
pub struct ConfigRequest {
    /// The new text; `None` for the file as it is.
    pub text: Option<String>,
    /// Only say what would change.
    pub dry_run: bool,
    /// The revision that it shall replace.
    pub expected: Option<u64>,
    /// Who asks.
    pub by: String,
    /// The way of the answer.
    pub reply: oneshot::Sender<Result<ConfigTaken, ConfigRefusal>>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigTaken {
    /// The revision in force.
    pub revision: u64,
    /// What changed, one sentence each.
    pub changes: Vec<String>,
    /// What needs a restart, one sentence each.
    pub warnings: Vec<String>,
}

/// Why it was not taken; all is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefusal {
    /// Another was taken meanwhile.
    #[error("the configuration has revision {found} now, not {expected}; look at it and give the order again")]
    Changed {
        /// What the giver had seen.
        expected: u64,
        /// What is.
        found: u64,
    },
    /// It is wrong.
    #[error("the configuration is wrong; the old one stays in force")]
    Wrong(Vec<String>),
    /// The file cannot be written.
    #[error("{path}: {reason}; write the file yourself and reload")]
    Write {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The kernel did not take its networks.
    #[error("its networks could not be made: {0}; the old configuration stays in force")]
    Networks(String),
}
