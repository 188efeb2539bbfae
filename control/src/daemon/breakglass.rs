//! `selvedge dataplane verify` and `attach`: with the daemon where one runs, else from configuration, store and pins.

use std::path::Path;
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::{StartError, cookies, terms};
use crate::api::client::{self, ClientError};
use crate::config::{self, AttachMode, Config};
use crate::datapath::audit::Depth;
use crate::datapath::{Datapath, DatapathError, InterfaceStatus, offline};
use crate::dns::Index;
use crate::model::{Snapshot, in_full};
use crate::stop::Stop;
use crate::store::{FILE_NAME, Store, StoreError};

/// Between two glances; what others do is put right within two seconds.
const GLANCE: Duration = Duration::from_secs(1);
/// Glances to a full look: within a minute.
const FULL_EVERY: u32 = 50;

/// Why the command could not do it.
#[derive(Debug, thiserror::Error)]
pub enum BreakGlassError {
    /// The configuration is wrong, or privileges are missing.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The daemon runs and did not answer as it should.
    #[error("{0}")]
    Daemon(#[from] ClientError),
    /// The kernel refused.
    #[error("{}", in_full(.0))]
    Kernel(#[from] DatapathError),
    /// There is no last table.
    #[error("nothing was ever published: start selvedged, or look whether control.state_dir ({0}) is the right one")]
    NoTable(String),
}

impl From<StoreError> for BreakGlassError {
    fn from(error: StoreError) -> Self {
        Self::Start(error.into())
    }
}

impl BreakGlassError {
    /// Exit code: 2 for a wrong configuration, 77 for missing privileges, else 3: it is not known whether anything
    /// differs.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(StartError::Config(_) | StartError::Privileges(_)) => 2,
            _ => 3,
        }
    }
}

/// The last published table of a store, and what answers it.
struct Last {
    config: Config,
    snapshot: Snapshot,
    index: Index,
}

impl Last {
    fn read(config: Config) -> Result<Self, BreakGlassError> {
        let directory = config.control.state_dir.display().to_string();
        let path = config.control.state_dir.join(FILE_NAME);
        let snapshot = Store::open(&path)?.snapshot()?.ok_or(BreakGlassError::NoTable(directory))?;
        let index = Index::new(&snapshot).map_err(StartError::from)?;
        Ok(Self { config, snapshot, index })
    }
}

/// What differs between the kernel and what it was told: one line each. With a daemon it is the daemon that looks, and
/// that has put right what it could; without one nothing is changed.
///
/// # Errors
/// [`BreakGlassError`]; it is then not known whether anything differs.
pub async fn verify(config: &Path) -> Result<Vec<String>, BreakGlassError> {
    let config = config::load(config).map_err(StartError::from)?;
    super::privileges::check(&config).map_err(StartError::from)?;
    match client::audit(&config.control.socket).await {
        Ok(found) => {
            let words = |drift: crate::datapath::audit::DriftReport| {
                let outcome =
                    drift.problem.map_or_else(|| "put right".to_owned(), |problem| format!("stays: {problem}"));
                format!("{} {}: {} ({outcome})", drift.kind, drift.object, drift.what)
            };
            let mut lines: Vec<String> = found.into_iter().map(words).collect();
            let status = client::status(&config.control.socket).await?;
            // What is off for another reason than somebody's hands differs from the configuration all the same.
            for interface in status.interfaces.into_iter().filter(|interface| interface.program_id.is_none()) {
                let why = interface.problem.unwrap_or_else(|| "no program is attached".to_owned());
                lines.push(format!("link {}: {why}", interface.interface));
            }
            return Ok(lines);
        }
        Err(ClientError::Connect { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let Last { config, snapshot, index } = Last::read(config)?;
    let terms = terms(&config, cookies(&config)?);
    Ok(offline::verify(&config.dataplane, &snapshot, &index, &terms)?)
}

/// Attaches the program without the daemon: onto the pinned tables, or, where there are none, with the last table of the
/// store.
///
/// # Errors
/// [`BreakGlassError`].
pub fn attach(
    pin_dir: &Path,
    interface: &str,
    mode: AttachMode,
    config: &Path,
) -> Result<InterfaceStatus, BreakGlassError> {
    if offline::has_tables(pin_dir)? {
        return Ok(offline::attach(pin_dir, interface, mode)?);
    }
    let config = config::load(config).map_err(StartError::from)?;
    let Last { config, snapshot, index } = Last::read(config)?;
    let terms = terms(&config, cookies(&config)?);
    Ok(offline::attach_anew(pin_dir, interface, mode, (&snapshot, &index, &terms))?)
}

/// Looks at the kernel's side until the daemon ends.
pub(super) async fn keep_dataplane(datapath: Datapath, mut stopped: Stop) {
    let mut ticks = interval(GLANCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = stopped.ordered() => return,
            _ = ticks.tick() => {}
        }
        let depth = if looks.is_multiple_of(FULL_EVERY) { Depth::Full } else { Depth::Glance };
        looks = looks.wrapping_add(1);
        block_in_place(|| datapath.look(depth));
    }
}
