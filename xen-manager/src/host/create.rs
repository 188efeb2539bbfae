//! Making a domain, and undoing what a failure leaves.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Host, NOTES, Result, store, xl};
use crate::domain::{Domain, DomainId};
use crate::error::{Error, Operation};
use crate::identity::Uuid;
use crate::spec::DomainSpec;
use crate::store::{Access, Change};
use crate::xl::{CONFIG, XlError, config_text};

/// Something that a guest is to find in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where, below the domain's own entries, as `rumprun/cfg`.
    pub path: String,
    /// Its value.
    pub value: Vec<u8>,
    /// What the guest may do with it; `None` for reading, which it inherits.
    pub access: Option<Access>,
}

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation<'a> {
    /// The domain.
    pub spec: &'a DomainSpec,
    /// What is noted down of it, for whoever finds it: keys are letters, digits, `-` and `_`.
    pub labels: BTreeMap<String, String>,
    /// What the guest finds in the store at its first instruction.
    pub entries: Vec<Entry>,
    /// Whether it is left held.
    pub paused: bool,
}

impl Host {
    /// Makes a domain. All its entries are written in one transaction; where the guest is to find some, it is held until
    /// they are there. A failure leaves nothing of it; where this is dropped midway, [`Host::list`] shows what is left as
    /// half-made.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, creation: &Creation<'_>) -> Result<Domain> {
        let Creation { spec, entries, paused, .. } = creation;
        let named = || spec.name.to_string();
        spec.validate().map_err(|source| Error::Spec { domain: named(), source })?;
        for file in std::iter::once(&spec.kernel).chain(&spec.ramdisk) {
            readable(file).map_err(|source| Error::File { domain: named(), file: file.clone(), source })?;
        }
        self.reach(Operation::Create, &spec.name).await?;
        let uuid = self.new_uuid().map_err(|source| Error::File { domain: named(), file: RANDOM.into(), source })?;
        let held = *paused || !entries.is_empty();
        // No `xl` stays behind for the domain's end: the store tells of it.
        let words: &[&str] = if held { &["create", "-q", "-e", "-p"] } else { &["create", "-q", "-e"] };
        let made = self.xl.run_on(&[words, &[CONFIG]].concat(), &config_text(spec, uuid)).await;
        let finished = match made {
            Ok(_) => self.finish(creation, uuid, held).await,
            Err(error) => Err(self.explain(spec, uuid, error).await),
        };
        if finished.is_err() {
            self.undo(spec, uuid).await;
        }
        finished
    }

    /// Notes down a domain that is there already, and gives its guest more to find: all in one transaction. So a domain
    /// that was made and held in advance becomes what it is for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn configure(&self, domain: &Domain, labels: &BTreeMap<String, String>, entries: &[Entry]) -> Result<()> {
        self.expect(Operation::Configure, domain).await?;
        self.write_down(domain, labels, entries, []).await
    }

    /// Writes notes, entries for the guest, and `more`, in one transaction.
    pub(super) async fn write_down<const MORE: usize>(
        &self,
        domain: &Domain,
        labels: &BTreeMap<String, String>,
        entries: &[Entry],
        more: [Change; MORE],
    ) -> Result<()> {
        let own = domain.path();
        // With no label at all, too, a domain that is whole has notes.
        let whole = Change::Write { path: format!("{own}/{NOTES}"), value: Vec::new(), access: None };
        let notes = labels.iter().map(|(key, value)| Change::Write {
            path: format!("{own}/{NOTES}/{key}"),
            value: value.clone().into_bytes(),
            access: None,
        });
        let entries = entries.iter().map(|entry| Change::Write {
            path: format!("{own}/{}", entry.path),
            value: entry.value.clone(),
            access: entry.access.map(|access| (domain.id, access)),
        });
        let changes: Vec<Change> = std::iter::once(whole).chain(notes).chain(entries).chain(more).collect();
        self.store.commit(&changes).await.map_err(store(Operation::Configure, domain))
    }

    /// Notes the domain down, writes its entries and lets it run.
    async fn finish(&self, creation: &Creation<'_>, uuid: Uuid, held: bool) -> Result<Domain> {
        let name = creation.spec.name.to_string();
        let id = self.find(uuid, &name).await?;
        let domain = Domain { id, uuid, name };
        self.write_down(&domain, &creation.labels, &creation.entries, []).await?;
        if held && !creation.paused {
            self.unpause(&domain).await?;
        }
        Ok(domain)
    }

    /// The number of a domain that was just made: most often the highest one.
    async fn find(&self, uuid: Uuid, name: &str) -> Result<DomainId> {
        let failed = |error| store(Operation::Configure, name)(error);
        let mut ids = self.ids().await.map_err(failed)?;
        ids.sort_unstable_by(|a, b| b.cmp(a));
        for id in ids {
            if self.uuid_at(&format!("/local/domain/{id}")).await.map_err(failed)? == Some(uuid) {
                return Ok(id);
            }
        }
        Err(Error::Gone { operation: Operation::Configure, domain: name.to_owned() })
    }

    /// What `xl create` has failed for, found by looking rather than by reading what it says.
    async fn explain(&self, spec: &DomainSpec, uuid: Uuid, error: XlError) -> Error {
        let domain = spec.name.to_string();
        if matches!(error, XlError::Exit { .. }) {
            if let Ok(rows) = self.rows(Operation::Create).await
                && let Some(other) = rows.iter().find(|row| row.name == domain && row.uuid != uuid)
            {
                return Error::NameTaken { domain, by: other.id };
            }
            if let Ok(free_mib) = self.xl.free_memory().await
                && free_mib < spec.memory_mib
            {
                return Error::NoMemory { domain, wanted_mib: spec.memory_mib, free_mib };
            }
        }
        xl(Operation::Create, domain)(error)
    }

    /// Removes what is there of a domain that was not made in full. An error here would hide the first one; what is left
    /// is found as half-made.
    async fn undo(&self, spec: &DomainSpec, uuid: Uuid) {
        let left = match self.rows(Operation::Destroy).await {
            Ok(rows) => rows.into_iter().find(|row| row.uuid == uuid),
            Err(error) => return tracing::warn!(domain = %spec.name, %error, "what is left of a domain is not known"),
        };
        let Some(row) = left else { return };
        let domain = Domain { id: row.id, uuid, name: row.name };
        if let Err(error) = self.destroy(&domain).await {
            tracing::warn!(%domain, %error, "a half-made domain could not be removed");
        }
    }

    /// A new domain's UUID.
    fn new_uuid(&self) -> io::Result<Uuid> {
        let text = std::fs::read_to_string(RANDOM)?;
        let random: Uuid = text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Uuid::of(self.owner, random.bytes()))
    }
}

/// The kernel's own random UUIDs.
const RANDOM: &str = "/proc/sys/kernel/random/uuid";

/// Whether a file can be read and is not empty; `xl` would say so in prose.
fn readable(file: &Path) -> io::Result<()> {
    let metadata = std::fs::File::open(file)?.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(())
}
