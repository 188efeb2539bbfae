//! Loads, attaches and pins the XDP program; typed tables in, counters out. The only crate that knows
//! aya: everything public is in types of this crate and of `xdp-balancer-common`.
//!
//! # Data flow
//!
//! ```text
//! Table ─check─> Checked ─plan(Installed)─> Plan ─publish─> POOL
//!                                                                  │ read by the program
//!                              Counters <─sum─ VERDICTS, SERVICES, FLOWS
//! ```
//!
//! [`Table`] is whole: what it does not name is no longer answered. It is checked first ([`Error::Invalid`],
//! nothing touched), then a pure planner compares it with what is installed and lists the writes. Free
//! grains of the pool are filled, then one word per changed RRset is stored or, if the names changed, the one that
//! says where the table of names is. Names that hold one [`Ring`] share it in the kernel too. Grains that were given
//! up are not written again before all programs that could read them have ended; that is waited for only when
//! the space is needed.
//!
//! # Ownership and the life of pins
//!
//! One process at a time holds a [`Dataplane`], guarded by a lock on the pin directory. The kernel's
//! things do not belong to it: maps are pinned when they are created, links when they are attached, and
//! dropping the [`Dataplane`] closes descriptors only, so answers go on from the last tables. Opening
//! again adopts the maps if their shape is what this version expects (never reinterpreting: another
//! layout has another directory), reads back what is installed, and loads this version's program;
//! [`Dataplane::attach`] then puts it into the existing link, without a moment in which packets meet no
//! program. [`detach`] and [`remove_all`] undo everything and need no daemon.
//!
//! An attachment is one link per interface, pinned as `links/<interface>`. A program that is not ours is
//! never replaced ([`Error::Foreign`]). Counting filters ([`Dataplane::count_flows`]) sit on interfaces
//! that we made and go with them.

mod adopt;
mod attach;
mod audit;
mod bare;
#[cfg(feature = "bench")]
pub mod bench;
mod capture;
mod carried;
mod connections;
mod costs;
mod counters;
mod dataplane;
mod drift;
mod error;
mod explain;
mod fill;
pub mod frames;
mod guard;
mod hook;
mod log;
mod maps;
mod mode;
mod netlink;
mod object;
mod pins;
mod plan;
mod publish;
mod runs;
mod slots;
mod sys;
mod table;
mod tails;
mod takeover;
#[cfg(feature = "testing")]
pub mod testing;
mod transit;
mod verify;

pub use attach::{Pinned, attach_pass, detach, remove_all, show};
pub use capture::{Capture, CaptureRules, CaptureTotals, CapturedFrame, CapturedQuery};
pub use connections::OpenConnection;
pub use costs::Costs;
pub use counters::Counters;
pub use dataplane::{Dataplane, Options, RunAction, RunResult};
pub use drift::{Drift, DriftKind, Mended};
pub use error::{Error, Problem};
pub use explain::{Explained, Explainer};
pub use fill::Fill;
pub use guard::{Freshness, Limits, Prefix, Rules, Stale, Top, top};
pub use hook::{Attachment, verified_instructions};
pub use log::{KernelLog, log_level, set_log_level};
pub use maps::Sizes;
pub use mode::{AttachedMode, Mode};
pub use publish::Published;
pub use table::{Below, Name, Rendered, Ring, Rrset, Table};
pub use transit::{EgressBy, MAX_TRANSIT_INTERFACES, PinnedTransit, TransitPlace, verify_transit};
pub use verify::{attach, has_tables, program_on, running, verify};
pub use xdp_balancer_common::{Action, FlowCount, LogLevel, ServiceCount, TransitHook, TransitVerdict, Verdict};
