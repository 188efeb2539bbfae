//! The whole store as one JSON document, and back. Records stand in it as they are in the file, byte for byte.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use redb::{Key, ReadTransaction, ReadableTable, TableDefinition, Value, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::owner_file::OwnerFile;
use super::tables::{
    DESIRED, INSTANCES, META, META_TEXT, ORDERS, OWNER, PREDICTORS, RELEASED, SCHEMA, SCHEMA_VERSION, SERVICE_INDEXES,
    TABLE_HEADERS, TABLE_SERVICES, TABLE_ZONES, TRANSITIONS,
};
use super::{Store, StoreError, open_database};
use crate::model::Timestamp;

/// What [`Dump::format`] says.
const FORMAT: &str = "selvedge-store";

/// Everything in a store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// `selvedge-store`.
    pub format: String,
    /// Number of its schema.
    pub schema: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Numbers by name.
    numbers: BTreeMap<String, u64>,
    /// Texts by name: the owner, the hold of the tables, changed settings.
    texts: BTreeMap<String, String>,
    /// Index of each service's counters.
    service_indexes: BTreeMap<String, u32>,
    /// By id.
    instances: BTreeMap<String, Box<RawValue>>,
    /// By number.
    transitions: BTreeMap<u64, Box<RawValue>>,
    /// Address → when it was released and until when it rests.
    released: BTreeMap<String, (u64, u64)>,
    /// By node.
    desired: BTreeMap<String, Box<RawValue>>,
    /// By service.
    predictors: BTreeMap<String, Box<RawValue>>,
    /// By `service/NAME` or `instance/ID`; absent before schema 3.
    #[serde(default)]
    orders: BTreeMap<String, Box<RawValue>>,
    /// By generation.
    table_headers: BTreeMap<u64, Box<RawValue>>,
    /// By generation.
    table_services: BTreeMap<u64, Box<RawValue>>,
    /// By the generation under which they came first.
    table_zones: BTreeMap<u64, Box<RawValue>>,
}

/// What was found in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Examination {
    /// Where it is.
    pub path: String,
    /// Number of its schema.
    pub schema: u64,
    /// The installation's mark.
    pub owner: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Records by kind.
    pub records: BTreeMap<String, u64>,
    /// Records that cannot be understood, one sentence each.
    pub problems: Vec<String>,
}

impl Store {
    /// Everything, as of one moment.
    ///
    /// # Errors
    /// [`StoreError::Record`] where a record is no JSON.
    pub fn dump(&self, at: Timestamp) -> Result<Dump, StoreError> {
        const OPERATION: &str = "dump the store";
        let mut spoilt = None;
        let dump = self.read(OPERATION, |txn| {
            let mut json = |key: String, text: &str| match RawValue::from_string(text.to_owned()) {
                Ok(raw) => Some(raw),
                Err(error) => {
                    spoilt.get_or_insert((key, error));
                    None
                }
            };
            Ok(Dump {
                format: FORMAT.to_owned(),
                schema: SCHEMA_VERSION,
                at,
                numbers: rows(txn, META, |k| k.to_owned(), |_, v| Some(v))?,
                texts: rows(txn, META_TEXT, |k| k.to_owned(), |_, v| Some(v.to_owned()))?,
                service_indexes: rows(txn, SERVICE_INDEXES, |k| k.to_owned(), |_, v| Some(v))?,
                instances: rows(txn, INSTANCES, |k| k.to_owned(), |k, v| json(k.to_owned(), v))?,
                transitions: rows(txn, TRANSITIONS, |k| k, |k, v| json(k.to_string(), v))?,
                released: rows(txn, RELEASED, |k| k.to_owned(), |_, v| Some(v))?,
                desired: rows(txn, DESIRED, |k| k.to_owned(), |k, v| json(k.to_owned(), v))?,
                predictors: rows(txn, PREDICTORS, |k| k.to_owned(), |k, v| json(k.to_owned(), v))?,
                orders: rows(txn, ORDERS, |k| k.to_owned(), |k, v| json(k.to_owned(), v))?,
                table_headers: rows(txn, TABLE_HEADERS, |k| k, |k, v| json(k.to_string(), v))?,
                table_services: rows(txn, TABLE_SERVICES, |k| k, |k, v| json(k.to_string(), v))?,
                table_zones: rows(txn, TABLE_ZONES, |k| k, |k, v| json(k.to_string(), v))?,
            })
        })?;
        match spoilt {
            Some((key, error)) => Err(self.unreadable(OPERATION, &key, error)),
            None => Ok(dump),
        }
    }

    /// Makes a store out of a dump where none is. It is whole or not there.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Dump`] where the dump is another installation's or does not hold what a
    /// store holds, or another; nothing is changed then.
    pub fn restore(path: &Path, dump: &Dump) -> Result<Examination, StoreError> {
        const OPERATION: &str = "restore the store";
        let refused = |what: String| StoreError::Dump { path: path.to_owned(), what };
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            return Err(StoreError::Exists { path: path.to_owned() });
        }
        if dump.format != FORMAT {
            return Err(refused(format!("its format is {:?}, not {FORMAT:?}", dump.format)));
        }
        if !(1..=SCHEMA_VERSION).contains(&dump.schema) || dump.numbers.get(SCHEMA) != Some(&dump.schema) {
            return Err(refused(format!("it has schema {}, this version knows up to {SCHEMA_VERSION}", dump.schema)));
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(open)?;
        let owner = dump.texts.get(OWNER);
        if let Some(here) = OwnerFile::beside(path).read()?
            && owner.map(String::as_str) != Some(here.as_str())
        {
            let file = OwnerFile::beside(path).path().display().to_string();
            return Err(refused(format!("it is another installation's: its owner is not the one in {file}")));
        }
        // In a directory of its own, where the copy of the owner is made beside it.
        let made = dir.join("restoring");
        match fs::remove_dir_all(&made) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(open(error)),
            _ => {}
        }
        let new = made.join(super::FILE_NAME);
        fs::create_dir(&made).map_err(open)?;
        let filled = fill(&new, dump, OPERATION).and_then(|()| Self::open(&new)?.examine());
        let done = filled.and_then(|found| match found.problems.first() {
            Some(problem) => Err(refused(problem.clone())),
            None => {
                fs::rename(&new, path).map_err(open)?;
                fs::rename(OwnerFile::beside(&new).path(), OwnerFile::beside(path).path()).map_err(open)?;
                fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(open)?;
                Ok(Examination { path: path.display().to_string(), ..found })
            }
        });
        let cleared = fs::remove_dir_all(&made).map_err(open);
        let found = done?;
        cleared.map(|()| found)
    }

    /// Reads every record.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read; records that cannot be understood are listed.
    pub fn examine(&self) -> Result<Examination, StoreError> {
        let dump = match self.dump(Timestamp::default()) {
            Ok(dump) => Some(dump),
            Err(StoreError::Record { .. }) => None,
            Err(error) => return Err(error),
        };
        let problems = [
            dump.is_none().then(|| "a record is no JSON".to_owned()),
            self.instances().err().map(|e| e.to_string()),
            self.recent(usize::MAX).err().map(|e| e.to_string()),
            self.service_indexes().err().map(|e| e.to_string()),
            self.hold().err().map(|e| e.to_string()),
            self.settings().err().map(|e| e.to_string()),
            self.snapshot().err().map(|e| e.to_string()),
            self.orders().err().map(|e| e.to_string()),
        ];
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let records = dump.map(|d| {
            [
                ("desired", d.desired.len()),
                ("instances", d.instances.len()),
                ("orders", d.orders.len()),
                ("predictors", d.predictors.len()),
                ("released", d.released.len()),
                ("service_indexes", d.service_indexes.len()),
                ("tables", d.table_headers.len()),
                ("transitions", d.transitions.len()),
            ]
            .map(|(kind, n)| (kind.to_owned(), count(n)))
        });
        Ok(Examination {
            path: self.path.display().to_string(),
            schema: SCHEMA_VERSION,
            owner: self.owner.to_string(),
            bytes: fs::metadata(&self.path).map_or(0, |file| file.len()),
            records: records.into_iter().flatten().collect(),
            problems: problems.into_iter().flatten().collect(),
        })
    }
}

/// The rows of a table.
fn rows<K: Key + 'static, V: Value + 'static, A: Ord, B>(
    txn: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
    name: impl Fn(K::SelfType<'_>) -> A,
    mut content: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Option<B>,
) -> Result<BTreeMap<A, B>, redb::Error> {
    let table = txn.open_table(table)?;
    let mut all = BTreeMap::new();
    for row in table.iter()? {
        let (key, value) = row?;
        if let Some(value) = content(key.value(), value.value()) {
            all.insert(name(key.value()), value);
        }
    }
    Ok(all)
}

/// Makes the file in one transaction.
fn fill(path: &Path, dump: &Dump, operation: &'static str) -> Result<(), StoreError> {
    let db = open_database(path)?;
    let run = || {
        let txn = db.begin_write()?;
        super::tables::create_all(&txn)?;
        put(&txn, META, &dump.numbers, |k| k.as_str(), |v| *v)?;
        put(&txn, META_TEXT, &dump.texts, |k| k.as_str(), |v| v.as_str())?;
        put(&txn, SERVICE_INDEXES, &dump.service_indexes, |k| k.as_str(), |v| *v)?;
        put(&txn, INSTANCES, &dump.instances, |k| k.as_str(), |v| v.get())?;
        put(&txn, TRANSITIONS, &dump.transitions, |k| *k, |v| v.get())?;
        put(&txn, RELEASED, &dump.released, |k| k.as_str(), |v| *v)?;
        put(&txn, DESIRED, &dump.desired, |k| k.as_str(), |v| v.get())?;
        put(&txn, PREDICTORS, &dump.predictors, |k| k.as_str(), |v| v.get())?;
        put(&txn, ORDERS, &dump.orders, |k| k.as_str(), |v| v.get())?;
        put(&txn, TABLE_HEADERS, &dump.table_headers, |k| *k, |v| v.get())?;
        put(&txn, TABLE_SERVICES, &dump.table_services, |k| *k, |v| v.get())?;
        put(&txn, TABLE_ZONES, &dump.table_zones, |k| *k, |v| v.get())?;
        txn.commit()?;
        Ok(())
    };
    run().map_err(|source: redb::Error| StoreError::Access {
        operation,
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn put<'d, K: Key + 'static, V: Value + 'static, A, B, I, J>(
    txn: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    all: &'d BTreeMap<A, B>,
    key: impl Fn(&'d A) -> I,
    value: impl Fn(&'d B) -> J,
) -> Result<(), redb::Error>
where
    I: Borrow<K::SelfType<'d>>,
    J: Borrow<V::SelfType<'d>>,
{
    let mut table = txn.open_table(table)?;
    for (k, v) in all {
        table.insert(key(k), value(v))?;
    }
    Ok(())
}
