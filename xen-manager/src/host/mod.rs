//! One Xen host: domains of one owner are made, watched and ended here.
//!
//! `xl` builds domains and takes them down; the store is spoken to directly. Everything that this owner makes is known
//! by its UUID ([`Uuid::of`]), from the first moment on; what has another is listed by [`Host::list_all`] and never
//! touched. A second handle, or one after a restart, finds what an earlier one has made.

mod assign;
mod create;
mod events;

use std::collections::BTreeMap;
use std::time::Duration;

pub use assign::Assignment;
pub use create::{Creation, Entry};
pub use events::{Event, Events};

use crate::console::Console;
use crate::domain::{Domain, DomainId, DomainState, End};
use crate::error::{Error, Operation};
use crate::identity::{Owner, Uuid};
use crate::store::{Store, StoreError};
use crate::xl::{Row, Xl, XlError};

/// What a host's calls give.
pub type Result<T> = std::result::Result<T, Error>;

/// Where a domain's entries have what we note down of it; guests can read it and not write.
const NOTES: &str = "xen-manager";

/// A domain of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    /// Which.
    pub domain: Domain,
    /// What it is doing and what it uses.
    pub row: Row,
    /// What was noted down of it when it was made; `None` where that was interrupted, and the domain is half-made, or
    /// where it is just being made.
    pub labels: Option<BTreeMap<String, String>>,
}

/// How a domain has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, for this reason.
    Itself(End),
    /// By force, as it did not end in time.
    Forced,
    /// It was not there any more.
    Gone,
}

/// State of one end of a device's connection (`xen/include/public/io/xenbus.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceState {
    /// Not set up.
    Initialising,
    /// The backend waits for the guest.
    Waiting,
    /// The guest waits for the backend.
    Initialised,
    /// Traffic flows.
    Connected,
    /// It ends.
    Closing,
    /// It has ended.
    Closed,
}

impl DeviceState {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "1" => Self::Initialising,
            "2" => Self::Waiting,
            "3" => Self::Initialised,
            "4" => Self::Connected,
            "5" => Self::Closing,
            "6" => Self::Closed,
            _ => return None,
        })
    }
}

/// A Xen host as one owner sees it. A copy is another handle to the same.
#[derive(Debug, Clone)]
pub struct Host {
    store: Store,
    xl: Xl,
    owner: Owner,
}

impl Host {
    /// A handle; nothing is looked at yet.
    #[must_use]
    pub fn new(store: Store, xl: Xl, owner: Owner) -> Self {
        Self { store, xl, owner }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether this is a Xen host whose tools and store work; gives the hypervisor's version.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_unavailable`] where there is no Xen.
    pub async fn check(&self) -> Result<String> {
        self.reach(Operation::Check, "*").await?;
        self.xl.version().await.map_err(xl(Operation::Check, "*"))
    }

    /// All domains of the host, dom0 and others' included.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_all(&self) -> Result<Vec<Row>> {
        self.rows(Operation::Observe).await
    }

    /// All domains of this owner, half-made ones included.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self) -> Result<Vec<Owned>> {
        let mut owned = Vec::new();
        self.reach(Operation::Observe, "*").await?;
        for row in self.rows(Operation::Observe).await? {
            if row.uuid.owner() == Some(self.owner) {
                let domain = Domain { id: row.id, uuid: row.uuid, name: row.name.clone() };
                let labels = self.labels(&domain).await?;
                owned.push(Owned { domain, row, labels });
            }
        }
        Ok(owned)
    }

    /// What the hypervisor says of one domain; `None` where it is gone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn look(&self, domain: &Domain) -> Result<Option<Row>> {
        let rows = self.rows(Operation::Observe).await?;
        Ok(rows.into_iter().find(|row| row.uuid == domain.uuid))
    }

    /// Holds a domain: none of its processors runs until [`Host::unpause`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn pause(&self, domain: &Domain) -> Result<()> {
        self.act(Operation::Pause, domain, &["pause"], &[]).await
    }

    /// Lets a held domain run.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unpause(&self, domain: &Domain) -> Result<()> {
        self.act(Operation::Unpause, domain, &["unpause"], &[]).await
    }

    /// Gives a running domain more or less memory, up to its specification's maximum. The guest's balloon driver gives
    /// it back or takes it; [`Row::memory_mib`] follows.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_memory(&self, domain: &Domain, mib: u32) -> Result<()> {
        self.act(Operation::Resize, domain, &["mem-set"], &[&format!("{mib}m")]).await
    }

    /// Gives a running domain more or fewer processors, up to its specification's maximum. [`Row::vcpus`] follows when
    /// the guest has switched them on or off.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_vcpus(&self, domain: &Domain, count: u32) -> Result<()> {
        self.act(Operation::Resize, domain, &["vcpu-set", "--ignore-host"], &[&count.to_string()]).await
    }

    /// Bounds the processor time of a running domain: `percent` of one processor, 0 for as much as there is.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_cap(&self, domain: &Domain, percent: u32) -> Result<()> {
        let scheduler = self.xl.scheduler().await.map_err(xl(Operation::Resize, domain))?;
        self.expect(Operation::Resize, domain).await?;
        // Each scheduler has a word of its own; only these two know a cap.
        let word = if scheduler == "credit" { "sched-credit" } else { "sched-credit2" };
        let words = [word, "-d", &domain.id.to_string(), "-c", &percent.to_string()];
        self.xl.run(&words).await.map(drop).map_err(xl(Operation::Resize, domain))
    }

    /// Says that the end in dom0 of a network interface is where it belongs: without it the backend does not connect.
    /// What Xen's hotplug scripts say at their end.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn connect_vif(&self, domain: &Domain, index: usize) -> Result<()> {
        self.expect(Operation::Connect, domain).await?;
        let path = format!("{}/hotplug-status", domain.backend(index));
        self.store.write(&path, b"connected").await.map_err(store(Operation::Connect, domain))
    }

    /// State of the end in dom0 of a network interface; `None` where there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn vif_state(&self, domain: &Domain, index: usize) -> Result<Option<DeviceState>> {
        let path = format!("{}/state", domain.backend(index));
        let text = self.store.read_text(&path).await.map_err(store(Operation::Observe, domain))?;
        Ok(text.as_deref().and_then(DeviceState::of))
    }

    /// Waits until traffic can flow over a network interface, which is when the guest's driver has come up.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not within `deadline`; else [`Error`].
    pub async fn vif_connected(&self, domain: &Domain, index: usize, deadline: Duration) -> Result<()> {
        let path = format!("{}/state", domain.backend(index));
        let mut changes = self.store.watch(&path).map_err(store(Operation::Connect, domain))?;
        let wait = async {
            loop {
                changes.changed().await;
                if self.vif_state(domain, index).await? == Some(DeviceState::Connected) {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(done) => done,
            Err(_) => {
                Err(Error::Deadline { operation: Operation::Connect, domain: domain.to_string(), after: deadline })
            }
        }
    }

    /// What a domain says on its console, from its beginning on or from where another has read it to.
    ///
    /// # Errors
    /// [`Error::Deadline`] where there is no console within `deadline`; else [`Error`].
    pub async fn console(&self, domain: &Domain, deadline: Duration) -> Result<Console> {
        const OPERATION: Operation = Operation::Observe;
        let path = format!("{}/console/tty", domain.path());
        let mut changes = self.store.watch(&path).map_err(store(OPERATION, domain))?;
        let wait = async {
            loop {
                changes.changed().await;
                let text = self.store.read_text(&path).await.map_err(store(OPERATION, domain))?;
                if let Some(tty) = text.filter(|tty| !tty.is_empty()) {
                    return Ok(tty);
                }
            }
        };
        let tty = match tokio::time::timeout(deadline, wait).await {
            Ok(tty) => tty?,
            Err(_) => {
                return Err(Error::Deadline { operation: OPERATION, domain: domain.to_string(), after: deadline });
            }
        };
        let console = |source| Error::Console { operation: OPERATION, domain: domain.to_string(), source };
        Console::open(tty.as_ref()).map_err(console)
    }

    /// Asks a domain to power off, ends it by force where it has not within `grace`, and takes it down.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn shutdown(&self, domain: &Domain, grace: Duration) -> Result<Ended> {
        let ended = match tokio::time::timeout(grace, self.power_off(domain)).await {
            Ok(ended) => ended?,
            Err(_) => Ended::Forced,
        };
        self.destroy(domain).await?;
        Ok(ended)
    }

    /// Asks, and waits for the end.
    async fn power_off(&self, domain: &Domain) -> Result<Ended> {
        const OPERATION: Operation = Operation::Shutdown;
        if !self.is_there(OPERATION, domain).await? {
            return Ok(Ended::Gone);
        }
        let mut ends = self.store.watch("@releaseDomain").map_err(store(OPERATION, domain))?;
        let path = format!("{}/control/shutdown", domain.path());
        self.store.write(&path, b"poweroff").await.map_err(store(OPERATION, domain))?;
        loop {
            match self.rows(OPERATION).await?.into_iter().find(|row| row.uuid == domain.uuid) {
                None => return Ok(Ended::Gone),
                Some(Row { end: Some(end), .. }) => return Ok(Ended::Itself(end)),
                Some(Row { state: DomainState::Dying, .. }) => return Ok(Ended::Gone),
                Some(_) => ends.changed().await,
            }
        }
    }

    /// Ends a domain at once and takes it down with its devices; one that is gone is a success.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn destroy(&self, domain: &Domain) -> Result<()> {
        const OPERATION: Operation = Operation::Destroy;
        let mut id = domain.id;
        // It has no entries, or another has them, or the store cannot tell: the hypervisor knows whether it is there.
        if !matches!(self.is_there(OPERATION, domain).await, Ok(true)) {
            match self.rows(OPERATION).await?.into_iter().find(|row| row.uuid == domain.uuid) {
                Some(row) if row.state != DomainState::Dying => id = row.id,
                _ => return Ok(()),
            }
        }
        match self.xl.run(&["destroy", &id.to_string()]).await {
            Ok(_) => Ok(()),
            Err(error @ XlError::Exit { .. }) => {
                let rows = self.rows(OPERATION).await?;
                let there = rows.iter().any(|row| row.uuid == domain.uuid && row.state != DomainState::Dying);
                if there { Err(xl(OPERATION, domain)(error)) } else { Ok(()) }
            }
            Err(error) => Err(xl(OPERATION, domain)(error)),
        }
    }

    /// What happens to this owner's domains from now on.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn events(&self) -> Result<Events> {
        Events::new(self.clone()).await
    }

    /// Whether the store answers. Asked first, for where it has died `xl` waits for it without end.
    async fn reach(&self, operation: Operation, domain: impl ToString) -> Result<()> {
        self.store.list("/local/domain").await.map(drop).map_err(store(operation, domain))
    }

    async fn rows(&self, operation: Operation) -> Result<Vec<Row>> {
        let listed = self.xl.list().await.map_err(xl(operation, "*"))?;
        listed.map_err(|source| Error::Table { operation, source })
    }

    /// What was noted down of a domain.
    async fn labels(&self, domain: &Domain) -> Result<Option<BTreeMap<String, String>>> {
        let notes = format!("{}/{NOTES}", domain.path());
        let keys = match self.store.list(&notes).await {
            Ok(keys) => keys,
            Err(error) if error.is_no_entry() => return Ok(None),
            Err(error) => return Err(store(Operation::Observe, domain)(error)),
        };
        let mut labels = BTreeMap::new();
        for key in keys {
            let path = format!("{notes}/{key}");
            if let Some(value) = self.store.read_text(&path).await.map_err(store(Operation::Observe, domain))? {
                labels.insert(key, value);
            }
        }
        Ok(Some(labels))
    }

    /// Numbers that have entries in the store.
    async fn ids(&self) -> std::result::Result<Vec<DomainId>, StoreError> {
        let names = self.store.list("/local/domain").await?;
        Ok(names.iter().filter_map(|id| id.parse().ok().and_then(DomainId::new)).collect())
    }

    /// The UUID of the domain that has a number now, from its entries.
    async fn uuid_at(&self, path: &str) -> std::result::Result<Option<Uuid>, StoreError> {
        let vm = self.store.read_text(&format!("{path}/vm")).await?;
        Ok(vm.and_then(|vm| vm.strip_prefix("/vm/")?.parse().ok()))
    }

    /// Whether the number is still this domain's.
    async fn is_there(&self, operation: Operation, domain: &Domain) -> Result<bool> {
        let uuid = self.uuid_at(&domain.path()).await.map_err(store(operation, domain))?;
        Ok(uuid == Some(domain.uuid))
    }

    /// That it is, or an error.
    async fn expect(&self, operation: Operation, domain: &Domain) -> Result<()> {
        if self.is_there(operation, domain).await? {
            return Ok(());
        }
        Err(Error::Gone { operation, domain: domain.to_string() })
    }

    /// Has `xl` do something with a domain: its words, the number, more words.
    async fn act(&self, operation: Operation, domain: &Domain, words: &[&str], more: &[&str]) -> Result<()> {
        self.expect(operation, domain).await?;
        let id = domain.id.to_string();
        let all: Vec<&str> = words.iter().copied().chain([id.as_str()]).chain(more.iter().copied()).collect();
        match self.xl.run(&all).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // It may have gone in between.
                self.expect(operation, domain).await?;
                Err(xl(operation, domain)(error))
            }
        }
    }
}

fn xl(operation: Operation, domain: impl ToString) -> impl FnOnce(XlError) -> Error {
    let domain = domain.to_string();
    move |source| Error::Xl { operation, domain, source }
}

fn store(operation: Operation, domain: impl ToString) -> impl FnOnce(StoreError) -> Error {
    let domain = domain.to_string();
    move |source| Error::Store { operation, domain, source }
}
