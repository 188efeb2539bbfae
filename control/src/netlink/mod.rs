//! Links, addresses and routes through rtnetlink; the only module that names it.
//!
//! Everything made here bears a mark in its interface alias (`IFLA_IFALIAS`):
//! `selvedge:<owner>:<what>`. Only what bears our owner's mark is ever changed or removed.

mod act;
mod bridge;
mod diff;
mod error;
mod forward;
mod forwarding;
mod inside;
mod keeper;
mod link;
pub mod mark;
mod network;
mod nft;
mod port;
mod seen;
mod step;
mod tap;
mod tc;
mod vif;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use bridge::BridgeState;
pub use error::{NetError, Result};
pub use forward::{Forward, Forwards};
pub use keeper::{Keeper, OnPort};
pub use mark::Kind;
pub use network::{BridgeSpec, Network, PortSpec};
pub use port::{BeforeUp, Port, PortCounters};

use crate::model::{InstanceId, NetChange, NetPlan, NetReport, OwnerId, SettingChange, Shaping};
use network::{Wanted, kind_of};

/// A link that bears our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedLink {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// What it is.
    pub kind: Kind,
}

impl OwnedLink {
    /// The instance that it belongs to, if it is a port.
    #[must_use]
    pub const fn instance(&self) -> Option<&InstanceId> {
        match &self.kind {
            Kind::Port(id) => Some(id),
            Kind::Bridge | Kind::Shaper | Kind::Tunnel => None,
        }
    }
}

/// Links, addresses and routes of the network namespace in which it was made.
#[derive(Debug)]
pub struct Net {
    handle: rtnetlink::Handle,
    owner: OwnerId,
    connection: tokio::task::JoinHandle<()>,
    /// What shall be there: the declared networks, and the ports that were made and not deleted.
    wanted: Mutex<Wanted>,
    /// Held while something is looked at and changed, so that nobody judges the half of another's work; and while
    /// something is listed, for the kernel gives one list at a time over a socket (EBUSY).
    changes: tokio::sync::Mutex<()>,
    /// Counts changes of `wanted` that the kernel does not have yet.
    intents: watch::Sender<u64>,
    report: watch::Sender<NetReport>,
    /// Descriptors of the taps that were made here, beside those of the processes that serve them: so that it is not
    /// the end of such a process that has to wait until the kernel has let go of its tap.
    taps: Mutex<BTreeMap<InstanceId, OwnedFd>>,
    /// The table of what is forwarded.
    nft: nft::Nft,
    tally: Mutex<forward::Tally>,
}

impl Net {
    /// Opens a netlink socket in the calling thread's network namespace and serves it with a task of
    /// the current runtime.
    ///
    /// # Errors
    /// [`NetError::Refused`] where the socket cannot be made.
    pub fn new(owner: OwnerId) -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| NetError::Refused {
            operation: "open",
            object: "netlink socket".to_owned(),
            source,
        })?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
            wanted: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
            intents: watch::Sender::new(0),
            report: watch::Sender::new(NetReport::new(owner.clone())),
            taps: Mutex::default(),
            tally: Mutex::default(),
            nft: nft::Nft::open(mark::table_name(&owner)),
            owner,
        })
    }

    /// Whose mark is set and looked for.
    #[must_use]
    pub const fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// The index of an interface, marked or not.
    ///
    /// # Errors
    /// [`NetError::Refused`]; that there is none is not an error.
    pub async fn index_of(&self, name: &str) -> Result<Option<u32>> {
        Ok(link::find(&self.handle, name).await?.map(|link| link.index))
    }

    /// All that bears our mark.
    ///
    /// # Errors
    /// [`NetError::Refused`].
    pub async fn list_owned(&self) -> Result<Vec<OwnedLink>> {
        let _changes = self.changes.lock().await;
        let links = link::all(&self.handle).await?;
        let owned = links.into_iter().filter_map(|link| {
            let kind = self.kind_of(&link)?;
            Some(OwnedLink { name: link.name, index: link.index, kind })
        });
        Ok(owned.collect())
    }

    /// Puts node-wide settings back as they were before [`Net::ensure_bridge`] changed them.
    ///
    /// # Errors
    /// [`NetError::Setting`], the first one; the others are tried all the same.
    pub fn restore(&self, changes: &[SettingChange]) -> Result<()> {
        forwarding::restore(changes)
    }

    /// What `declare` would do now, and what it could not mend.
    ///
    /// # Errors
    /// [`NetError`] where the kernel cannot be read.
    pub async fn plan(&self, network: &Network) -> Result<NetPlan> {
        let mut wanted = self.wanted().clone();
        let before = uplinks(&wanted);
        wanted.network = network.clone();
        let _changes = self.changes.lock().await;
        let seen = seen::look(&self.handle, &self.owner, &wanted).await?;
        let diff = diff::diff(&self.owner, &wanted, &seen, &before);
        Ok(NetPlan {
            changes: diff.steps.iter().map(step::Step::change).collect(),
            hazards: diff.hazards.into_iter().map(|h| h.text).collect(),
        })
    }

    /// Makes these the declared networks: all is validated, then done; after a failure what was done is taken back, newest
    /// first, and the networks declared before stay.
    ///
    /// # Errors
    /// [`NetError::Blocked`] where something of another's is in the way, else what the kernel said.
    pub async fn declare(&self, network: Network) -> Result<NetPlan> {
        for bridge in &network.bridges {
            bridge::validate(bridge)?;
        }
        let _changes = self.changes.lock().await;
        let mut wanted = self.wanted().clone();
        let before = uplinks(&wanted);
        wanted.network = network;
        let seen = seen::look(&self.handle, &self.owner, &wanted).await?;
        let diff = diff::diff(&self.owner, &wanted, &seen, &before);
        let blocked: Vec<String> = diff.hazards.iter().filter(|h| h.blocks).map(|h| h.text.clone()).collect();
        if !blocked.is_empty() {
            return Err(NetError::Blocked { by: blocked.join("; ") });
        }
        self.carry_out(&diff.steps, &seen).await?;
        let network = wanted.network;
        self.wanted().network = network;
        self.publish();
        Ok(NetPlan {
            changes: diff.steps.iter().map(step::Step::change).collect(),
            hazards: diff.hazards.into_iter().map(|h| h.text).collect(),
        })
    }

    /// Makes the declared networks so once more, as [`Net::declare`] does.
    ///
    /// # Errors
    /// As [`Net::declare`].
    pub async fn redeclare(&self) -> Result<NetPlan> {
        let network = self.wanted().network.clone();
        self.declare(network).await
    }

    /// What [`Net::release`] would remove.
    ///
    /// # Errors
    /// [`NetError`] where the kernel cannot be read.
    pub async fn released(&self) -> Result<Vec<NetChange>> {
        let _changes = self.changes.lock().await;
        let steps = self.release_steps().await?;
        Ok(steps.iter().map(step::Step::change).collect())
    }

    /// Removes everything that bears our mark but bridges and ports: tunnels, routes, shaping, forwards.
    ///
    /// # Errors
    /// [`NetError`], the first one; the rest is tried all the same.
    pub async fn release(&self) -> Result<Vec<NetChange>> {
        let _changes = self.changes.lock().await;
        let steps = self.release_steps().await?;
        let mut first = Ok(());
        for step in &steps {
            let done = self.execute(step).await;
            first = first.and(done);
        }
        first.map(|()| steps.iter().map(step::Step::change).collect())
    }

    async fn release_steps(&self) -> Result<Vec<step::Step>> {
        let seen = seen::look(&self.handle, &self.owner, &Wanted::default()).await?;
        let mut steps = diff::release(&self.owner, &seen);
        // A kernel without nf_tables has no table of ours either.
        let forwards = self.nft.read().ok().flatten().map(|_| step::Step::Forward(nft::Change::Remove));
        steps.extend(forwards);
        Ok(steps)
    }

    /// Makes these the declared networks without trying; [`Keeper`] then does what can be done. For the start, where one
    /// thing that is in the way must not keep the rest.
    pub fn intend(&self, network: Network) {
        self.wanted().network = network;
        self.publish();
        self.intents.send_modify(|count| *count += 1);
    }

    /// How fast the instances may send and receive from now on. Ports that are not named here keep what they have.
    pub fn reshape(&self, shapings: &BTreeMap<InstanceId, Option<Shaping>>) {
        let mut changed = false;
        for (id, port) in &mut self.wanted().ports {
            if let Some(shaping) = shapings.get(id)
                && port.spec.shaping != *shaping
            {
                port.spec.shaping = *shaping;
                changed = true;
            }
        }
        if changed {
            self.publish();
            self.intents.send_modify(|count| *count += 1);
        }
    }

    /// What is forwarded from now on; [`Keeper`] does it. Until this was said for the first time, what an earlier run of
    /// the daemon left is kept as it is.
    pub fn forward(&self, forwards: Forwards) {
        let mut wanted = self.wanted();
        if wanted.forwards.as_ref() != Some(&forwards) {
            wanted.forwards = Some(forwards);
            drop(wanted);
            self.intents.send_modify(|count| *count += 1);
        }
    }

    /// What is known of the networks, kept up to date.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<NetReport> {
        self.report.subscribe()
    }

    /// Writes down what is wanted.
    fn publish(&self) {
        let wanted = self.wanted().clone();
        self.report.send_modify(|report| wanted.report(report));
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        // Whoever panicked with it has only replaced whole values.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `link` is, if it is ours.
    fn kind_of(&self, link: &link::Link) -> Option<Kind> {
        kind_of(&self.owner, link)
    }

    /// The link of that name if it is ours and of that kind; [`NetError::Foreign`] if it is another's.
    async fn find_ours(&self, operation: &'static str, name: &str, kind: &Kind) -> Result<Option<link::Link>> {
        let Some(link) = link::find(&self.handle, name).await? else { return Ok(None) };
        if self.kind_of(&link).as_ref() == Some(kind) {
            return Ok(Some(link));
        }
        Err(NetError::Foreign {
            operation,
            object: name.to_owned(),
            alias: link.alias.unwrap_or_default(),
            expected: mark::alias(&self.owner, kind),
        })
    }
}

/// Interfaces of others that are shaped now.
fn uplinks(wanted: &Wanted) -> Vec<String> {
    wanted.network.uplinks.iter().map(|u| u.interface.clone()).collect()
}

impl Drop for Net {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
