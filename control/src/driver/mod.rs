//! Technologies behind one contract. A driver starts, observes and stops instances; it knows nothing
//! of names, tables or other drivers, and its vendor's crate is named in its own module only.

mod cgroup;
pub mod docker;
mod guest;
mod limits;
pub mod unikernel;
pub mod xen;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use guest::{ImageError, ImageFile, ImageSource};

use crate::model::{Guest, InstanceId, OwnerId, PortEnd, PortKind, ServiceName, ServiceSpec, Technology};

/// What an instance may use at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Virtual CPUs: processors' worth of time.
    pub vcpus: f64,
    /// Memory in MiB.
    pub memory_mib: u64,
}

impl Resources {
    /// What each instance of `service` may use.
    #[must_use]
    pub const fn of(service: &ServiceSpec) -> Self {
        Self { vcpus: service.vcpus, memory_mib: service.memory_mib }
    }
}

/// Which limits hold after an instance was to be given others while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resized {
    /// The processor time that was asked for holds.
    pub vcpus: bool,
    /// The memory that was asked for holds. A machine keeps the memory that it was started with.
    pub memory: bool,
}

/// What a driver is asked to start.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceSpec {
    /// The instance.
    pub id: InstanceId,
    /// Mark of ownership.
    pub owner: OwnerId,
    /// The service.
    pub service: ServiceName,
    /// Image, in the technology's own naming: of a unikernel, a file's path or a name.
    pub image: String,
    /// For a unikernel, what its image does not say.
    pub guest: Guest,
    /// What it may use at most.
    pub resources: Resources,
}

impl InstanceSpec {
    /// What `service` asks for, as instance `id`.
    #[must_use]
    pub fn of(service: &ServiceSpec, id: InstanceId, owner: OwnerId) -> Self {
        Self {
            id,
            owner,
            service: service.name.clone(),
            image: service.image.clone(),
            guest: service.guest.clone(),
            resources: Resources::of(service),
        }
    }
}

/// The port of an instance that configures its own interface: what it is told at its start.
#[derive(Debug)]
pub struct Attachment {
    /// Name of the port's interface on the node.
    pub interface: String,
    /// The tap's other end, where the process inherits it.
    pub descriptor: Option<OwnedFd>,
    /// Hardware address of the instance's interface.
    pub mac: [u8; 6],
    /// Its address, the length of the prefix, and the gateway.
    pub v4: Option<(Ipv4Addr, u8, Ipv4Addr)>,
    /// The same for IPv6.
    pub v6: Option<(Ipv6Addr, u8, Ipv6Addr)>,
}

/// An instance that a driver found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The instance.
    pub id: InstanceId,
    /// The driver's own handle, for people and logs (container id).
    pub handle: String,
    /// What its port is joined to; `None` where it does not run.
    pub end: Option<PortEnd>,
    /// Its service, from its mark.
    pub service: String,
}

impl Running {
    /// Its process, where it is one that runs.
    #[must_use]
    pub const fn pid(&self) -> Option<u32> {
        match &self.end {
            Some(PortEnd::Process(pid)) => Some(*pid),
            _ => None,
        }
    }
}

/// What a driver tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverEvent {
    /// An instance of ours ended, by whatever cause.
    Exited {
        /// The instance.
        id: InstanceId,
        /// Exit status or what is known of the cause.
        cause: String,
    },
    /// The engine went away; instances may still run.
    Lost,
    /// The engine is back; a look at [`Driver::list_owned`] is due.
    Back,
    /// Something that was prepared is not there any more: [`Driver::prepare`] is due.
    Unprepared,
}

/// What has come of [`Driver::prepare`].
#[derive(Debug, Default)]
pub struct Preparation {
    /// How many are ready, by service; those that have none are not there.
    pub ready: BTreeMap<ServiceName, u32>,
    /// Why some are not.
    pub failed: Vec<(ServiceName, DriverError)>,
}

/// What one instance uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time since start, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// Why a driver could not do something: operation, object, and whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The technology cannot be reached (engine not running, no permission on its socket).
    #[error("{technology}: not available: {source}")]
    Unavailable {
        /// The technology's label.
        technology: &'static str,
        /// What was met.
        source: BoxError,
    },
    /// The image is not on this node.
    #[error("{technology}: no image {image:?} on this node; load or build it first")]
    NoImage {
        /// The technology's label.
        technology: &'static str,
        /// As it was asked for.
        image: String,
    },
    /// The image is not on this node, and could not be had from its registry.
    #[error(
        "{technology}: no image {image:?} on this node, and pulling it failed, attempts: {attempts}: {source}; is the \
         registry up, and does it have it?"
    )]
    NotFetched {
        /// The technology's label.
        technology: &'static str,
        /// As it was asked for.
        image: String,
        /// How often it was tried.
        attempts: u32,
        /// What was met last.
        source: BoxError,
    },
    /// No instance with that identifier bears our mark.
    #[error("{technology}: no instance {id} of ours")]
    Unknown {
        /// The technology's label.
        technology: &'static str,
        /// As it was asked for.
        id: InstanceId,
    },
    /// The engine refused or failed.
    #[error("{technology}: {operation} {object}: {source}")]
    Failed {
        /// The technology's label.
        technology: &'static str,
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What was met.
        source: BoxError,
    },
}

/// Source of an error of whatever vendor.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl DriverError {
    /// Wraps what went wrong with an object.
    pub(crate) fn failed<E: Into<BoxError>>(
        technology: &'static str,
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(E) -> Self {
        let object = object.to_string();
        move |source| Self::Failed { technology, operation, object, source: source.into() }
    }

    /// Short fixed name: metric label and log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::NoImage { .. } | Self::NotFetched { .. } => "no_image",
            Self::Unknown { .. } => "unknown_instance",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What a driver's calls give.
pub type Result<T> = std::result::Result<T, DriverError>;

/// Takes a sentence for people on how far a fetch is.
pub type FetchProgress<'a> = &'a (dyn Fn(String) + Send + Sync);

/// One technology. All calls are idempotent where the words allow it, and only touch what bears
/// the owner's mark.
pub trait Driver: Send + Sync {
    /// Which technology this is.
    fn technology(&self) -> Technology;

    /// The kind of port that its instances want.
    fn port(&self) -> PortKind;

    /// Whether the technology can be used now; called at start and after [`DriverEvent::Lost`].
    fn check(&self) -> BoxFuture<'_, Result<String>>;

    /// Whether `spec` could be started (its image is there); changes nothing.
    fn validate<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, Result<()>>;

    /// Sees to it that the image is on this node: from the registry that its name begins with, where the technology
    /// can and it is not there. May be dropped at any time; what came so far is of use to the next attempt.
    fn fetch<'a>(&'a self, spec: &'a InstanceSpec, _progress: FetchProgress<'a>) -> BoxFuture<'a, Result<()>> {
        self.validate(spec)
    }

    /// Bytes of the image on this node; `None` where the technology does not tell.
    fn image_bytes<'a>(&'a self, _spec: &'a InstanceSpec) -> BoxFuture<'a, Result<Option<u64>>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// Creates and starts the instance without any network of the technology's own. An instance of ours with
    /// the same identifier that is left from an interrupted start is removed first. Where [`Driver::port`] is none that
    /// is configured from outside, `attachment` says what the instance is to serve on.
    fn start<'a>(&'a self, spec: &'a InstanceSpec, attachment: Option<Attachment>) -> BoxFuture<'a, Result<Running>>;

    /// Has so many instances of each form prepared, whose starts are short then: made as far as they come without an
    /// address. `id` of a form means nothing. What is prepared and not wanted is removed, so that with nothing wanted
    /// nothing is left. They are no instances: no other call tells of them. Nothing is done where the technology cannot.
    fn prepare<'a>(&'a self, _wanted: &'a [(InstanceSpec, u32)]) -> BoxFuture<'a, Result<Preparation>> {
        std::future::ready(Ok(Preparation::default())).boxed()
    }

    /// Stops it, by force after `grace`, and removes it. One that is already gone is a success.
    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, Result<()>>;

    /// Gives a running instance other limits, as far as the technology can: what it cannot is told, not an error.
    /// [`DriverError::Unknown`] where no such instance of ours runs.
    fn resize<'a>(&'a self, _id: &'a InstanceId, _resources: Resources) -> BoxFuture<'a, Result<Resized>> {
        std::future::ready(Ok(Resized::default())).boxed()
    }

    /// All that bears our mark, running or not.
    fn list_owned(&self) -> BoxFuture<'_, Result<Vec<Running>>>;

    /// What each running instance of ours uses.
    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<InstanceId, Usage>>>;

    /// Events from now on; reconnects by itself and says so with [`DriverEvent::Lost`] and [`DriverEvent::Back`].
    fn events(&self) -> BoxStream<'_, DriverEvent>;
}
