//! Whether the store can be written: told by the store itself at each write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;

/// A write, as it is told.
#[derive(Debug)]
pub enum Write<'a> {
    /// It is about to begin; the words say which.
    Begins(&'static str),
    /// It is on the disk.
    Done(&'static str),
    /// Nothing of it took effect.
    Failed(&'a StoreError),
}

/// Is called before and after each write, by the thread that writes.
pub type OnWrite = Box<dyn Fn(Write<'_>) + Send + Sync>;

/// How writing goes.
#[derive(Debug, Default)]
pub struct Health {
    done: AtomicU64,
    failed: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Health {
    /// What keeps it up to date.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> OnWrite {
        let health = Arc::clone(self);
        Box::new(move |write| match write {
            Write::Begins(_) => {}
            Write::Done(_) => {
                health.done.fetch_add(1, Ordering::Relaxed);
                health.say(None);
            }
            Write::Failed(error) => {
                health.failed.fetch_add(1, Ordering::Relaxed);
                health.say(Some(error.to_string()));
            }
        })
    }

    /// Writes that are on the disk.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Writes of which nothing took effect.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the last write failed, if it did: decisions are frozen then.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn say(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}
