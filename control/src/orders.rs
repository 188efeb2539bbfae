//! The orders of the machine's operators: written to the store first, then told to both halves. The only writer of
//! them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tracing::info;

use crate::model::{Drain, InstanceId, Order, Orders, Override, ServiceName, Timestamp, in_full};
use crate::store::{Store, StoreError};

/// Why an order does not stand.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Somebody else was faster.
    #[error("it has revision {found} now, not {expected}; look at it and give the order again")]
    Changed {
        /// What the giver had seen.
        expected: u64,
        /// What is.
        found: u64,
    },
    /// It could not be written, so it was not acted on.
    #[error("the order could not be stored: {}", in_full(.0))]
    Store(#[from] StoreError),
}

impl OrderError {
    /// Short fixed name: the API's code.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Store(_) => "store",
        }
    }
}

/// Who gives an order, why, and what they have seen.
#[derive(Debug, Clone)]
pub struct Giver {
    /// Their name.
    pub by: String,
    /// Their words.
    pub reason: String,
    /// Revision of the order that they replace, 0 for none; `None` where they do not mind.
    pub expected: Option<u64>,
}

/// All orders, and the way to change them.
#[derive(Debug)]
pub struct Book {
    store: Arc<Store>,
    orders: watch::Sender<Arc<Orders>>,
    /// Held from the look at a revision until the new one is told.
    writing: Mutex<()>,
}

impl Book {
    /// Reads the orders that stand.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read: an order must not be lost in silence.
    pub fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        let orders = Arc::new(store.orders()?);
        for (service, order) in &orders.services {
            info!(%service, order = ?order.what, by = order.by, reason = order.reason, "order still stands");
        }
        for (instance, order) in &orders.instances {
            info!(%instance, order = order.what.label(), by = order.by, reason = order.reason, "order still stands");
        }
        Ok(Self { store, orders: watch::channel(orders).0, writing: Mutex::new(()) })
    }

    /// The orders as they are, and each change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Orders>> {
        self.orders.subscribe()
    }

    /// Sets or takes back the override of a service.
    ///
    /// # Errors
    /// [`OrderError`]; what stood before stands then.
    pub fn set_override(
        &self,
        service: &ServiceName,
        what: Option<Override>,
        giver: Giver,
    ) -> Result<Arc<Orders>, OrderError> {
        info!(%service, order = ?what, by = giver.by, reason = giver.reason, "order");
        self.change(
            |orders| orders.services.get(service).map_or(0, |o| o.revision),
            what,
            giver,
            |order, revision| self.store.put_override(service, order, revision),
            |orders, order| match order {
                Some(order) => drop(orders.services.insert(service.clone(), order)),
                None => drop(orders.services.remove(service)),
            },
        )
    }

    /// Sets or takes back what becomes of an instance.
    ///
    /// # Errors
    /// [`OrderError`]; what stood before stands then.
    pub fn set_drain(&self, id: &InstanceId, what: Option<Drain>, giver: Giver) -> Result<Arc<Orders>, OrderError> {
        info!(instance = %id, order = what.map(Drain::label), by = giver.by, reason = giver.reason, "order");
        self.change(
            |orders| orders.instances.get(id).map_or(0, |o| o.revision),
            what,
            giver,
            |order, revision| self.store.put_drain(id, order, revision),
            |orders, order| match order {
                Some(order) => drop(orders.instances.insert(id.clone(), order)),
                None => drop(orders.instances.remove(id)),
            },
        )
    }

    /// The instance is no more; nor is what was ordered of it.
    pub fn forget(&self, id: &InstanceId) {
        if !self.orders.borrow().instances.contains_key(id) {
            return;
        }
        let giver = Giver { by: "selvedged".to_owned(), reason: "it has stopped".to_owned(), expected: None };
        if let Err(error) = self.set_drain(id, None, giver) {
            // It means nothing without its instance, and the next start reads it again.
            info!(instance = %id, %error, "an order outlives its instance");
        }
    }

    fn change<T: Copy>(
        &self,
        revision: impl Fn(&Orders) -> u64,
        what: Option<T>,
        giver: Giver,
        write: impl Fn(Option<&Order<T>>, u64) -> Result<(), StoreError>,
        take: impl Fn(&mut Orders, Option<Order<T>>),
    ) -> Result<Arc<Orders>, OrderError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut orders = Orders::clone(&self.orders.borrow());
        let found = revision(&orders);
        if let Some(expected) = giver.expected.filter(|expected| *expected != found) {
            return Err(OrderError::Changed { expected, found });
        }
        orders.revision += 1;
        let Giver { by, reason, .. } = giver;
        let order = what.map(|what| Order { what, by, at: Timestamp::now(), reason, revision: orders.revision });
        write(order.as_ref(), orders.revision)?;
        take(&mut orders, order);
        let orders = Arc::new(orders);
        self.orders.send_replace(Arc::clone(&orders));
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn giver(expected: Option<u64>) -> Giver {
        Giver { by: "root".to_owned(), reason: "test".to_owned(), expected }
    }

    #[test]
    fn of_two_who_saw_the_same_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("s.redb")).unwrap());
        let book = Book::open(Arc::clone(&store)).unwrap();
        let service = ServiceName::new("s").unwrap();
        let seen = book.watch();
        book.set_override(&service, Some(Override::Pause), giver(Some(0))).unwrap();
        let late = book.set_override(&service, Some(Override::Pin { replicas: 1 }), giver(Some(0))).unwrap_err();
        assert!(matches!(late, OrderError::Changed { expected: 0, found: 1 }), "{late}");
        assert_eq!(seen.borrow().services[&service].what, Override::Pause);
        book.set_override(&service, Some(Override::Pin { replicas: 1 }), giver(None)).unwrap();
        assert_eq!(*store.orders().unwrap().services.values().next().unwrap(), seen.borrow().services[&service]);
        let id = InstanceId::from_number(1);
        book.set_drain(&id, Some(Drain::Keep), giver(Some(0))).unwrap();
        book.forget(&id);
        book.forget(&id);
        assert_eq!((store.orders().unwrap().instances.len(), seen.borrow().revision), (0, 4));
    }
}
