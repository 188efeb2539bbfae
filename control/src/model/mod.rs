//! The nouns of the control plane. Pure: no clock, no runtime, no files; time comes as an argument.

pub mod catalogue;
pub mod documents;
pub mod domain;
#[cfg(test)]
pub(crate) mod fixtures;
mod guard;
pub mod ids;
pub mod image;
pub mod instance;
pub mod network;
pub mod order;
mod port;
mod probing;
pub mod service;
mod setting;
pub mod snapshot;
mod summon;
pub mod table;
mod text;
pub mod window;

pub use catalogue::{CatalogueEntry, Feature, Figures, Isolation, Measured, Measurement, Measurements, Quantiles};
pub use documents::{Desired, DesiredService, Observed, ObservedService, Served};
pub use domain::{DomainFault, parse_domain, show_domain, suffixes, unescape};
pub use guard::{ClientLists, Denied, Guard, QueryLimits, StalePolicy, Staleness};
pub use ids::{InstanceId, NodeName, OwnerId, ServiceName};
pub use image::split_registry;
pub use instance::{AddressPair, Instance, InstanceState, Left, Transition, TransitionError};
pub use network::{
    ForwardReport, NetChange, NetPlan, NetReport, NetworkReport, PortReport, Repair, RouteSpec, Shaping, UplinkSpec,
    VxlanSpec,
};
pub use order::{Drain, Order, Orders, Override};
pub use port::{PortEnd, PortKind, TapUse};
pub use probing::Probing;
pub use service::{
    AtDeadline, Choice, Guest, LateClients, Launch, Limits, OnAllDown, Prepared, ServiceSpec, Technology, Weights,
};
pub use setting::SettingChange;
pub use snapshot::{Authority, Backend, Basis, PublishedService, Snapshot, ZONE_INDEX, Zone, ZoneRecord};
pub use summon::{Cold, ColdServices, Late, Refusal, Summon, SummonLimits, SummonOrder};
pub use table::{Hold, TableHeader};
pub use text::in_full;
pub use window::{Demand, Forecast, Timestamp, WindowReport};
