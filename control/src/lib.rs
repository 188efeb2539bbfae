//! The control plane of Selvedge.
//!
//! One way of data through modules with one job each; `ARCHITECTURE.md` at the repository's top draws
//! it. Two halves speak through [`model::documents`] only: the **orchestrator** (telemetry's windows →
//! crate `autoscale` → [`placement`]) says what is wanted, the **operator** ([`reconcile`] with
//! [`driver`], [`netlink`], [`datapath`], [`dns`]) makes this node so and reports what is.

pub mod api;
pub mod bench;
pub mod capture;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod dns;
pub mod driver;
pub mod explain;
pub mod images;
pub mod load;
pub mod metrics;
pub mod model;
pub mod netlink;
pub mod orchestrator;
pub mod orders;
pub mod placement;
pub mod reconcile;
pub mod stop;
pub mod store;
pub mod telemetry;
pub mod zonefile;
