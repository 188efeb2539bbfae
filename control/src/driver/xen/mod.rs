//! Guests of Xen, paravirtual (PV) and in hardware virtualisation without an emulator (PVH), over `xen_manager`.
//!
//! An instance is a domain. Its UUID begins with the owner's number, and its name holds technology, owner and instance, so
//! it is known as ours whatever happened to the daemon. Its interface comes with it and is joined to the bridge by the
//! caller; no hotplug script is run. Domains may be prepared ahead of their instances ([`pool`]).

mod events;
mod form;
mod pool;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use xen_manager::store::Store;
use xen_manager::{Creation, Domain, DomainKind, Error, Host, Owned, Owner, Xl};

use super::guest::{ImageSource, Images};
use super::{
    Attachment, BoxError, Driver, DriverError, DriverEvent, FetchProgress, InstanceSpec, Preparation, Resized,
    Resources, Result, Running, Usage,
};
use crate::model::{InstanceId, OwnerId, PortEnd, PortKind, Technology};
use form::Form;
use pool::{Offer, Pool};

/// How long the store may take for one answer.
const STORE: Duration = Duration::from_secs(20);
/// How long `xl` may take for one run.
const TOOL: Duration = Duration::from_secs(60);

/// What is noted down of a domain in the store.
const SERVICE: &str = "service";
const MOST_MEMORY: &str = "max-memory-mib";
const VCPUS: &str = "vcpus";

/// How Xen is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `xl`.
    pub program: PathBuf,
    /// The store's Unix socket.
    pub store: PathBuf,
}

/// The driver for one kind of guests.
#[derive(Debug)]
pub struct Xen {
    technology: Technology,
    kind: DomainKind,
    settings: Settings,
    owner: OwnerId,
    number: Owner,
    images: Images,
    pool: Pool,
    /// Made with the first call, for its connection is a task.
    host: OnceLock<Host>,
}

impl Xen {
    /// A driver for instances that `owner` owns; `None` for a technology that is not Xen's. Nothing is started or
    /// looked at yet.
    #[must_use]
    pub fn new(technology: Technology, settings: &Settings, owner: &OwnerId) -> Option<Self> {
        let kind = match technology {
            Technology::XenPv => DomainKind::Pv,
            Technology::XenPvh => DomainKind::Pvh,
            _ => return None,
        };
        // An owner's name is its number of 48 bits in hexadecimal.
        let number = u64::from_str_radix(owner.as_str(), 16).ok().and_then(Owner::new)?;
        let images = Images::new(technology, false);
        let (settings, owner) = (settings.clone(), owner.clone());
        Some(Self { technology, kind, settings, owner, number, images, pool: Pool::new(), host: OnceLock::new() })
    }

    /// The same, with images by name as well as by file.
    #[must_use]
    pub fn with_images(mut self, images: Arc<dyn ImageSource>) -> Self {
        self.images.source = Some(images);
        self
    }

    fn host(&self) -> &Host {
        self.host.get_or_init(|| {
            let xl = Xl { program: self.settings.program.clone(), deadline: TOOL };
            Host::new(Store::new(self.settings.store.clone(), STORE), xl, self.number)
        })
    }

    /// Wraps what went wrong with an object.
    fn failed<E: Into<BoxError>>(
        &self,
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(E) -> DriverError {
        DriverError::failed(self.technology.label(), operation, object)
    }

    /// The same for what Xen says, which may be that it is not there.
    fn refused(&self, operation: &'static str, object: impl ToString) -> impl FnOnce(Error) -> DriverError {
        let (technology, failed) = (self.technology.label(), self.failed(operation, object));
        move |error: Error| {
            if error.is_unavailable() {
                return DriverError::Unavailable { technology, source: error.into() };
            }
            failed(error)
        }
    }

    /// What names of this driver's domains begin with.
    fn prefix(&self) -> String {
        format!("{}-{}-", self.technology.label(), self.owner)
    }

    fn name(&self, id: &InstanceId) -> String {
        format!("{}{id}", self.prefix())
    }

    /// The instance that a domain of that name is; none where it is prepared for one.
    fn instance(&self, name: &str) -> Option<InstanceId> {
        let id = name.strip_prefix(&self.prefix())?;
        InstanceId::new(id).ok().filter(|_| self.number_of(name).is_none())
    }

    /// All domains of this driver's with their instances.
    async fn domains(&self) -> Result<Vec<(InstanceId, Owned)>> {
        let owned = self.host().list().await.map_err(self.refused("list", "domains"))?;
        let ours = |owned: Owned| Some((self.instance(&owned.domain.name)?, owned));
        Ok(owned.into_iter().filter_map(ours).collect())
    }

    async fn find(&self, id: &InstanceId) -> Result<Option<Owned>> {
        Ok(self.domains().await?.into_iter().find(|(found, _)| found == id).map(|(_, owned)| owned))
    }

    fn running(&self, id: InstanceId, domain: &Domain, alive: bool, service: String) -> Running {
        let end = alive.then(|| PortEnd::Interface(domain.interface(0)));
        Running { id, handle: format!("{}-{}", self.technology.label(), domain.id), end, service }
    }

    async fn start_domain(&self, spec: &InstanceSpec, attachment: Option<Attachment>) -> Result<Running> {
        let none = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let attachment = attachment.ok_or_else(none).map_err(self.failed("start without a port", &spec.id))?;
        let image = self.images.check(spec)?;
        let form = Form::of(self.kind, &self.name(&spec.id), spec, &image, &attachment);
        let form = form.map_err(self.failed("configure", &spec.id))?;
        let labels = BTreeMap::from([
            (SERVICE.to_owned(), spec.service.to_string()),
            (MOST_MEMORY.to_owned(), form.domain.max_memory_mib.to_string()),
            (VCPUS.to_owned(), form.domain.vcpus.to_string()),
        ]);
        let creation = Creation { spec: &form.domain, labels, entries: form.entries, paused: false };
        let offer = self.offer(spec, &image, &attachment)?;
        let host = self.host();
        let made = match self.make(&spec.id, &creation, offer.as_ref()).await {
            // Left from an interrupted start, unless it is another's.
            Err(error @ Error::NameTaken { .. }) => match self.find(&spec.id).await? {
                Some(left) => {
                    host.destroy(&left.domain).await.map_err(self.refused("remove what was left of", &spec.id))?;
                    self.make(&spec.id, &creation, offer.as_ref()).await
                }
                None => Err(error),
            },
            made => made,
        };
        let domain = made.map_err(self.refused("start", &spec.id))?;
        // Its frames wait at the interface until that is up, which is for the caller.
        if let Err(error) = host.connect_vif(&domain, 0).await {
            self.remove_half(&domain).await;
            return Err(self.refused("connect", &spec.id)(error));
        }
        Ok(self.running(spec.id.clone(), &domain, true, spec.service.to_string()))
    }

    /// The instance's domain: a prepared one, or a new one.
    async fn make(
        &self,
        id: &InstanceId,
        creation: &Creation<'_>,
        offer: Option<&Offer>,
    ) -> std::result::Result<Domain, Error> {
        if let Some(offer) = offer
            && let Some(domain) = self.take(id, offer, &creation.labels).await?
        {
            return Ok(domain);
        }
        match self.create(creation).await {
            // What is prepared for later is not worth more than what is wanted now.
            Err(Error::NoMemory { .. }) if self.give_up().await => self.create(creation).await,
            made => made,
        }
    }

    /// Makes a domain, with others at a time but not with all.
    async fn create(&self, creation: &Creation<'_>) -> std::result::Result<Domain, Error> {
        // It is never closed.
        let _permit = self.pool.creations.acquire().await;
        self.host().create(creation).await
    }

    /// Removes a domain behind a failure, which is what is told.
    async fn remove_half(&self, domain: &Domain) {
        if let Err(error) = self.host().destroy(domain).await {
            tracing::warn!(%domain, %error, "a domain that is of no use could not be removed");
        }
    }

    async fn stop_domain(&self, id: &InstanceId, grace: Duration) -> Result<()> {
        let Some(owned) = self.find(id).await? else { return Ok(()) };
        let host = self.host();
        // A domain that is held, or has ended, is not asked.
        let ended = if grace.is_zero() || owned.row.end.is_some() {
            host.destroy(&owned.domain).await
        } else {
            host.shutdown(&owned.domain, grace).await.map(drop)
        };
        ended.map_err(self.refused("stop", id))
    }

    async fn resize_domain(&self, id: &InstanceId, resources: Resources) -> Result<Resized> {
        let unknown = || DriverError::Unknown { technology: self.technology.label(), id: id.clone() };
        let owned = self.find(id).await?.filter(|owned| owned.row.state.is_alive()).ok_or_else(unknown)?;
        let label = |name| owned.labels.as_ref().and_then(|labels| labels.get(name)?.parse::<u32>().ok());
        let (host, domain) = (self.host(), &owned.domain);
        let refused = |error| self.refused("resize", id)(error);

        // Its processors are those that it was started with; how much of them it may use is changed.
        let vcpus = form::vcpus(resources.vcpus) <= label(VCPUS).unwrap_or(owned.row.vcpus);
        if vcpus {
            host.set_cap(domain, form::cap(resources.vcpus)).await.map_err(refused)?;
        }
        let mib = form::mib(resources.memory_mib);
        let memory = mib == owned.row.memory_mib || label(MOST_MEMORY).is_some_and(|most| mib <= most);
        if memory && mib != owned.row.memory_mib {
            host.set_memory(domain, mib).await.map_err(refused)?;
        }
        Ok(Resized { vcpus, memory })
    }

    async fn list(&self) -> Result<Vec<Running>> {
        let running = |(id, owned): (InstanceId, Owned)| {
            // Without notes its creation is under way, or was interrupted.
            let alive = owned.row.state.is_alive() && owned.labels.is_some();
            let service = owned.labels.as_ref().and_then(|labels| labels.get(SERVICE).cloned()).unwrap_or_default();
            self.running(id, &owned.domain, alive, service)
        };
        Ok(self.domains().await?.into_iter().map(running).collect())
    }

    async fn read_usage(&self) -> Result<BTreeMap<InstanceId, Usage>> {
        let alive = self.domains().await?.into_iter().filter(|(_, owned)| owned.row.state.is_alive());
        let usage = |owned: &Owned| Usage {
            cpu_ns: u64::try_from(owned.row.cpu.as_nanos()).unwrap_or(u64::MAX),
            memory_bytes: u64::from(owned.row.memory_mib) << 20,
        };
        Ok(alive.map(|(id, owned)| (id, usage(&owned))).collect())
    }
}

impl Driver for Xen {
    fn technology(&self) -> Technology {
        self.technology
    }

    fn port(&self) -> PortKind {
        PortKind::Vif
    }

    fn check(&self) -> BoxFuture<'_, Result<String>> {
        async {
            self.host().check().await.map(|version| format!("Xen {version}")).map_err(self.refused("check", "Xen"))
        }
        .boxed()
    }

    fn validate<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, Result<()>> {
        std::future::ready(self.images.check(spec).map(drop)).boxed()
    }

    fn fetch<'a>(&'a self, spec: &'a InstanceSpec, progress: FetchProgress<'a>) -> BoxFuture<'a, Result<()>> {
        self.images.fetch(spec, progress).boxed()
    }

    fn image_bytes<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, Result<Option<u64>>> {
        std::future::ready(self.images.bytes(spec)).boxed()
    }

    fn start<'a>(&'a self, spec: &'a InstanceSpec, attachment: Option<Attachment>) -> BoxFuture<'a, Result<Running>> {
        self.start_domain(spec, attachment).boxed()
    }

    fn prepare<'a>(&'a self, wanted: &'a [(InstanceSpec, u32)]) -> BoxFuture<'a, Result<Preparation>> {
        self.fill(wanted).boxed()
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        self.stop_domain(id, grace).boxed()
    }

    fn resize<'a>(&'a self, id: &'a InstanceId, resources: Resources) -> BoxFuture<'a, Result<Resized>> {
        self.resize_domain(id, resources).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, Result<Vec<Running>>> {
        self.list().boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<InstanceId, Usage>>> {
        self.read_usage().boxed()
    }

    fn events(&self) -> BoxStream<'_, DriverEvent> {
        events::of(self).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn driver(technology: Technology, settings: &Settings) -> Option<Xen> {
        Xen::new(technology, settings, &OwnerId::from_number(0xbeef))
    }

    #[test]
    fn a_domain_is_known_by_its_name() {
        let settings = Settings { program: "xl".into(), store: "/nonexistent".into() };
        assert!(driver(Technology::Spt, &settings).is_none());
        let (pv, pvh) = (driver(Technology::XenPv, &settings).unwrap(), driver(Technology::XenPvh, &settings).unwrap());
        let id = InstanceId::from_number(7);
        assert_eq!(pv.name(&id), "xen-pv-00000000beef-00000007");
        assert_eq!(pv.instance(&pv.name(&id)), Some(id.clone()));
        assert_eq!(pv.instance(&pvh.name(&id)), None);
        assert_eq!(pvh.instance("xen-pvh-00000000beee-00000007"), None);
        assert_eq!(pv.instance("(null)"), None);
        assert_eq!(pv.instance("xen-pv-00000000beef-pool-7"), None);
        assert_eq!((pv.number_of("xen-pv-00000000beef-pool-7"), pv.number_of(&pv.name(&id))), (Some(7), None));
    }

    /// On a machine without Xen one line says so, and nothing hangs.
    #[tokio::test]
    async fn without_xen_it_is_not_available() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { program: dir.path().join("xl"), store: dir.path().join("socket") };
        let driver = driver(Technology::XenPvh, &settings).unwrap();
        let error = driver.check().await.unwrap_err();
        assert_eq!(error.label(), "unavailable");
        let text = error.to_string();
        assert!(text.starts_with("xen-pvh: not available: ") && text.contains("socket"), "{text}");
        assert!(!text.contains('\n'));
        assert_eq!(driver.list_owned().await.unwrap_err().label(), "unavailable");
    }
}
