//! Xen domains: made, watched and ended.
//!
//! This crate knows Xen and nothing of who uses it. It runs in dom0 (or wherever `xl` and the store's socket are) and
//! depends on no library of Xen's, so it builds everywhere and is of no use without Xen.
//!
//! * [`store`]: XenStore, spoken to over its socket: entries, transactions, watches.
//! * [`Xl`]: Xen's tool as a child process. libxl builds domains, for building them is bound to a release of Xen.
//! * [`Host`]: what can be done with domains, over both. All of an owner's domains are known by their [`Uuid`].
//!
//! Making a domain is one run of `xl` and one transaction in the store. What happens to it is told by watches: nothing is
//! polled. Network interfaces are joined by the caller; Xen's hotplug scripts are not run and need not be there.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use xen_manager::{Creation, DomainSpec, Error, Host, Owner, Xl, store::Store};
//! # async fn example(spec: DomainSpec, owner: Owner) -> Result<(), Error> {
//! let store = Store::new(Store::default_socket(), Duration::from_secs(10));
//! let host = Host::new(store, Xl::default(), owner);
//! let creation = Creation { spec: &spec, labels: Default::default(), entries: Vec::new(), paused: false };
//! let domain = host.create(&creation).await?;
//! host.connect_vif(&domain, 0).await?;
//! host.shutdown(&domain, Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```

mod console;
mod domain;
mod error;
mod host;
mod identity;
mod spec;
pub mod store;
mod xl;

pub use console::Console;
pub use domain::{Domain, DomainId, DomainName, DomainState, End, NameError};
pub use error::{Error, Operation};
pub use host::{Assignment, Creation, DeviceState, Ended, Entry, Event, Events, Host, Owned, Result};
pub use identity::{Owner, Uuid, UuidError};
pub use spec::{DomainKind, DomainSpec, Mac, MacError, Scheduling, SpecError, Vif};
pub use xl::{Row, TableError, Xl, XlError};
