//! The tables of the store. A change of their meaning raises [`SCHEMA_VERSION`].

use redb::{TableDefinition, WriteTransaction};

/// Number of this schema.
/// 2 has the last published tables instead of one snapshot, 3 has orders.
pub(super) const SCHEMA_VERSION: u64 = 3;
/// Records that the transition log keeps.
pub const MOST_TRANSITIONS: u64 = 10_000;
/// Service indexes that there are: elements of the kernel's table of counters, but for the last, which is zone
/// data's.
pub const MOST_SERVICE_INDEXES: u32 = crate::model::ZONE_INDEX;

/// Numbers by name.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const SCHEMA: &str = "schema";
pub(super) const GENERATION: &str = "generation";
pub(super) const NEXT_SERVICE_INDEX: &str = "next_service_index";
pub(super) const ORDERS_REVISION: &str = "orders_revision";

/// Texts by name.
pub(super) const META_TEXT: TableDefinition<'_, &str, &str> = TableDefinition::new("meta_text");
pub(super) const OWNER: &str = "owner";
pub(super) const CONFIG: &str = "config";
/// Schema 1 had the one published snapshot here.
pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const HOLD: &str = "hold";
pub(super) const SETTINGS: &str = "settings";
pub(super) const LEFT: &str = "left";

/// Service name → index of its counters; never taken back.
pub(super) const SERVICE_INDEXES: TableDefinition<'_, &str, u32> = TableDefinition::new("service_indexes");
/// Instance id → JSON of the instance.
pub(super) const INSTANCES: TableDefinition<'_, &str, &str> = TableDefinition::new("instances");
/// Sequence number → JSON of the transition.
pub(super) const TRANSITIONS: TableDefinition<'_, u64, &str> = TableDefinition::new("transitions");
/// Address → when it was released and until when it is not leased, in ms since the epoch.
pub(super) const RELEASED: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("released");
/// Node → JSON of its newest desired document.
pub(super) const DESIRED: TableDefinition<'_, &str, &str> = TableDefinition::new("desired");
/// Service → JSON of its predictor's state.
pub(super) const PREDICTORS: TableDefinition<'_, &str, &str> = TableDefinition::new("predictors");
/// `service/NAME` or `instance/ID` → JSON of the order that stands.
pub(super) const ORDERS: TableDefinition<'_, &str, &str> = TableDefinition::new("orders");
/// Generation → JSON of a published table's header, with the key of its zones.
pub(super) const TABLE_HEADERS: TableDefinition<'_, u64, &str> = TableDefinition::new("table_headers");
/// Generation → JSON of the rest of a published table: all but its zones.
pub(super) const TABLE_SERVICES: TableDefinition<'_, u64, &str> = TableDefinition::new("table_services");
/// Generation under which they came first → JSON of a published table's zones.
pub(super) const TABLE_ZONES: TableDefinition<'_, u64, &str> = TableDefinition::new("table_zones");

/// Makes the tables, so that no reader meets a missing one.
pub(super) fn create_all(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(META)?;
    txn.open_table(META_TEXT)?;
    txn.open_table(SERVICE_INDEXES)?;
    txn.open_table(INSTANCES)?;
    txn.open_table(TRANSITIONS)?;
    txn.open_table(RELEASED)?;
    txn.open_table(DESIRED)?;
    txn.open_table(PREDICTORS)?;
    txn.open_table(ORDERS)?;
    txn.open_table(TABLE_HEADERS)?;
    txn.open_table(TABLE_SERVICES)?;
    txn.open_table(TABLE_ZONES)?;
    Ok(())
}
