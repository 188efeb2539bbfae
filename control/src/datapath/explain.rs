//! What the program in the kernel would do with a frame: from its pins alone, and without a trace.

use std::net::IpAddr;
use std::path::Path;

use xdp_balancer::RunAction;
use xdp_balancer_common::Verdict;

use super::DatapathError;

/// The program on the live tables.
pub struct Explainer(xdp_balancer::Explainer);

/// What it did with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Why.
    pub verdict: Verdict,
    /// What the kernel was told.
    pub action: RunAction,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Generation of the tables.
    pub generation: u64,
}

impl Ran {
    /// `answered`, `passed`, or the number of another XDP action.
    #[must_use]
    pub fn action_label(&self) -> String {
        match self.action {
            RunAction::Answer => "answered".to_owned(),
            RunAction::Pass => "passed".to_owned(),
            RunAction::Other(number) => format!("XDP action {number}"),
        }
    }

    /// Whether the frame goes back out.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        matches!(self.action, RunAction::Answer)
    }
}

impl Explainer {
    /// Opens what is pinned there.
    ///
    /// # Errors
    /// [`DatapathError`] where nothing is, or not by this version, or without the right to.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        Ok(Self(xdp_balancer::Explainer::open(pin_dir)?))
    }

    /// Addresses that queries are answered for; none where all are.
    ///
    /// # Errors
    /// [`DatapathError`] where the settings cannot be read.
    pub fn local(&self) -> Result<Vec<IpAddr>, DatapathError> {
        Ok(self.0.local()?)
    }

    /// Runs a frame of 14 to about 3,500 bytes.
    ///
    /// # Errors
    /// [`DatapathError`] where the kernel refuses.
    pub fn run(&self, frame: &[u8]) -> Result<Ran, DatapathError> {
        let xdp_balancer::Explained { verdict, action, frame, generation } = self.0.run(frame)?;
        Ok(Ran { verdict, action, frame, generation })
    }
}
