//! Another configuration while the daemon runs: by signal or over the API, all of it or nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tracing::{error, info, warn};

use super::accepted::{keep, write_whole};
use super::network;
use crate::api::{ConfigRefusal, ConfigRequest, ConfigTaken, Configuration, Origin};
use crate::config::{self, Config, ConfigDiff, ConfigErrors};
use crate::datapath::Datapath;
use crate::dns::Policy;
use crate::model::{Guard, in_full};
use crate::netlink::{Net, NetError};
use crate::reconcile::Command;

/// What is needed to change the configuration.
pub(super) struct Reloader {
    pub path: PathBuf,
    pub current: watch::Sender<Arc<Config>>,
    pub commands: mpsc::Sender<Command>,
    pub net: Arc<Net>,
    pub known: Arc<Configuration>,
    pub datapath: Datapath,
    pub policy: watch::Sender<Arc<Policy>>,
}

/// A configuration that has been read and compared.
struct Candidate {
    text: String,
    fresh: Config,
    diff: ConfigDiff,
}

impl Reloader {
    /// Takes the file as it is, after a signal.
    pub async fn signalled(&self) {
        if let Err(refusal) = self.take(None, false, None).await {
            if let ConfigRefusal::Wrong(problems) = &refusal {
                problems.iter().for_each(|problem| error!("{problem}"));
            }
            error!(%refusal, "the configuration was not taken");
        }
    }

    /// Does what was asked over the API.
    pub async fn asked(&self, request: ConfigRequest) {
        let ConfigRequest { text, dry_run, expected, by, reply } = request;
        let outcome = self.take(text, dry_run, expected).await;
        match &outcome {
            Ok(taken) => info!(by, dry_run, revision = taken.revision, "configuration asked for"),
            Err(refusal) => warn!(by, dry_run, %refusal, "configuration refused"),
        }
        // Who does not wait any more has gone away; it holds all the same.
        drop(reply.send(outcome));
    }

    async fn take(
        &self,
        text: Option<String>,
        dry_run: bool,
        expected: Option<u64>,
    ) -> Result<ConfigTaken, ConfigRefusal> {
        let found = self.known.now().revision;
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ConfigRefusal::Changed { expected, found });
        }
        let write = text.is_some();
        let candidate = block_in_place(|| self.read(text)).map_err(|errors| {
            let problems: Vec<String> = errors.list().iter().map(ToString::to_string).collect();
            if !dry_run {
                self.known.refused(problems.clone());
            }
            ConfigRefusal::Wrong(problems)
        })?;
        let (changes, warnings) = self.in_words(&candidate);
        if dry_run {
            return Ok(ConfigTaken { revision: found, changes, warnings });
        }
        let before = if write { Some(block_in_place(|| self.write(&candidate.text))?) } else { None };
        match self.put_in_force(candidate).await {
            Ok(revision) => Ok(ConfigTaken { revision, changes, warnings }),
            Err(error) => {
                let reason = in_full(&error);
                self.known.refused(vec![reason.clone()]);
                if let Some(before) = before
                    && let Err(error) = block_in_place(|| self.write(&before))
                {
                    error!(%error, "the file holds what was refused");
                }
                Err(ConfigRefusal::Networks(reason))
            }
        }
    }

    fn read(&self, text: Option<String>) -> Result<Candidate, ConfigErrors> {
        let text = text.map_or_else(|| config::read(&self.path), Ok)?;
        let fresh = config::parse(&text, &self.path.display().to_string())?;
        let diff = config::diff(&self.current.borrow(), &fresh);
        Ok(Candidate { text, fresh, diff })
    }

    /// Writes the file; gives what was there.
    fn write(&self, text: &str) -> Result<String, ConfigRefusal> {
        let failed = |error: std::io::Error| ConfigRefusal::Write {
            path: self.path.display().to_string(),
            reason: error.to_string(),
        };
        let before = std::fs::read_to_string(&self.path).map_err(failed)?;
        let mode = std::fs::metadata(&self.path).map_err(failed)?.permissions().mode() & 0o777;
        write_whole(&self.path, text, mode).map_err(failed)?;
        Ok(before)
    }

    fn in_words(&self, Candidate { diff, fresh, .. }: &Candidate) -> (Vec<String>, Vec<String>) {
        let mut changes: Vec<String> = diff.added.iter().map(|name| format!("service {name} is new")).collect();
        changes.extend(diff.removed.iter().map(|name| format!("service {name} goes")));
        for change in &diff.changed {
            let also = if change.replaces_instances { "; new instances have it" } else { "" };
            changes.push(format!("service {}: {}{also}", change.name, change.keys.join(", ")));
        }
        changes.extend(diff.live.iter().map(|key| format!("{key} changes")));
        let mut warnings: Vec<String> =
            diff.restart.iter().map(|key| format!("{key} takes effect at the next restart only")).collect();
        let in_use = self.current.borrow().technologies_in_use();
        warnings.extend(fresh.technologies_in_use().difference(&in_use).map(|technology| {
            format!("{} is used for the first time; its services start at the next restart", technology.label())
        }));
        (changes, warnings)
    }

    /// Both sides that answer go by the same rules.
    fn guard(&self, guard: &Guard) {
        if self.policy.borrow().guard == *guard {
            return;
        }
        block_in_place(|| self.datapath.set_guard(guard));
        self.policy.send_modify(|policy| Arc::make_mut(policy).guard = guard.clone());
    }

    /// Makes it so; gives its revision.
    async fn put_in_force(&self, candidate: Candidate) -> Result<u64, NetError> {
        let (_, warnings) = self.in_words(&candidate);
        warnings.iter().for_each(|warning| warn!("{warning}"));
        let Candidate { text, fresh, diff } = candidate;
        let old = self.current.borrow().clone();
        // What needs a restart keeps its old value, so that the parts do not disagree about it.
        let fresh = Arc::new(fresh.with_fixed_of(&old));
        // First, for only here the kernel can still refuse.
        redeclare(&self.net, &old, &fresh).await?;
        info!(?diff, "configuration taken");
        if let Err(error) = block_in_place(|| keep(&fresh.control.state_dir, &text)) {
            warn!(%error, "the configuration could not be kept; a start with a wrong file goes on with an older one");
        }
        let restart = diff.restart.iter().map(|key| (*key).to_owned()).collect();
        let revision = self.known.taken(&self.path.display().to_string(), text, Origin::File, restart, Vec::new());
        self.guard(&fresh.dataplane.guard);
        block_in_place(|| self.datapath.set_transit(&fresh.dataplane.transit));
        self.current.send_replace(Arc::clone(&fresh));
        if self.commands.send(Command::Reload(fresh)).await.is_err() {
            warn!("the operator has ended; the configuration takes effect at the next start");
        }
        Ok(revision)
    }
}

/// Changes the declared networks, where they differ. The bridges are those that the daemon has.
async fn redeclare(net: &Net, old: &Config, new: &Config) -> Result<(), NetError> {
    let technologies = old.technologies_in_use();
    let (before, after) =
        (network::network(old, technologies.iter().copied()), network::network(new, technologies.iter().copied()));
    if before == after {
        return Ok(());
    }
    let done = net.declare(after).await?;
    for change in done.changes {
        info!(object = change.object, name = change.name, what = change.what, "network");
    }
    Ok(())
}
