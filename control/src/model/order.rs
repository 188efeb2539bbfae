//! What an operator of the machine has ordered. A field of its own: neither plan nor probe ever writes it, and it
//! outlives restarts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{InstanceId, ServiceName, Timestamp};

/// An order with who gave it, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Order<T> {
    /// What is ordered.
    #[serde(flatten)]
    pub what: T,
    /// Who: a user of this machine, a token's or a certificate's name.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Rises with each order of whatever kind.
    pub revision: u64,
}

/// How many instances a service has, whatever its plan says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Override {
    /// As many as are wanted when it is given: the plan goes on deciding, and nothing follows from it.
    Pause,
    /// Just so many, within the maxima of service and node.
    Pin {
        /// Instances.
        replicas: u32,
    },
}

/// What becomes of an instance that is taken out of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Drain {
    /// It ends when its clients have left.
    Stop,
    /// It goes on running, and can be put back.
    Keep,
    /// It ends at once, whoever is talking to it.
    Remove,
}

/// All orders that stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orders {
    /// Rises with each change, also with one that takes an order back.
    pub revision: u64,
    /// By service.
    pub services: BTreeMap<ServiceName, Order<Override>>,
    /// By instance.
    pub instances: BTreeMap<InstanceId, Order<Drain>>,
}

/// Words of all kinds. A derived reader would take a number for a kind as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Pause,
    Pin,
    Stop,
    Keep,
    Remove,
}

#[derive(Deserialize)]
struct Written {
    kind: Word,
    replicas: Option<u32>,
}

impl<'de> Deserialize<'de> for Override {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written { kind: Word::Pause, .. } => Ok(Self::Pause),
            Written { kind: Word::Pin, replicas: Some(replicas) } => Ok(Self::Pin { replicas }),
            Written { kind: Word::Pin, replicas: None } => Err(D::Error::missing_field("replicas")),
            _ => Err(D::Error::custom("the kind is neither pause nor pin")),
        }
    }
}

impl<'de> Deserialize<'de> for Drain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)?.kind {
            Word::Stop => Ok(Self::Stop),
            Word::Keep => Ok(Self::Keep),
            Word::Remove => Ok(Self::Remove),
            _ => Err(D::Error::custom("the kind is neither stop, keep nor remove")),
        }
    }
}

impl Override {
    /// Instances to have, where `in_force` are wanted now, and the words for it.
    #[must_use]
    pub fn apply(self, in_force: u32, most: u32) -> (u32, String) {
        match self {
            Self::Pause => (in_force.min(most), "paused".to_owned()),
            Self::Pin { replicas } if replicas > most => (most, format!("pinned to {replicas}, of at most {most}")),
            Self::Pin { replicas } => (replicas, format!("pinned to {replicas}")),
        }
    }
}

impl Drain {
    /// Short fixed name: JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Keep => "keep",
            Self::Remove => "remove",
        }
    }
}

impl<T> Order<T> {
    /// "by root: maintenance".
    #[must_use]
    pub fn giver(&self) -> String {
        if self.reason.is_empty() { format!("by {}", self.by) } else { format!("by {}: {}", self.by, self.reason) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        let order = |what| Order { what, by: "a".into(), at: Timestamp(1), reason: "b".into(), revision: 2 };
        for what in [Override::Pause, Override::Pin { replicas: 3 }] {
            let text = serde_json::to_string(&order(what)).unwrap();
            assert_eq!(serde_json::from_str::<Order<Override>>(&text).unwrap(), order(what));
        }
        for what in [Drain::Stop, Drain::Keep, Drain::Remove] {
            let text = serde_json::to_string(&what).unwrap();
            assert_eq!(text, format!("{{\"kind\":\"{}\"}}", what.label()));
            assert_eq!(serde_json::from_str::<Drain>(&text).unwrap(), what);
        }
        for wrong in ["{\"kind\":0}", "{\"kind\":\"pin\"}", "{\"kind\":\"stop\"}", "{}"] {
            assert!(serde_json::from_str::<Override>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_override_stays_within_the_maxima() {
        assert_eq!(Override::Pause.apply(3, 8).0, 3);
        assert_eq!(Override::Pause.apply(9, 8).0, 8);
        assert_eq!(Override::Pin { replicas: 0 }.apply(3, 8).0, 0);
        assert_eq!(Override::Pin { replicas: 12 }.apply(3, 8), (8, "pinned to 12, of at most 8".to_owned()));
    }
}
