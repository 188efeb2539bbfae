//! Unikernels: each a process of a monitor (Solo5's tenders, QEMU, Firecracker) that serves on a tap.
//!
//! An instance is a control group and a directory, both named by owner and instance. What is in the group is the
//! instance, so one is found again whatever happened to the daemon; what bears another owner's name is never touched.

mod launch;
mod process;
mod record;
mod spawn;
mod vmm;
mod watch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::Signal;

use super::cgroup::Cgroup;
use super::guest::{ImageFile, ImageSource, Images};
use super::limits::{Group, Hierarchies, Limits};
use super::{
    Attachment, BoxError, Driver, DriverError, DriverEvent, FetchProgress, InstanceSpec, Resized, Resources, Result,
    Running, Usage,
};
use crate::model::{InstanceId, OwnerId, PortEnd, PortKind, TapUse, Technology};
use process::{Process, User};
use record::{Record, Records};
use vmm::Vmm;
use watch::Watches;

/// How long a process may take to be gone once it has been killed.
const KILLED: Duration = Duration::from_secs(10);
/// Longest wait for a monitor to say its version.
const VERSION: Duration = Duration::from_secs(10);

/// How a technology's monitor is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The monitor's program.
    pub program: PathBuf,
    /// QEMU's accelerator: `tcg` or `kvm`.
    pub accelerator: String,
    /// Name of the user that it runs as.
    pub user: String,
    /// Where instances' directories are.
    pub directory: PathBuf,
}

/// The driver for one monitor.
#[derive(Debug)]
pub struct Unikernel {
    vmm: &'static Vmm,
    settings: Settings,
    owner: OwnerId,
    records: Records,
    watches: Watches,
    images: Images,
    /// Where control groups are made; nobody mounts them anew under a running system.
    hierarchies: OnceLock<Hierarchies>,
}

impl Unikernel {
    /// A driver for instances that `owner` owns; `None` for a technology that runs no unikernels. Nothing is started
    /// or looked at yet.
    #[must_use]
    pub fn new(technology: Technology, settings: Settings, owner: OwnerId) -> Option<Self> {
        let vmm = vmm::of(technology)?;
        let records = Records::new(&settings.directory, &owner, technology);
        Some(Self {
            vmm,
            settings,
            owner,
            records,
            watches: Watches::default(),
            images: Images::new(technology, vmm.wants_elf),
            hierarchies: OnceLock::new(),
        })
    }

    /// The same, with images by name as well as by file.
    #[must_use]
    pub fn with_images(mut self, images: Arc<dyn ImageSource>) -> Self {
        self.images.source = Some(images);
        self
    }

    const fn label(&self) -> &'static str {
        self.vmm.technology.label()
    }

    /// Wraps what went wrong with an object.
    fn failed<E: Into<BoxError>>(
        &self,
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(E) -> DriverError {
        DriverError::failed(self.label(), operation, object)
    }

    fn unavailable(&self, what: String, kind: io::ErrorKind) -> DriverError {
        DriverError::Unavailable { technology: self.label(), source: io::Error::new(kind, what).into() }
    }

    fn group(&self, id: &InstanceId) -> Result<Group> {
        let found = match self.hierarchies.get() {
            Some(found) => found,
            None => {
                let found = Hierarchies::find().map_err(self.failed("find", "control groups"))?;
                self.hierarchies.get_or_init(|| found)
            }
        };
        Ok(found.group(self.owner.as_str(), &format!("{}-{id}", self.label())))
    }

    /// Whom the monitor runs as.
    fn user(&self) -> Result<User> {
        let name = &self.settings.user;
        let found = nix::unistd::User::from_name(name).map_err(self.failed("look up user", name))?;
        let found =
            found.ok_or_else(|| self.unavailable(format!("there is no user {name:?}"), io::ErrorKind::NotFound))?;
        Ok(User { user: found.uid.as_raw(), group: found.gid.as_raw() })
    }

    async fn version(&self) -> Result<String> {
        let program = self.settings.program.display();
        let asked = tokio::process::Command::new(&self.settings.program).arg("--version").kill_on_drop(true).output();
        let output = match tokio::time::timeout(VERSION, asked).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(self.unavailable(format!("{program}: {error}"), error.kind())),
            Err(_) => return Err(self.unavailable(format!("{program} does not answer"), io::ErrorKind::TimedOut)),
        };
        self.user()?;
        Hierarchies::find().map_err(|error| self.unavailable(error.to_string(), error.kind()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let first = text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit()));
        Ok(first.map_or_else(|| format!("{program}, version 0"), ToOwned::to_owned))
    }

    async fn start_process(&self, spec: &InstanceSpec, attachment: Option<Attachment>) -> Result<Running> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "a unikernel is started on a tap, and there is none");
        let attachment = attachment.ok_or_else(none).map_err(self.failed("start", &spec.id))?;
        let image = self.images.check(spec)?;
        if self.records.of(&spec.id).exists() {
            self.stop_process(&spec.id, Duration::ZERO).await?;
        }
        let started = self.make(spec, image, attachment);
        match started.and_then(|pid| self.watch(&spec.id, pid).map(|()| pid)) {
            Ok(pid) => Ok(self.running(&spec.id, Some(pid), spec.service.to_string())),
            Err(error) => {
                if let Err(left) = self.stop_process(&spec.id, Duration::ZERO).await {
                    tracing::warn!(instance = %spec.id, error = %left, "a half-started unikernel could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Directory, group, process. What a failure leaves is the caller's to remove.
    fn make(&self, spec: &InstanceSpec, mut image: ImageFile, attachment: Attachment) -> Result<u32> {
        let user = self.user()?;
        let Resources { vcpus, memory_mib } = spec.resources;
        let record = Record { service: spec.service.to_string(), image: spec.image.clone(), memory_mib };
        let directory = self.records.create(&spec.id, &record).map_err(self.failed("write down", &spec.id))?;
        let group = self.group(&spec.id)?;
        let memory = memory_mib.saturating_add(self.vmm.overhead_mib).saturating_mul(1 << 20);
        let limits = Limits { vcpus: Some(vcpus), memory: Some(memory), tasks: Some(self.vmm.tasks) };
        group.create(limits).map_err(self.failed("limit", &spec.id))?;
        // The repository may lie where the monitor's user cannot go: it gets the file open. (`/proc/self/fd` leads to
        // the file itself, whatever directories are above it.)
        let mut descriptors = Vec::new();
        if image.path != Path::new(&spec.image) {
            let file = File::open(&image.path).map_err(self.failed("open image", &spec.image))?;
            image.path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
            descriptors.push(OwnedFd::from(file));
        }
        let line = launch::line(self.vmm, &self.settings.accelerator, spec, &image, &attachment, &directory.config());
        descriptors.extend(attachment.descriptor);
        if let Some(text) = &line.config {
            directory.write_config(text).map_err(self.failed("configure", &spec.id))?;
        }
        let launch = spawn::Launch {
            program: &self.settings.program,
            arguments: &line.arguments,
            user,
            doors: group.doors().map_err(self.failed("open the group of", &spec.id))?,
            descriptors,
            console: directory.open_console().map_err(self.failed("open the console of", &spec.id))?,
        };
        spawn::spawn(&launch).map_err(self.failed("start", self.settings.program.display()))
    }

    /// Watches an instance's process until it ends.
    fn watch(&self, id: &InstanceId, pid: u32) -> Result<()> {
        let opened = Process::open(pid).map_err(self.failed("watch", id))?;
        if let Some(process) = opened {
            self.watches.add(id, Arc::new(process), self.records.of(id));
        }
        Ok(())
    }

    fn running(&self, id: &InstanceId, pid: Option<u32>, service: String) -> Running {
        let handle = pid.map_or_else(|| format!("{}-{id}", self.label()), |pid| format!("{}-{pid}", self.label()));
        Running { id: id.clone(), handle, end: pid.map(PortEnd::Process), service }
    }

    /// Asks the process to end, ends it by force after `grace`, and removes everything of it.
    async fn stop_process(&self, id: &InstanceId, grace: Duration) -> Result<()> {
        let (directory, group) = (self.records.of(id), self.group(id)?);
        let ended = self.end(&group, grace).await;
        ended.map_err(self.failed("end", id))?;
        // The watcher takes the exit status; only then is the process gone.
        self.watches.until_reaped(id).await;
        group.remove().map_err(self.failed("remove the group of", id))?;
        directory.remove().map_err(self.failed("remove the directory of", id))
    }

    /// Processor time is the group's to give. Memory is the machine's, which none of these monitors changes.
    fn resize_process(&self, id: &InstanceId, resources: Resources) -> Result<Resized> {
        if self.process(id)?.is_none() {
            return Err(DriverError::Unknown { technology: self.label(), id: id.clone() });
        }
        let limits = Limits { vcpus: Some(resources.vcpus), ..Limits::default() };
        self.group(id)?.limit(limits).map_err(self.failed("limit", id))?;
        Ok(Resized { vcpus: true, memory: self.records.of(id).read().memory_mib == resources.memory_mib })
    }

    /// Ends all processes of a group.
    async fn end(&self, group: &Group, grace: Duration) -> io::Result<()> {
        let mut signal = if grace.is_zero() { Signal::SIGKILL } else { Signal::SIGTERM };
        let mut patience = if grace.is_zero() { KILLED } else { grace };
        loop {
            let open = |pid| Process::open(pid).transpose();
            let processes: Vec<Process> = group.processes()?.into_iter().filter_map(open).collect::<io::Result<_>>()?;
            if processes.is_empty() {
                return Ok(());
            }
            for process in &processes {
                process.signal(signal)?;
            }
            let all = async {
                for process in &processes {
                    process.ended().await?;
                }
                Ok::<(), io::Error>(())
            };
            match tokio::time::timeout(patience, all).await {
                Ok(ended) => ended?,
                Err(_) if signal == Signal::SIGKILL => {
                    let pids: Vec<u32> = processes.iter().map(Process::pid).collect();
                    return Err(io::Error::new(io::ErrorKind::TimedOut, format!("processes {pids:?} do not end")));
                }
                Err(_) => {}
            }
            (signal, patience) = (Signal::SIGKILL, KILLED);
        }
    }

    /// All instances of ours with their processes; those that nobody watches yet are watched from now on.
    fn list(&self) -> Result<Vec<Running>> {
        let mut all = Vec::new();
        for id in self.records.list().map_err(self.failed("list", "instances"))? {
            let directory = self.records.of(&id);
            let pid = self.process(&id)?;
            if let Some(pid) = pid {
                directory.bound_console().map_err(self.failed("shorten the console of", &id))?;
                if !self.watches.has(&id) {
                    self.watch(&id, pid)?;
                }
            }
            all.push(self.running(&id, pid, directory.read().service));
        }
        Ok(all)
    }

    /// The first process of an instance's group; `None` where none runs.
    fn process(&self, id: &InstanceId) -> Result<Option<u32>> {
        let processes = self.group(id)?.processes().map_err(self.failed("read the group of", id))?;
        Ok(processes.first().copied())
    }

    fn read_usage(&self) -> Result<BTreeMap<InstanceId, Usage>> {
        let mut all = BTreeMap::new();
        for id in self.records.list().map_err(self.failed("list", "instances"))? {
            let Some(pid) = self.process(&id)? else { continue };
            match Cgroup::of(pid).and_then(|group| group.usage()) {
                Ok(usage) => {
                    all.insert(id, usage);
                }
                // It ended in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed("read the group of", &id)(error)),
            }
        }
        Ok(all)
    }
}

impl Driver for Unikernel {
    fn technology(&self) -> Technology {
        self.vmm.technology
    }

    fn port(&self) -> PortKind {
        if !self.vmm.opens_tap {
            return PortKind::Tap(TapUse::Descriptor);
        }
        // Without that user nothing is started anyhow.
        let user = self.user().map_or(u32::MAX, |user| user.user);
        PortKind::Tap(TapUse::Name { user })
    }

    fn check(&self) -> BoxFuture<'_, Result<String>> {
        self.version().boxed()
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
        self.start_process(spec, attachment).boxed()
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        self.stop_process(id, grace).boxed()
    }

    fn resize<'a>(&'a self, id: &'a InstanceId, resources: Resources) -> BoxFuture<'a, Result<Resized>> {
        std::future::ready(self.resize_process(id, resources)).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, Result<Vec<Running>>> {
        async { self.list() }.boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<InstanceId, Usage>>> {
        async { self.read_usage() }.boxed()
    }

    fn events(&self) -> BoxStream<'_, DriverEvent> {
        self.watches.events().boxed()
    }
}
