//! An instance and its interface, for tests of what guests are told.
#![allow(clippy::expect_used, reason = "tests fail by panicking")]

use std::net::Ipv4Addr;

use crate::driver::{Attachment, InstanceSpec, Resources};
use crate::model::{Guest, InstanceId, OwnerId, ServiceName};

/// The first instance of `video`, from the image `/images/x`, with so many processors and 32 MiB.
pub fn spec(guest: Guest, vcpus: f64) -> InstanceSpec {
    InstanceSpec {
        id: InstanceId::from_number(1),
        owner: OwnerId::from_number(2),
        service: ServiceName::new("video").expect("a name"),
        image: "/images/x".to_owned(),
        guest,
        resources: Resources { vcpus, memory_mib: 32 },
    }
}

/// On 10.0.0.9/24 and, where wanted, fd00::9/64.
pub fn attachment(v6: bool) -> Attachment {
    Attachment {
        interface: "sv00000001".to_owned(),
        descriptor: None,
        mac: [2, 0, 0, 0, 0, 0xab],
        v4: Some((Ipv4Addr::new(10, 0, 0, 9), 24, Ipv4Addr::new(10, 0, 0, 1))),
        v6: v6.then(|| ("fd00::9".parse().expect("an address"), 64, "fd00::1".parse().expect("an address"))),
    }
}
