//! The operator half: makes this node what [`Desired`](crate::model::Desired) says and reports what is.
//!
//! One task, [`Operator`], owns all instance states; nothing else writes them. Work that takes time
//! (starting, probing, draining) runs in one task per instance that reports by [`Event`] and holds no
//! state of its own, so a restart of the daemon can take up any of it from store, engine and links.

mod adopt;
mod back_off;
mod bring_up;
mod cause;
mod decide;
mod drain;
#[cfg(test)]
mod fixtures;
mod forward;
#[cfg(test)]
mod frozen_tests;
mod health;
mod hold;
mod idle;
mod late;
mod lifecycle;
mod operator;
mod prepare;
mod probe;
mod publish;
mod resize;
mod served;
mod short_ttl;
#[cfg(test)]
mod short_ttl_tests;
mod summon;
mod take_down;
mod tell;
mod view;
mod weights;
mod world;

pub use bring_up::attachment;
pub use decide::{Action, InstanceView, ServiceView, decide};
pub use hold::{HoldError, Rollback, RolledBack};
pub use operator::{Command, Operator, OperatorChannels};
pub use probe::{Probe, ProbeError};
pub use view::{DrainReport, InstanceReport, LeftReport, OperatorView, ProbeReport, TechnologyReport};
pub use world::World;

use std::time::Duration;

use crate::driver::{DriverEvent, Resized};
use crate::model::{InstanceId, InstanceState, Technology, WindowReport};

/// An address rests this long behind the largest TTL before another instance may get it.
const QUARANTINE_GRACE: Duration = Duration::from_secs(1);

/// What the operator's helpers tell it.
#[derive(Debug)]
enum Event {
    /// A start reached the next state.
    Advanced { id: InstanceId, to: InstanceState, reason: String, handle: Option<String> },
    /// A probe was answered, or not.
    Probed { id: InstanceId, report: ProbeReport },
    /// A serving instance has missed probes, and why, or answers them again.
    Unwell { id: InstanceId, why: Option<String> },
    /// A start failed and was undone, or a serving instance stopped answering.
    Failed { id: InstanceId, reason: String },
    /// A drain has come so far.
    Draining { id: InstanceId, report: DrainReport },
    /// Nothing of the instance is left, or its removal failed and will be tried again.
    TakenDown { id: InstanceId, outcome: take_down::Outcome },
    /// A running instance was given other limits, or could not be.
    Resized { id: InstanceId, outcome: Result<Resized, String> },
    /// A technology has prepared what it was asked for, or could not look.
    Prepared { technology: Technology, outcome: Result<prepare::Prepared, String> },
    /// A technology told something by itself.
    Driver { technology: Technology, event: DriverEvent },
    /// A counting period was closed.
    Window(WindowReport),
}
