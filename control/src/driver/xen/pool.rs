//! Domains that are prepared: made ahead of the instances that they become.
//!
//! A prepared domain's name ends with a number of its own instead of an instance's, so it is never taken for one. Its
//! notes say of which form it is and, once it has come as far as it can, that it is ready. Nothing else remembers it: a
//! daemon after a restart finds what an earlier one has prepared, and removes what is half-made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use xen_manager::{Assignment, Creation, Domain, DomainName, Entry, Error, Mac, NameError, Owned, Uuid};

use super::Xen;
use super::form::{self, Form, FormError, Prepared, Until};
use crate::driver::{Attachment, ImageFile, InstanceSpec, Preparation, Result};
use crate::model::{InstanceId, ServiceName};

/// Domains that are made at a time, instances among them.
const CREATIONS: usize = 4;
/// How long a guest may take until it waits.
const BOOT: Duration = Duration::from_secs(120);

/// Between the prefix of this driver's domains and a prepared one's number.
const WORD: &str = "pool-";
/// Noted down of it.
const FORM: &str = "form";
const READY: &str = "ready";

/// What is prepared, as this process knows it.
#[derive(Debug)]
pub(super) struct Pool {
    /// Held for each domain that is being made.
    pub creations: Semaphore,
    /// Held while the pool is changed to what is wanted.
    filling: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that an instance may be made of, with their forms, oldest first.
    ready: Vec<(Domain, String)>,
    /// Those that became instances.
    taken: BTreeMap<Uuid, InstanceId>,
}

/// Domains of one form that are wanted.
struct Wanted {
    prepared: Prepared,
    form: String,
    service: ServiceName,
    missing: u32,
}

impl Pool {
    pub fn new() -> Self {
        Self { creations: Semaphore::new(CREATIONS), filling: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    /// Its state is a list and a map, whole after each change.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest one of a form, for the instance of that name.
    fn pick(&self, form: &str, id: &InstanceId) -> Option<Domain> {
        let mut state = self.state();
        let at = state.ready.iter().position(|(_, of)| of == form)?;
        let (domain, _) = state.ready.remove(at);
        state.taken.insert(domain.uuid, id.clone());
        Some(domain)
    }

    /// It has not become one after all.
    fn give_back(&self, domain: Domain, form: &str) {
        let mut state = self.state();
        state.taken.remove(&domain.uuid);
        state.ready.push((domain, form.to_owned()));
    }

    /// Which instance a prepared domain has become.
    pub fn instance(&self, uuid: Uuid) -> Option<InstanceId> {
        self.state().taken.get(&uuid).cloned()
    }

    /// A domain is not there any more; whether that was a prepared one.
    pub fn forget(&self, uuid: Uuid) -> bool {
        let mut state = self.state();
        state.taken.remove(&uuid);
        let before = state.ready.len();
        state.ready.retain(|(domain, _)| domain.uuid != uuid);
        state.ready.len() < before
    }

    /// Takes one out, or finds it in use: `false` for one that has become an instance.
    fn withdraw(&self, uuid: Uuid) -> bool {
        let mut state = self.state();
        state.ready.retain(|(domain, _)| domain.uuid != uuid);
        !state.taken.contains_key(&uuid)
    }

    /// Adds one that is ready, unless it is there or was taken.
    fn add(&self, domain: &Domain, form: &str) {
        let mut state = self.state();
        let known = state.taken.contains_key(&domain.uuid) || state.ready.iter().any(|(d, _)| d.uuid == domain.uuid);
        if !known {
            state.ready.push((domain.clone(), form.to_owned()));
        }
    }
}

impl Xen {
    /// Makes the pool what is wanted: see [`Driver::prepare`](crate::driver::Driver::prepare).
    pub(super) async fn fill(&self, wanted: &[(InstanceSpec, u32)]) -> Result<Preparation> {
        let _one = self.pool.filling.lock().await;
        let mut preparation = Preparation::default();
        let mut forms = Vec::new();
        for (spec, count) in wanted {
            match self.wanted(spec, *count) {
                Ok(wanted) => forms.push(wanted),
                Err(error) => preparation.failed.push((spec.service.clone(), error)),
            }
        }
        let numbers = self.keep(&mut forms, &mut preparation).await?;
        let mut free = (0u32..).filter(|number| !numbers.contains(number));
        let mut under_way = FuturesUnordered::new();
        for wanted in &forms {
            for number in free.by_ref().take(wanted.missing as usize) {
                under_way.push(async move { (wanted, self.prepare_one(wanted, number).await) });
            }
        }
        while let Some((wanted, outcome)) = under_way.next().await {
            match outcome {
                Ok(()) => *preparation.ready.entry(wanted.service.clone()).or_default() += 1,
                Err(error) => preparation.failed.push((wanted.service.clone(), error)),
            }
        }
        Ok(preparation)
    }

    fn wanted(&self, spec: &InstanceSpec, missing: u32) -> Result<Wanted> {
        let image = self.images.check(spec)?;
        let prepared = self.prepared(spec, &image)?;
        let told_once = || std::io::Error::other("guests of its launch form are told all on their command line");
        let prepared = prepared.ok_or_else(told_once).map_err(self.failed("prepare", &spec.service))?;
        let form = form_of(&prepared, &spec.service);
        Ok(Wanted { prepared, form, service: spec.service.clone(), missing })
    }

    fn prepared(&self, spec: &InstanceSpec, image: &ImageFile) -> Result<Option<Prepared>> {
        let name = format!("{}{WORD}0", self.prefix());
        Prepared::of(self.kind, &name, spec, image).map_err(self.failed("configure", &spec.service))
    }

    /// Keeps what is there and wanted, and removes the rest; gives the numbers that are in use.
    async fn keep(&self, forms: &mut [Wanted], preparation: &mut Preparation) -> Result<BTreeSet<u32>> {
        let mut numbers = BTreeSet::new();
        for owned in self.host().list().await.map_err(self.refused("list", "domains"))? {
            let Some(number) = self.number_of(&owned.domain.name) else { continue };
            let (domain, is_ready) = (&owned.domain, is_ready(&owned));
            let form = owned.labels.as_ref().and_then(|labels| labels.get(FORM));
            let wanted = forms.iter_mut().find(|wanted| wanted.missing > 0 && Some(&wanted.form) == form);
            if let Some(wanted) = wanted.filter(|_| is_ready) {
                wanted.missing -= 1;
                *preparation.ready.entry(wanted.service.clone()).or_default() += 1;
                self.pool.add(domain, &wanted.form);
            } else if self.pool.withdraw(domain.uuid)
                && let Err(error) = self.host().destroy(domain).await
            {
                tracing::warn!(%domain, %error, "a prepared domain that is not wanted could not be removed");
            } else {
                continue;
            }
            numbers.insert(number);
        }
        Ok(numbers)
    }

    /// Makes one, and leaves it as far as it comes. A failure leaves nothing.
    async fn prepare_one(&self, wanted: &Wanted, number: u32) -> Result<()> {
        let name = format!("{}{WORD}{number}", self.prefix());
        let failed = |error| self.refused("prepare", &wanted.service)(error);
        let mut spec = wanted.prepared.domain.clone();
        spec.name = name.parse().map_err(self.failed("prepare", &wanted.service))?;
        let labels = BTreeMap::from([(FORM.to_owned(), wanted.form.clone())]);
        let paused = wanted.prepared.until == Until::Start;
        let creation = Creation { spec: &spec, labels, entries: Vec::new(), paused };
        let domain = self.create(&creation).await.map_err(failed)?;
        let host = self.host();
        let finish = async {
            if !paused {
                host.written(&domain, form::AWAITS, BOOT).await?;
            }
            if wanted.prepared.until == Until::Booted {
                host.pause(&domain).await?;
            }
            let labels = BTreeMap::from([(READY.to_owned(), String::new())]);
            host.configure(&domain, &labels, &[]).await
        };
        let finished = finish.await;
        match finished {
            Ok(()) => {
                self.pool.add(&domain, &wanted.form);
                Ok(())
            }
            Err(error) => {
                self.remove_half(&domain).await;
                Err(failed(error))
            }
        }
    }

    /// What a prepared domain has to become to be this instance; `None` where none can.
    pub(super) fn offer(
        &self,
        spec: &InstanceSpec,
        image: &ImageFile,
        attachment: &Attachment,
    ) -> Result<Option<Offer>> {
        if self.pool.state().ready.is_empty() {
            return Ok(None);
        }
        let Some(prepared) = self.prepared(spec, image)? else { return Ok(None) };
        let configured = |error: FormError| self.failed("configure", &spec.id)(error);
        Ok(Some(Offer {
            form: form_of(&prepared, &spec.service),
            until: prepared.until,
            name: self.name(&spec.id).parse().map_err(|error: NameError| configured(error.into()))?,
            mac: form::mac(attachment).map_err(|error| configured(error.into()))?,
            entries: Form::told(spec, image, attachment).map_err(configured)?,
        }))
    }

    /// Makes a prepared domain the instance; `None` where there is none of its form. One that fails is removed, and the
    /// next one is taken.
    pub(super) async fn take(
        &self,
        id: &InstanceId,
        offer: &Offer,
        labels: &BTreeMap<String, String>,
    ) -> std::result::Result<Option<Domain>, Error> {
        let Offer { form, until, name, mac, entries } = offer;
        let assignment = Assignment { name, mac: *mac, labels: labels.clone(), entries: entries.clone() };
        while let Some(domain) = self.pool.pick(form, id) {
            let assigned = async {
                let assigned = self.host().assign(&domain, &assignment).await?;
                if *until != Until::Asleep {
                    self.host().unpause(&assigned).await?;
                }
                Ok(assigned)
            };
            match assigned.await {
                Ok(assigned) => return Ok(Some(assigned)),
                Err(error @ Error::NameTaken { .. }) => {
                    self.pool.give_back(domain, form);
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%domain, %error, "a prepared domain is of no use; it is removed");
                    self.remove_half(&domain).await;
                    self.pool.forget(domain.uuid);
                }
            }
        }
        Ok(None)
    }

    /// Gives all that is prepared up, for an instance needs its memory; whether there was any.
    pub(super) async fn give_up(&self) -> bool {
        let ready: Vec<Domain> = self.pool.state().ready.drain(..).map(|(domain, _)| domain).collect();
        for domain in &ready {
            self.remove_half(domain).await;
        }
        !ready.is_empty()
    }

    /// The number of a prepared domain of that name.
    pub(super) fn number_of(&self, name: &str) -> Option<u32> {
        name.strip_prefix(&self.prefix())?.strip_prefix(WORD)?.parse().ok()
    }
}

/// What a prepared domain becomes.
pub(super) struct Offer {
    form: String,
    until: Until,
    name: DomainName,
    mac: Mac,
    entries: Vec<Entry>,
}

/// Whether it has come as far as it comes, and lives.
fn is_ready(owned: &Owned) -> bool {
    owned.row.state.is_alive() && owned.labels.as_ref().is_some_and(|labels| labels.contains_key(READY))
}

/// What two domains share that can stand in for each other: service, specification, and the very files.
fn form_of(prepared: &Prepared, service: &ServiceName) -> String {
    let domain = &prepared.domain;
    let files = std::iter::once(&domain.kernel).chain(&domain.ramdisk);
    let state = |file| fs::metadata(file).ok().map(|of| (of.len(), of.modified().ok()));
    let files: Vec<_> = files.map(state).collect();
    let text = format!("{service} {prepared:?} {files:?}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
