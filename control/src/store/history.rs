//! The last published tables. Zones change seldom and may be large, so tables that have the same zones share
//! them; the same content under a new generation is the same table.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::tables::{HOLD, META_TEXT, SNAPSHOT, TABLE_HEADERS, TABLE_SERVICES, TABLE_ZONES};
use super::{Store, StoreError};
use crate::model::{Hold, Snapshot, TableHeader, Timestamp, Zone};

/// A header with the place of its zones.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    header: TableHeader,
    /// Key of its zones.
    zones_at: u64,
}

/// A snapshot as it is written.
struct Encoded {
    row: Row,
    /// The snapshot without zones and generation.
    rest: String,
    zones: String,
}

impl Store {
    /// Keeps a published snapshot as the newest table together with the hold that is in force, and forgets all
    /// but the `keep` newest. What differs from the newest in its generation alone replaces it.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; nothing is changed then.
    pub fn keep_table(
        &self,
        snapshot: &Snapshot,
        at: Timestamp,
        cause: &str,
        hold: Option<&Hold>,
        keep: u64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "write the published table";
        let encoded = self.encode_table(OPERATION, snapshot, at, cause)?;
        let hold = hold.map(|hold| self.encode(OPERATION, HOLD, hold)).transpose()?;
        self.write_table(OPERATION, encoded, hold.as_deref(), keep)
    }

    fn encode_table(
        &self,
        operation: &'static str,
        snapshot: &Snapshot,
        at: Timestamp,
        cause: &str,
    ) -> Result<Encoded, StoreError> {
        let key = snapshot.generation.to_string();
        let mut value = serde_json::to_value(snapshot).map_err(|e| self.unreadable(operation, &key, e))?;
        let zones = value.as_object_mut().and_then(|fields| {
            fields.insert("generation".to_owned(), 0.into());
            fields.insert("zones".to_owned(), serde_json::Value::Array(Vec::new()))
        });
        Ok(Encoded {
            row: Row { header: TableHeader::of(snapshot, at, cause), zones_at: snapshot.generation },
            rest: value.to_string(),
            zones: zones.unwrap_or_default().to_string(),
        })
    }

    fn write_table(
        &self,
        operation: &'static str,
        new: Encoded,
        hold: Option<&str>,
        keep: u64,
    ) -> Result<(), StoreError> {
        let Encoded { mut row, rest, zones } = new;
        let generation = row.header.generation;
        let mut replaced = None;
        if let Some(newest) = self.rows(operation)?.pop() {
            let (old_rest, old_zones) = self.texts_of(operation, &newest)?;
            if old_zones == zones {
                row.zones_at = newest.zones_at;
                if old_rest == rest {
                    replaced = Some(newest.header.generation);
                    row.header = TableHeader { generation, ..newest.header };
                }
            }
        }
        let json = self.encode(operation, &generation.to_string(), &row)?;
        self.write(operation, |txn| {
            let mut headers = txn.open_table(TABLE_HEADERS)?;
            let mut services = txn.open_table(TABLE_SERVICES)?;
            if let Some(replaced) = replaced {
                headers.remove(replaced)?;
                services.remove(replaced)?;
            }
            headers.insert(generation, json.as_str())?;
            services.insert(generation, rest.as_str())?;
            while headers.len()? > keep.max(1) {
                let Some(oldest) = headers.pop_first()?.map(|(key, _)| key.value()) else { break };
                services.remove(oldest)?;
            }
            let mut used = BTreeSet::new();
            for entry in headers.iter()? {
                used.extend(serde_json::from_str::<Row>(entry?.1.value()).map(|row| row.zones_at));
            }
            let mut of_zones = txn.open_table(TABLE_ZONES)?;
            if row.zones_at == generation {
                of_zones.insert(generation, zones.as_str())?;
            }
            of_zones.retain(|key, _| used.contains(&key))?;
            set_hold(txn, hold)
        })
    }

    /// Ends the hold.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn forget_hold(&self) -> Result<(), StoreError> {
        self.write("end the hold of the tables", |txn| set_hold(txn, None))
    }

    /// The hold that is in force.
    ///
    /// # Errors
    /// [`StoreError::Record`] where it cannot be understood.
    pub fn hold(&self) -> Result<Option<Hold>, StoreError> {
        self.document("read the hold of the tables", HOLD)
    }

    /// The tables that are kept, oldest first. Those that this version does not understand are left out.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn tables(&self) -> Result<Vec<TableHeader>, StoreError> {
        Ok(self.rows("list the published tables")?.into_iter().map(|row| row.header).collect())
    }

    /// The table that was published under this generation, with its header; `None` where it is not kept.
    ///
    /// # Errors
    /// [`StoreError::Record`] where it cannot be understood.
    pub fn table(&self, generation: u64) -> Result<Option<(TableHeader, Snapshot)>, StoreError> {
        const OPERATION: &str = "read a published table";
        let row = self.rows(OPERATION)?.into_iter().find(|row| row.header.covers(generation));
        row.map(|row| self.read_table(OPERATION, row)).transpose()
    }

    /// What was answered last; `None` before the first publish.
    ///
    /// # Errors
    /// [`StoreError::Record`] where it cannot be understood.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        const OPERATION: &str = "read the published table";
        let newest = self.read(OPERATION, |txn| {
            let table = txn.open_table(TABLE_HEADERS)?;
            Ok(table.last()?.map(|(k, v)| (k.value().to_string(), v.value().to_owned())))
        })?;
        let Some((key, json)) = newest else { return Ok(None) };
        let row = self.decode(OPERATION, &key, &json)?;
        self.read_table(OPERATION, row).map(|(_, snapshot)| Some(snapshot))
    }

    fn rows(&self, operation: &'static str) -> Result<Vec<Row>, StoreError> {
        let texts = self.read(operation, |txn| {
            let table = txn.open_table(TABLE_HEADERS)?;
            let rows = table.iter()?.map(|row| row.map(|(_, v)| v.value().to_owned()));
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        Ok(texts.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
    }

    /// The two parts of a table's content; empty where they are missing.
    fn texts_of(&self, operation: &'static str, row: &Row) -> Result<(String, String), StoreError> {
        self.read(operation, |txn| {
            let rest = txn.open_table(TABLE_SERVICES)?.get(row.header.generation)?.map(|v| v.value().to_owned());
            let zones = txn.open_table(TABLE_ZONES)?.get(row.zones_at)?.map(|v| v.value().to_owned());
            Ok((rest.unwrap_or_default(), zones.unwrap_or_default()))
        })
    }

    fn read_table(&self, operation: &'static str, row: Row) -> Result<(TableHeader, Snapshot), StoreError> {
        let generation = row.header.generation;
        let (rest, zones) = self.texts_of(operation, &row)?;
        let key = generation.to_string();
        let rest: Snapshot = self.decode(operation, &key, &rest)?;
        let zones: Vec<Arc<Zone>> = self.decode(operation, &key, &zones)?;
        Ok((row.header, Snapshot { generation, zones, ..rest }))
    }

    /// Takes over what a store of schema 1 held: the one published snapshot.
    pub(super) fn take_over_snapshot(&self, now: Timestamp) -> Result<(), StoreError> {
        const OPERATION: &str = "take over the published snapshot";
        let Some(snapshot) = self.document::<Snapshot>(OPERATION, SNAPSHOT)? else { return Ok(()) };
        let encoded = self.encode_table(OPERATION, &snapshot, now, "in force at the upgrade")?;
        self.write_table(OPERATION, encoded, None, 1)?;
        self.write(OPERATION, |txn| {
            txn.open_table(META_TEXT)?.remove(SNAPSHOT)?;
            Ok(())
        })
    }
}

fn set_hold(txn: &WriteTransaction, hold: Option<&str>) -> Result<(), redb::Error> {
    let mut meta = txn.open_table(META_TEXT)?;
    match hold {
        Some(hold) => meta.insert(HOLD, hold)?.map(drop),
        None => meta.remove(HOLD)?.map(drop),
    };
    Ok(())
}
