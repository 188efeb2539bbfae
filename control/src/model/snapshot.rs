//! What is answered: one value from which both the kernel's tables and the daemon's own DNS answers
//! are made, so that they cannot differ. Never edited in place; a new one replaces it whole.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressPair, Choice, InstanceId, ServiceName, Summon};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// The instance.
    pub instance: InstanceId,
    /// Its addresses.
    pub addresses: AddressPair,
    /// Its share among the service's backends; 0 is never chosen.
    pub weight: u16,
}

/// From what a service is answered, and so why its answers are what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Instances that answered their probe.
    #[default]
    Serving,
    /// No instance serves; a fallback group stands in.
    Fallback {
        /// Which one, from 1.
        group: u32,
    },
    /// The policy: the instances that served last.
    LastGood,
    /// The policy: every instance that is there.
    All,
    /// The policy: its sorry addresses.
    Sorry,
    /// The policy: no records.
    #[serde(rename = "nodata")]
    NoData,
    /// The policy: SERVFAIL.
    #[serde(rename = "servfail")]
    ServFail,
    /// The policy: nothing is published, the daemon answers.
    Pass,
    /// At zero: the kernel passes, the daemon holds the query and has an instance started.
    Cold,
    /// There is nothing to answer from, as before the first instance of a new service.
    Nothing,
}

impl Basis {
    /// Every label there is.
    pub const LABELS: [&str; 10] =
        ["serving", "fallback", "last-good", "all", "sorry", "nodata", "servfail", "pass", "cold", "nothing"];

    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Fallback { .. } => "fallback",
            Self::LastGood => "last-good",
            Self::All => "all",
            Self::Sorry => "sorry",
            Self::NoData => "nodata",
            Self::ServFail => "servfail",
            Self::Pass => "pass",
            Self::Cold => "cold",
            Self::Nothing => "nothing",
        }
    }

    /// The number of the fallback group, from 1, where one stands in.
    #[must_use]
    pub const fn group(self) -> Option<u32> {
        match self {
            Self::Fallback { group } => Some(group),
            _ => None,
        }
    }

    /// Why, for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Serving => "instances that answered their probe",
            Self::Fallback { .. } => "no instance serves; a fallback group stands in",
            Self::LastGood => "nothing serves; the last good answers are kept",
            Self::All => "nothing serves; every instance there is, whatever its probe says (on_all_down)",
            Self::Sorry => "nothing serves; the sorry addresses (on_all_down)",
            Self::NoData => "nothing serves; no records (on_all_down)",
            Self::ServFail => "nothing serves; SERVFAIL (on_all_down)",
            Self::Pass => "nothing serves; the kernel passes, the daemon answers (on_all_down)",
            Self::Cold => "at zero; the next query starts an instance",
            Self::Nothing => "nothing serves, and nothing ever did",
        }
    }
}

/// As in configuration and status: `serving`, `fallback 2`, `last-good`.
impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        self.group().map_or(Ok(()), |group| write!(f, " {group}"))
    }
}

/// A service as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Which address an answer names first.
    #[serde(default)]
    pub choice: Choice,
    /// From what it is answered.
    #[serde(default)]
    pub basis: Basis,
    /// Instances that the answers name, by instance; none where the basis is something else.
    pub backends: Vec<Backend>,
    /// Addresses that the answers name and that are no instances of ours: a fallback group, or the sorry addresses; of
    /// a service at zero those that are said when its instance is late.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The instances that served last, remembered while none does, whether or not the answers name them.
    #[serde(default)]
    pub last_good: Vec<Backend>,
    /// How its queries start it, where they do.
    #[serde(default)]
    pub summon: Option<Summon>,
}

impl PublishedService {
    /// The instances that serve, or else those that did last.
    #[must_use]
    pub fn good(&self) -> &[Backend] {
        if self.basis == Basis::Serving { &self.backends } else { &self.last_good }
    }
}

/// All that is answered at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises with each snapshot, also over restarts; an older one never replaces a newer one.
    pub generation: u64,
    /// Zones; none contains another's apex twice. Shared with the configuration, for they may be large and this is
    /// compared and copied at each step of the operator.
    pub zones: Vec<Arc<Zone>>,
    /// Services, by name.
    pub services: Vec<PublishedService>,
}

impl Snapshot {
    /// Every name that exists by a record, a service or as an apex.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let of_zones = self
            .zones
            .iter()
            .flat_map(|z| std::iter::once(z.apex.as_str()).chain(z.records.iter().map(|record| record.name.as_str())));
        let of_services = self.services.iter().flat_map(|s| s.names.iter().map(String::as_str));
        of_zones.chain(of_services).collect()
    }
}
