//! What is kept, by noun.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::PoisonError;

use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::TRANSITIONS;
use super::tables::{CONFIG, DESIRED, GENERATION, INSTANCES, LEFT, META, META_TEXT, MOST_SERVICE_INDEXES};
use super::tables::{MOST_TRANSITIONS, NEXT_SERVICE_INDEX, PREDICTORS, RELEASED, SERVICE_INDEXES, SETTINGS};
use super::{Store, StoreError};
use crate::model::{
    AddressPair, Desired, Instance, InstanceId, Left, NodeName, ServiceName, SettingChange, Timestamp, Transition,
};

/// Generations that are set aside at a time.
const SET_ASIDE: u64 = 16;

/// The generations of this run.
#[derive(Debug, Default)]
pub(super) struct Generations {
    /// The last that was given out, or that must not be.
    pub last: u64,
    /// The last that may be without another write.
    pub set_aside: u64,
}

/// Generations and service indexes.
impl Store {
    /// A generation that is higher than any before, also over restarts. They are set aside some at a time, so that most
    /// publications do not wait for the disk; a restart leaves out those that were not used.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; no number was used up then.
    pub fn next_generation(&self) -> Result<u64, StoreError> {
        // Whoever panicked with it has left it as it was, or higher.
        let mut given = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if given.last >= given.set_aside {
            let set_aside = given.last.saturating_add(SET_ASIDE);
            self.write("raise the generation", |txn| {
                txn.open_table(META)?.insert(GENERATION, set_aside)?;
                Ok(())
            })?;
            given.set_aside = set_aside;
        }
        given.last += 1;
        Ok(given.last)
    }

    /// Makes the next generation higher than `seen`: tables that outlived a lost store may have more.
    pub fn raise_generation(&self, seen: u64) {
        let mut given = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        given.last = given.last.max(seen);
    }

    /// The highest generation that may have been given out; 0 before the first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn generation(&self) -> Result<u64, StoreError> {
        self.read("read the generation", |txn| Ok(txn.open_table(META)?.get(GENERATION)?.map_or(0, |v| v.value())))
    }

    /// The index of a service's counters: the one it had before, or one that no service ever had.
    ///
    /// # Errors
    /// [`StoreError::IndexesUsedUp`] where there is none left.
    pub fn service_index(&self, service: &ServiceName) -> Result<u32, StoreError> {
        const OPERATION: &str = "look up a service's index";
        let known =
            self.read(OPERATION, |txn| Ok(txn.open_table(SERVICE_INDEXES)?.get(service.as_str())?.map(|v| v.value())))?;
        if let Some(index) = known {
            return Ok(index);
        }
        let made = self.write("give a service an index", |txn| {
            let mut meta = txn.open_table(META)?;
            let next = meta.get(NEXT_SERVICE_INDEX)?.map_or(0, |v| v.value());
            let Some(index) = u32::try_from(next).ok().filter(|i| *i < MOST_SERVICE_INDEXES) else {
                return Ok(None);
            };
            meta.insert(NEXT_SERVICE_INDEX, next + 1)?;
            txn.open_table(SERVICE_INDEXES)?.insert(service.as_str(), index)?;
            Ok(Some(index))
        })?;
        made.ok_or_else(|| StoreError::IndexesUsedUp { limit: MOST_SERVICE_INDEXES, path: self.path.clone() })
    }

    /// Every index that was given out, services of the past included.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn service_indexes(&self) -> Result<BTreeMap<ServiceName, u32>, StoreError> {
        const OPERATION: &str = "read the services' indexes";
        let rows = self.read(OPERATION, |txn| {
            let table = txn.open_table(SERVICE_INDEXES)?;
            let rows = table.iter()?.map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value())));
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        let named = rows.into_iter().map(|(name, index)| match ServiceName::new(name.clone()) {
            Ok(service) => Ok((service, index)),
            Err(error) => Err(self.unreadable(OPERATION, &name, error)),
        });
        named.collect()
    }
}

/// Instances and their transitions.
impl Store {
    /// Writes an instance without a record in the log, as after an adoption.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn put_instance(&self, instance: &Instance) -> Result<(), StoreError> {
        const OPERATION: &str = "write an instance";
        let json = self.encode(OPERATION, instance.id.as_str(), instance)?;
        self.write(OPERATION, |txn| {
            txn.open_table(INSTANCES)?.insert(instance.id.as_str(), json.as_str())?;
            Ok(())
        })
    }

    /// Writes an instance and the record of its change together. Returns the record's number.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; neither is written then.
    pub fn record(&self, instance: &Instance, transition: &Transition) -> Result<u64, StoreError> {
        const OPERATION: &str = "record a transition";
        let json = self.encode(OPERATION, instance.id.as_str(), instance)?;
        let entry = self.encode(OPERATION, instance.id.as_str(), transition)?;
        self.write(OPERATION, |txn| {
            txn.open_table(INSTANCES)?.insert(instance.id.as_str(), json.as_str())?;
            append(txn, &entry)
        })
    }

    /// The same for a change that a restart judges as the one before it: synced with the next one that matters, so that
    /// a start does not wait for the disk at each step.
    ///
    /// # Errors
    /// As of [`Store::record`].
    pub fn note(&self, instance: &Instance, transition: &Transition) -> Result<u64, StoreError> {
        const OPERATION: &str = "note a transition";
        let json = self.encode(OPERATION, instance.id.as_str(), instance)?;
        let entry = self.encode(OPERATION, instance.id.as_str(), transition)?;
        self.write_lazily(OPERATION, |txn| {
            txn.open_table(INSTANCES)?.insert(instance.id.as_str(), json.as_str())?;
            append(txn, &entry)
        })
    }

    /// Writes an instance and the records of changes that could not be written before, together.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; nothing is written then.
    pub fn record_all(&self, instance: &Instance, transitions: &[Transition]) -> Result<(), StoreError> {
        const OPERATION: &str = "record transitions";
        let json = self.encode(OPERATION, instance.id.as_str(), instance)?;
        let entries = transitions.iter().map(|t| self.encode(OPERATION, instance.id.as_str(), t));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        self.write(OPERATION, |txn| {
            txn.open_table(INSTANCES)?.insert(instance.id.as_str(), json.as_str())?;
            entries.iter().try_for_each(|entry| append(txn, entry).map(drop))
        })
    }

    /// Ends an instance's record: logs its last change, forgets it, and keeps its addresses from being
    /// leased before `quarantine_until`, all together. Returns the record's number.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; nothing is changed then.
    pub fn retire(
        &self,
        instance: &Instance,
        transition: &Transition,
        quarantine_until: Timestamp,
    ) -> Result<u64, StoreError> {
        const OPERATION: &str = "retire an instance";
        let entry = self.encode(OPERATION, instance.id.as_str(), transition)?;
        self.write(OPERATION, |txn| {
            txn.open_table(INSTANCES)?.remove(instance.id.as_str())?;
            release(&mut txn.open_table(RELEASED)?, &instance.addresses, transition.at, quarantine_until)?;
            append(txn, &entry)
        })
    }

    /// Forgets an instance without a record. False where it was not there.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn remove_instance(&self, id: &InstanceId) -> Result<bool, StoreError> {
        self.write("remove an instance", |txn| Ok(txn.open_table(INSTANCES)?.remove(id.as_str())?.is_some()))
    }

    /// Every instance, by id.
    ///
    /// # Errors
    /// [`StoreError::Record`] where one cannot be understood.
    pub fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        let rows = self.texts("read the instances", INSTANCES)?;
        rows.into_iter().map(|(key, json)| self.decode("read the instances", &key, &json)).collect()
    }

    /// The last `count` changes of all instances with their numbers, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Record`] where one cannot be understood.
    pub fn recent(&self, count: usize) -> Result<Vec<(u64, Transition)>, StoreError> {
        self.transitions(count, |_| true)
    }

    /// The changes of one instance that the log still has, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Record`] where one cannot be understood.
    pub fn of_instance(&self, id: &InstanceId) -> Result<Vec<(u64, Transition)>, StoreError> {
        self.transitions(usize::MAX, |t| t.instance == *id)
    }

    fn transitions(
        &self,
        count: usize,
        keep: impl Fn(&Transition) -> bool,
    ) -> Result<Vec<(u64, Transition)>, StoreError> {
        const OPERATION: &str = "read the transitions";
        let rows = self.read(OPERATION, |txn| {
            let table = txn.open_table(TRANSITIONS)?;
            let newest = table.iter()?.rev().take(count);
            let rows = newest.map(|row| row.map(|(k, v)| (k.value(), v.value().to_owned())));
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        let mut list = Vec::new();
        for (sequence, json) in rows.into_iter().rev() {
            let transition: Transition = self.decode(OPERATION, &sequence.to_string(), &json)?;
            if keep(&transition) {
                list.push((sequence, transition));
            }
        }
        Ok(list)
    }
}

/// Released addresses.
impl Store {
    /// Keeps addresses from being leased before `until`.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn release(&self, addresses: &AddressPair, at: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.write("release addresses", |txn| Ok(release(&mut txn.open_table(RELEASED)?, addresses, at, until)?))
    }

    /// Addresses that must not be leased at `now`. Those whose time has passed are forgotten.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read or written.
    pub fn quarantined(&self, now: Timestamp) -> Result<BTreeSet<IpAddr>, StoreError> {
        const OPERATION: &str = "read the released addresses";
        let rows = self.read(OPERATION, |txn| {
            let table = txn.open_table(RELEASED)?;
            let rows = table.iter()?.map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().1)));
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        let mut blocked = BTreeSet::new();
        let mut passed = Vec::new();
        for (text, until) in rows {
            if until > now.0 {
                blocked
                    .insert(text.parse().map_err(|e: std::net::AddrParseError| self.unreadable(OPERATION, &text, e))?);
            } else {
                passed.push(text);
            }
        }
        if !passed.is_empty() {
            self.write_lazily("forget released addresses", |txn| {
                let mut table = txn.open_table(RELEASED)?;
                for address in &passed {
                    table.remove(address.as_str())?;
                }
                Ok(())
            })?;
        }
        Ok(blocked)
    }
}

/// Documents, predictors and the configuration.
impl Store {
    /// Keeps a node's desired document. False, and nothing kept, where a newer one is there.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn put_desired(&self, desired: &Desired) -> Result<bool, StoreError> {
        const OPERATION: &str = "write a desired document";
        if self.desired(&desired.node)?.is_some_and(|known| known.revision > desired.revision) {
            return Ok(false);
        }
        let json = self.encode(OPERATION, desired.node.as_str(), desired)?;
        self.write(OPERATION, |txn| {
            txn.open_table(DESIRED)?.insert(desired.node.as_str(), json.as_str())?;
            Ok(true)
        })
    }

    /// A node's newest desired document.
    ///
    /// # Errors
    /// [`StoreError::Record`] where it cannot be understood.
    pub fn desired(&self, node: &NodeName) -> Result<Option<Desired>, StoreError> {
        const OPERATION: &str = "read a desired document";
        let json =
            self.read(OPERATION, |txn| Ok(txn.open_table(DESIRED)?.get(node.as_str())?.map(|v| v.value().to_owned())))?;
        json.map(|json| self.decode(OPERATION, node.as_str(), &json)).transpose()
    }

    /// Keeps the states of predictors by service beside those that are there; those of services that are not `known`
    /// are forgotten.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn put_predictors(
        &self,
        states: &BTreeMap<ServiceName, serde_json::Value>,
        known: &BTreeSet<&str>,
    ) -> Result<(), StoreError> {
        self.write("write the predictors' states", |txn| {
            let mut table = txn.open_table(PREDICTORS)?;
            table.retain(|service, _| known.contains(service))?;
            for (service, state) in states {
                table.insert(service.as_str(), state.to_string().as_str())?;
            }
            Ok(())
        })
    }

    /// The states of predictors by service. One that cannot be understood is left out: a predictor can
    /// learn again.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn predictors(&self) -> Result<BTreeMap<ServiceName, serde_json::Value>, StoreError> {
        let rows = self.texts("read the predictors' states", PREDICTORS)?;
        let sound = |(service, json): (String, String)| {
            Some((ServiceName::new(service).ok()?, serde_json::from_str(&json).ok()?))
        };
        Ok(rows.into_iter().filter_map(sound).collect())
    }

    /// Keeps changes of the node's settings beside those that are kept already. Of one setting the first value
    /// before and the last value after count.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read or written.
    pub fn note_settings(&self, changes: &[SettingChange]) -> Result<(), StoreError> {
        let mut known = self.settings()?;
        for change in changes {
            match known.iter_mut().find(|k| k.path == change.path) {
                Some(first) => first.after.clone_from(&change.after),
                None => known.push(change.clone()),
            }
        }
        self.put_document("write the node's settings", SETTINGS, &known)
    }

    /// Forgets the changes of settings: they have been taken back.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn forget_settings(&self) -> Result<(), StoreError> {
        self.write("forget the node's settings", |txn| {
            txn.open_table(META_TEXT)?.remove(SETTINGS)?;
            Ok(())
        })
    }

    /// Changes of the node's settings, in the order in which they were made.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read or understood.
    pub fn settings(&self) -> Result<Vec<SettingChange>, StoreError> {
        Ok(self.document("read the node's settings", SETTINGS)?.unwrap_or_default())
    }

    /// Keeps the instances whose late clients are forwarded, all of them.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn put_left(&self, left: &[Left]) -> Result<(), StoreError> {
        self.put_document("write who has left", LEFT, &left)
    }

    /// The instances whose late clients are forwarded.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read or understood.
    pub fn left(&self) -> Result<Vec<Left>, StoreError> {
        Ok(self.document("read who has left", LEFT)?.unwrap_or_default())
    }

    /// Keeps the text of the configuration that was accepted last.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn put_config(&self, text: &str) -> Result<(), StoreError> {
        self.put_text("write the configuration", CONFIG, text)
    }

    /// The text of the configuration that was accepted last.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn config(&self) -> Result<Option<String>, StoreError> {
        self.text("read the configuration", CONFIG)
    }

    /// A text that the store has one of, by its key.
    pub(super) fn text(&self, operation: &'static str, key: &str) -> Result<Option<String>, StoreError> {
        self.read(operation, |txn| Ok(txn.open_table(META_TEXT)?.get(key)?.map(|v| v.value().to_owned())))
    }

    fn put_text(&self, operation: &'static str, key: &str, text: &str) -> Result<(), StoreError> {
        self.write(operation, |txn| Ok(txn.open_table(META_TEXT)?.insert(key, text)?.map(drop))).map(drop)
    }

    /// The same of a document.
    pub(super) fn document<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        self.text(operation, key)?.map(|json| self.decode(operation, key, &json)).transpose()
    }

    fn put_document<T: Serialize>(&self, operation: &'static str, key: &str, document: &T) -> Result<(), StoreError> {
        self.put_text(operation, key, &self.encode(operation, key, document)?)
    }
}

impl Store {
    fn texts(
        &self,
        operation: &'static str,
        table: TableDefinition<'_, &'static str, &'static str>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        self.read(operation, |txn| {
            let table = txn.open_table(table)?;
            let rows = table.iter()?.map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().to_owned())));
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
    }

    pub(super) fn encode<T: Serialize>(
        &self,
        operation: &'static str,
        key: &str,
        value: &T,
    ) -> Result<String, StoreError> {
        serde_json::to_string(value).map_err(|e| self.unreadable(operation, key, e))
    }

    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        key: &str,
        json: &str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(json).map_err(|e| self.unreadable(operation, key, e))
    }
}

/// Appends to the transition log and drops the oldest records beyond the bound.
fn append(txn: &WriteTransaction, entry: &str) -> Result<u64, redb::Error> {
    let mut log = txn.open_table(TRANSITIONS)?;
    let sequence = log.last()?.map_or(1, |(k, _)| k.value().saturating_add(1));
    log.insert(sequence, entry)?;
    while log.len()? > MOST_TRANSITIONS {
        log.pop_first()?;
    }
    Ok(sequence)
}

fn release(
    table: &mut Table<'_, &'static str, (u64, u64)>,
    addresses: &AddressPair,
    at: Timestamp,
    until: Timestamp,
) -> Result<(), redb::StorageError> {
    for address in addresses.iter() {
        let key = address.to_string();
        // Whoever wants it to rest longest has it.
        let until = table.get(key.as_str())?.map_or(until.0, |known| known.value().1.max(until.0));
        table.insert(key.as_str(), (at.0, until))?;
    }
    Ok(())
}
