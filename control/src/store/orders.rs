//! Orders of the machine's operators.

use redb::{ReadOnlyTable, ReadableTable};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::{META, ORDERS, ORDERS_REVISION};
use super::{Store, StoreError};
use crate::model::{Drain, InstanceId, Order, Orders, Override, ServiceName};

const SERVICE: &str = "service/";
const INSTANCE: &str = "instance/";

impl Store {
    /// The orders that stand.
    ///
    /// # Errors
    /// [`StoreError::Record`] where one cannot be understood: it is not to be taken for none.
    pub fn orders(&self) -> Result<Orders, StoreError> {
        const OPERATION: &str = "read the orders";
        let (revision, rows) = self.read(OPERATION, |txn| {
            let revision = txn.open_table(META)?.get(ORDERS_REVISION)?.map_or(0, |v| v.value());
            let table: ReadOnlyTable<&str, &str> = txn.open_table(ORDERS)?;
            let rows = table.iter()?.map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().to_owned())));
            Ok((revision, rows.collect::<Result<Vec<_>, _>>()?))
        })?;
        let mut orders = Orders { revision, ..Orders::default() };
        for (key, json) in rows {
            if let Some(name) = key.strip_prefix(SERVICE) {
                let name = ServiceName::new(name).map_err(|e| self.unreadable(OPERATION, &key, e))?;
                orders.services.insert(name, self.order(OPERATION, &key, &json)?);
            } else if let Some(id) = key.strip_prefix(INSTANCE) {
                let id = InstanceId::new(id).map_err(|e| self.unreadable(OPERATION, &key, e))?;
                orders.instances.insert(id, self.order(OPERATION, &key, &json)?);
            }
        }
        Ok(orders)
    }

    /// Keeps an order for a service, or takes it back, under the new revision of all orders.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; the order does not stand then.
    pub fn put_override(
        &self,
        service: &ServiceName,
        order: Option<&Order<Override>>,
        revision: u64,
    ) -> Result<(), StoreError> {
        self.put_order(format!("{SERVICE}{service}"), order, revision)
    }

    /// The same for an instance.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written; the order does not stand then.
    pub fn put_drain(&self, id: &InstanceId, order: Option<&Order<Drain>>, revision: u64) -> Result<(), StoreError> {
        self.put_order(format!("{INSTANCE}{id}"), order, revision)
    }

    fn put_order<T: Serialize>(&self, key: String, order: Option<&Order<T>>, revision: u64) -> Result<(), StoreError> {
        const OPERATION: &str = "write an order";
        let json = order.map(|order| self.encode(OPERATION, &key, order)).transpose()?;
        self.write(OPERATION, |txn| {
            let mut table = txn.open_table(ORDERS)?;
            match &json {
                Some(json) => table.insert(key.as_str(), json.as_str())?.map(drop),
                None => table.remove(key.as_str())?.map(drop),
            };
            txn.open_table(META)?.insert(ORDERS_REVISION, revision)?;
            Ok(())
        })
    }

    fn order<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        key: &str,
        json: &str,
    ) -> Result<Order<T>, StoreError> {
        self.decode(operation, key, json)
    }
}
