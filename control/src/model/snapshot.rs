//! What is answered: one value from which both the kernel's tables and the daemon's own DNS answers
//! are made, so that they cannot differ. Never edited in place; a new one replaces it whole.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AddressPair, InstanceId, ServiceName};

/// A zone that we are authoritative for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its apex: lower case, with the final dot.
    pub apex: String,
    /// SOA MNAME and first NS, lower case, with the final dot.
    pub primary: String,
    /// SOA RNAME, with the final dot.
    pub contact: String,
    /// NS targets, at least one.
    pub nameservers: Vec<String>,
    /// TTL in seconds of the SOA, and of the NS where `authority` does not say another.
    pub ttl_s: u32,
    /// SOA MINIMUM, TTL in seconds of negative answers (RFC 2308).
    pub negative_ttl_s: u32,
    /// Addresses of `primary` and of each of `nameservers` whose name lies in a zone of ours and has no
    /// address by another way (a record, a service).
    #[serde(default)]
    pub nameserver_addresses: Vec<IpAddr>,
    /// What its master file says of it. Without one, its serial is the generation.
    #[serde(default)]
    pub authority: Option<Authority>,
    /// All else that it holds; RRsets stand together, no record is there twice.
    #[serde(default)]
    pub records: Vec<ZoneRecord>,
}

/// What only a master file says of its zone: the rest of the SOA (RFC 1035, 3.3.13), and the TTL of the NS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// SERIAL.
    pub serial: u32,
    /// REFRESH in seconds.
    pub refresh_s: u32,
    /// RETRY in seconds.
    pub retry_s: u32,
    /// EXPIRE in seconds.
    pub expire_s: u32,
    /// TTL in seconds of the apex's NS.
    pub ns_ttl_s: u32,
}

/// A record that does not change with the instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// Its owner: lower case, with the final dot, perhaps with the first label `*`.
    pub name: String,
    /// TYPE.
    pub rtype: u16,
    /// TTL in seconds, the same in all of an RRset.
    pub ttl_s: u32,
    /// RDATA in wire form; names in it are not compressed.
    pub rdata: Vec<u8>,
}

/// Index of the counters of zone data: names that belong to no service. The last that there is, and never given to
/// a service.
pub const ZONE_INDEX: u32 = 4095;

/// An instance as the data path sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The instance.
    pub instance: InstanceId,
    /// Its addresses.
    pub addresses: AddressPair,
    /// Its share among the service's backends; 0 is never chosen.
    pub weight: u16,
}

/// A service as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedService {
    /// Its name.
    pub name: ServiceName,
    /// Index of its counters; never given to another service.
    pub index: u32,
    /// Fully qualified names, lower case, with the final dot.
    pub names: Vec<String>,
    /// TTL in seconds.
    pub ttl_s: u32,
    /// Most addresses in one answer.
    pub answers: u32,
    /// Its backends, by instance.
    pub backends: Vec<Backend>,
}

/// All that is answered at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises with each snapshot, also over restarts; an older one never replaces a newer one.
    pub generation: u64,
    /// Zones; none contains another's apex twice.
    pub zones: Vec<Zone>,
    /// Services, by name.
    pub services: Vec<PublishedService>,
}
