//! Values of the model for tests, to be changed in what a test is about.

use std::sync::Arc;

use super::{AddressPair, Backend, Basis, Choice, InstanceId, PublishedService, ServiceName, Snapshot, Zone};

/// The zone `edge.test.` without records.
pub(crate) fn zone() -> Zone {
    Zone {
        apex: "edge.test.".into(),
        primary: "ns.edge.test.".into(),
        contact: "admin.edge.test.".into(),
        nameservers: vec!["ns.edge.test.".into()],
        ttl_s: 60,
        negative_ttl_s: 5,
        nameserver_addresses: Vec::new(),
        authority: None,
        records: Vec::new(),
    }
}

/// A backend with the address 10.0.0.`number`.
pub(crate) fn backend(number: u8) -> Backend {
    Backend {
        instance: InstanceId::from_number(number.into()),
        addresses: AddressPair { v4: Some([10, 0, 0, number].into()), v6: None },
        weight: 1,
    }
}

/// A service that these backends serve, under its name in `edge.test.`.
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(crate) fn service(name: &str, backends: Vec<Backend>) -> PublishedService {
    PublishedService {
        name: ServiceName::new(name).unwrap(),
        index: 0,
        names: vec![format!("{name}.edge.test.")],
        ttl_s: 5,
        answers: 4,
        choice: Choice::RoundRobin,
        basis: Basis::Serving,
        backends,
        addresses: Vec::new(),
        last_good: Vec::new(),
        summon: None,
    }
}

/// A snapshot of these.
pub(crate) fn snapshot(generation: u64, zones: Vec<Zone>, services: Vec<PublishedService>) -> Snapshot {
    Snapshot { generation, zones: zones.into_iter().map(Arc::new).collect(), services }
}
