//! Containers of a Docker engine (API 1.41 or newer), without any network of the engine's own.
//!
//! Only containers that bear both our owner label and an instance label are ever touched. Answers are told apart
//! by HTTP status, never by their text.

mod container;
mod engine;
mod events;
mod pull;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, ImageInspect};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

pub use engine::EngineError;
use engine::{Engine, LABEL, TIMEOUT, status};

use super::cgroup::Cgroup;
use super::{
    Attachment, Driver, DriverError, DriverEvent, FetchProgress, InstanceSpec, Resized, Resources, Result, Running,
    Usage,
};
use crate::model::{InstanceId, OwnerId, PortEnd, PortKind, Technology, split_registry};

/// The driver for one engine.
#[derive(Debug)]
pub struct Docker {
    engine: Engine,
    owner: OwnerId,
    /// Control groups by container, so that usage costs one request whatever the number of instances.
    groups: Mutex<BTreeMap<String, Cgroup>>,
}

impl Docker {
    /// A driver for the engine behind `socket`, for instances that `owner` owns. Nothing is asked of the engine
    /// yet; it need not run.
    #[must_use]
    pub const fn new(socket: PathBuf, owner: OwnerId) -> Self {
        Self { engine: Engine::new(socket), owner, groups: Mutex::new(BTreeMap::new()) }
    }

    async fn version(&self) -> Result<String> {
        let client = self.engine.connect().await?;
        let version = client.version().await.map_err(|e| self.engine.failed("ask for", "version", e))?;
        let text = |part: Option<String>| part.unwrap_or_else(|| "?".to_owned());
        Ok(format!("Docker {} (API {})", text(version.version), text(version.api_version)))
    }

    async fn find_image(&self, spec: &InstanceSpec) -> Result<ImageInspect> {
        let missing = || DriverError::NoImage { technology: LABEL, image: spec.image.clone() };
        if !container::is_image_name(&spec.image) {
            return Err(missing());
        }
        match self.engine.client().await?.inspect_image(&spec.image).await {
            Ok(found) => Ok(found),
            Err(error) if status(&error) == Some(404) => Err(missing()),
            Err(error) => Err(self.engine.failed("look for image", &spec.image, error)),
        }
    }

    async fn fetch_image(&self, spec: &InstanceSpec, progress: FetchProgress<'_>) -> Result<()> {
        match self.find_image(spec).await {
            // With the registry away, an image that is there is as good as ever. A name without a registry would be
            // looked for at a public one, which nobody asked for.
            Err(DriverError::NoImage { .. })
                if container::is_image_name(&spec.image) && split_registry(&spec.image).0.is_some() =>
            {
                pull::pull(&self.engine, &spec.image, progress).await
            }
            found => found.map(drop),
        }
    }

    /// Containers of ours, running or not; of one instance where `id` is given.
    async fn containers(&self, id: Option<&InstanceId>) -> Result<Vec<ContainerSummary>> {
        let options =
            ListContainersOptionsBuilder::new().all(true).filters(&container::filter(&self.owner, id)).build();
        let client = self.engine.client().await?;
        client.list_containers(Some(options)).await.map_err(|e| self.engine.failed("list", "containers", e))
    }

    async fn start_container(&self, spec: &InstanceSpec) -> Result<Running> {
        self.stop_containers(&spec.id, Duration::ZERO).await?;
        let client = self.engine.client().await?;
        let name = container::name(&self.owner, &spec.id);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let created = client.create_container(Some(options), container::body(spec)).await;
        let handle = match created {
            Ok(created) => created.id,
            Err(error) if status(&error) == Some(404) => {
                return Err(DriverError::NoImage { technology: LABEL, image: spec.image.clone() });
            }
            Err(error) => return Err(self.engine.failed("create container", &name, error)),
        };
        match self.run(&client, &handle, &name).await {
            Ok(pid) => Ok(Running {
                id: spec.id.clone(),
                handle,
                end: Some(PortEnd::Process(pid)),
                service: spec.service.to_string(),
            }),
            Err(error) => {
                if let Err(left) = self.remove(&client, &handle).await {
                    tracing::warn!(container = name, error = %left, "a half-started container could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Starts a created container and says its process.
    async fn run(&self, client: &bollard::Docker, handle: &str, name: &str) -> Result<u32> {
        let started = client.start_container(handle, None).await;
        started.map_err(|e| self.engine.failed("start container", name, e))?;
        let inspected = client.inspect_container(handle, None).await;
        let inspected = inspected.map_err(|e| self.engine.failed("inspect container", name, e))?;
        if let Some(pid) = container::pid(&inspected) {
            if let Ok(group) = Cgroup::of(pid) {
                self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.to_owned(), group);
            }
            return Ok(pid);
        }
        let code = inspected.state.and_then(|state| state.exit_code).unwrap_or_default();
        let log = engine::last_words(client, handle).await;
        Err(DriverError::Failed {
            technology: LABEL,
            operation: "start container",
            object: name.to_owned(),
            source: format!("it ended at once with {}; {log}", container::exit_cause(code)).into(),
        })
    }

    async fn stop_containers(&self, id: &InstanceId, grace: Duration) -> Result<()> {
        for summary in self.containers(Some(id)).await? {
            let Some(handle) = summary.id else { continue };
            // The engine's own wait for the process comes on top of a request's usual time.
            let client = self.engine.client().await?.with_timeout(TIMEOUT.saturating_add(grace));
            if !grace.is_zero() {
                self.stop(&client, &handle, grace).await?;
            }
            self.remove(&client, &handle).await?;
        }
        Ok(())
    }

    async fn resize_container(&self, id: &InstanceId, resources: Resources) -> Result<Resized> {
        let unknown = || DriverError::Unknown { technology: LABEL, id: id.clone() };
        let running = |summary: &ContainerSummary| summary.state == Some(ContainerSummaryStateEnum::RUNNING);
        let found = self.containers(Some(id)).await?.into_iter().find(running).and_then(|summary| summary.id);
        let handle = found.ok_or_else(unknown)?;
        let client = self.engine.client().await?;
        match client.update_container(&handle, container::update(resources)).await {
            Ok(()) => Ok(Resized { vcpus: true, memory: true }),
            // The container is gone, or this engine has no such call (Podman 4).
            Err(error) if status(&error) == Some(404) => match client.inspect_container(&handle, None).await {
                Ok(_) => Ok(Resized::default()),
                Err(_) => Err(unknown()),
            },
            Err(error) => Err(self.engine.failed("resize container", handle, error)),
        }
    }

    /// Asks a container's process to end and waits for that, at most for `grace`; then it is killed.
    async fn stop(&self, client: &bollard::Docker, handle: &str, grace: Duration) -> Result<()> {
        // The engine counts whole seconds; a part of one is rounded up.
        let seconds = grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0));
        let options = StopContainerOptionsBuilder::new().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        match client.stop_container(handle, Some(options)).await {
            // 304, not running, is a success of the client's; 404 is gone; 409 is in the way of removal already.
            Err(error) if !matches!(status(&error), Some(304 | 404 | 409)) => {
                Err(self.engine.failed("stop container", handle, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container in whatever state it is, with its anonymous volumes.
    async fn remove(&self, client: &bollard::Docker, handle: &str) -> Result<()> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(handle);
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match client.remove_container(handle, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Somebody else removes it at this moment: wait until that is done.
            Err(error) if status(&error) == Some(409) => {
                let options = WaitContainerOptionsBuilder::new().condition("removed").build();
                let mut waiting = client.wait_container(handle, Some(options));
                match tokio::time::timeout(TIMEOUT, waiting.next()).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(self.engine.failed("remove container", handle, error)),
                }
            }
            Err(error) => Err(self.engine.failed("remove container", handle, error)),
        }
    }

    async fn list(&self) -> Result<Vec<Running>> {
        let client = self.engine.client().await?;
        let looked_up = self.containers(None).await?.into_iter().map(|summary| self.look_up(&client, summary));
        Ok(try_join_all(looked_up).await?.into_iter().flatten().collect())
    }

    /// One container as an instance; `None` where it went away or its label is no identifier of ours.
    async fn look_up(&self, client: &bollard::Docker, summary: ContainerSummary) -> Result<Option<Running>> {
        let (Some(id), Some(handle)) = (instance_of(&summary), summary.id) else { return Ok(None) };
        let service = summary.labels.unwrap_or_default().remove(container::SERVICE).unwrap_or_default();
        match client.inspect_container(&handle, None).await {
            Ok(inspected) => {
                Ok(Some(Running { id, handle, end: container::pid(&inspected).map(PortEnd::Process), service }))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.engine.failed("inspect container", handle, error)),
        }
    }

    async fn read_usage(&self) -> Result<BTreeMap<InstanceId, Usage>> {
        let client = self.engine.client().await?;
        let mut all = BTreeMap::new();
        let mut seen = Vec::new();
        for summary in self.containers(None).await? {
            let (Some(id), Some(handle)) = (instance_of(&summary), summary.id) else { continue };
            if let Some(usage) = self.usage_of(&client, &handle).await? {
                all.insert(id, usage);
            }
            seen.push(handle);
        }
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).retain(|handle, _| seen.contains(handle));
        Ok(all)
    }

    /// One container's usage; `None` where it does not run. A container that was stopped and started has
    /// other groups: what cannot be read any more is looked up once more.
    async fn usage_of(&self, client: &bollard::Docker, handle: &str) -> Result<Option<Usage>> {
        let known = self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(handle).cloned();
        if let Some(usage) = known.and_then(|group| group.usage().ok()) {
            return Ok(Some(usage));
        }
        let inspected = match client.inspect_container(handle, None).await {
            Ok(inspected) => inspected,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(self.engine.failed("inspect container", handle, error)),
        };
        let Some(pid) = container::pid(&inspected) else { return Ok(None) };
        let read = Cgroup::of(pid).and_then(|group| Ok((group.usage()?, group)));
        match read {
            Ok((usage, group)) => {
                self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.to_owned(), group);
                Ok(Some(usage))
            }
            // It ended in between.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DriverError::Failed {
                technology: LABEL,
                operation: "read control group of",
                object: handle.to_owned(),
                source: Box::new(source),
            }),
        }
    }
}

fn instance_of(summary: &ContainerSummary) -> Option<InstanceId> {
    InstanceId::new(summary.labels.as_ref()?.get(container::INSTANCE)?.as_str()).ok()
}

impl Driver for Docker {
    fn technology(&self) -> Technology {
        Technology::Docker
    }

    fn port(&self) -> PortKind {
        PortKind::Pair
    }

    fn check(&self) -> BoxFuture<'_, Result<String>> {
        self.version().boxed()
    }

    fn validate<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, Result<()>> {
        self.find_image(spec).map(|found| found.map(drop)).boxed()
    }

    fn image_bytes<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, Result<Option<u64>>> {
        let size = |found: ImageInspect| found.size.and_then(|size| u64::try_from(size).ok());
        self.find_image(spec).map(move |found| found.map(size)).boxed()
    }

    fn fetch<'a>(&'a self, spec: &'a InstanceSpec, progress: FetchProgress<'a>) -> BoxFuture<'a, Result<()>> {
        self.fetch_image(spec, progress).boxed()
    }

    fn start<'a>(&'a self, spec: &'a InstanceSpec, _: Option<Attachment>) -> BoxFuture<'a, Result<Running>> {
        self.start_container(spec).boxed()
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        self.stop_containers(id, grace).boxed()
    }

    fn resize<'a>(&'a self, id: &'a InstanceId, resources: Resources) -> BoxFuture<'a, Result<Resized>> {
        self.resize_container(id, resources).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, Result<Vec<Running>>> {
        self.list().boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<InstanceId, Usage>>> {
        self.read_usage().boxed()
    }

    fn events(&self) -> BoxStream<'_, DriverEvent> {
        events::watch(&self.engine, &self.owner)
    }
}
