//! An instance's life as explicit transitions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InstanceId, ServiceName, Technology, Timestamp};

/// Where an instance stands. `requested → fetching → starting → ready → serving → draining → stopped`,
/// or `failed` from any state but `stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Planned; identifier and addresses are leased.
    Requested,
    /// Its image is looked for or fetched.
    Fetching,
    /// Created; not yet answering its probe.
    Starting,
    /// Answered its probe; not yet in the tables.
    Ready,
    /// In the tables.
    Serving,
    /// Out of the tables; still there for clients that hold an older answer.
    Draining,
    /// Gone, with everything that belonged to it.
    Stopped,
    /// Did not come up, or went away by itself. What is left of it is being removed.
    Failed,
}

impl InstanceState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Requested,
        Self::Fetching,
        Self::Starting,
        Self::Ready,
        Self::Serving,
        Self::Draining,
        Self::Stopped,
        Self::Failed,
    ];

    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Fetching => "fetching",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// True for `to` that may follow. `draining` may follow any living state: `remove` wins always.
    #[must_use]
    pub const fn allows(self, to: Self) -> bool {
        use InstanceState::{Draining, Failed, Fetching, Ready, Requested, Serving, Starting, Stopped};
        match to {
            Requested => false,
            Fetching => matches!(self, Requested),
            Starting => matches!(self, Fetching),
            Ready => matches!(self, Starting),
            Serving => matches!(self, Ready),
            Draining => matches!(self, Requested | Fetching | Starting | Ready | Serving),
            Stopped => matches!(self, Draining | Failed),
            Failed => !matches!(self, Stopped | Failed),
        }
    }

    /// Counts towards the wanted number: on its way up or up.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Requested | Self::Fetching | Self::Starting | Self::Ready | Self::Serving)
    }

    /// Nothing of it is left.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped)
    }
}

/// A change of state, with when and why; recorded in the store and told as an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// The instance.
    pub instance: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Before; `None` for the first record.
    pub from: Option<InstanceState>,
    /// After.
    pub to: InstanceState,
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// A change that the life of an instance does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance {instance}: {} cannot follow {}", .to.label(), .from.label())]
pub struct TransitionError {
    /// The instance.
    pub instance: InstanceId,
    /// State it is in.
    pub from: InstanceState,
    /// State that was asked for.
    pub to: InstanceState,
}

/// The addresses of an instance: one per family that its pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct AddressPair {
    /// IPv4, always leased in this version.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, where the pool has a prefix.
    pub v6: Option<Ipv6Addr>,
}

impl AddressPair {
    /// Those that there are, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// An instance that has left the answers, and whose late clients are sent to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// The instance.
    pub instance: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Its addresses, which no other instance gets meanwhile.
    pub addresses: AddressPair,
    /// Until when; `None` while it is there.
    pub until: Option<Timestamp>,
}

/// One running copy of a service as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    /// Its identifier.
    pub id: InstanceId,
    /// What it is a copy of.
    pub service: ServiceName,
    /// What runs it.
    pub technology: Technology,
    /// Its leased addresses.
    pub addresses: AddressPair,
    /// Where it stands.
    pub state: InstanceState,
    /// Since when it stands there.
    pub since: Timestamp,
    /// When it was asked for (start of the paper's resource allocation time).
    pub requested_at: Timestamp,
    /// Why it stands there, for people.
    pub reason: String,
    /// Largest TTL in seconds of any answer that named it while it was published.
    pub largest_ttl_s: u32,
    /// The driver's own handle (container id, process id, domain id) once there is one.
    pub handle: Option<String>,
}

impl Instance {
    /// A new instance in `requested`.
    #[must_use]
    pub fn new(
        id: InstanceId,
        service: ServiceName,
        technology: Technology,
        addresses: AddressPair,
        at: Timestamp,
        reason: &str,
    ) -> Self {
        Self {
            id,
            service,
            technology,
            addresses,
            state: InstanceState::Requested,
            since: at,
            requested_at: at,
            reason: reason.to_owned(),
            largest_ttl_s: 0,
            handle: None,
        }
    }

    /// Moves on to `to` and returns the record of it.
    ///
    /// # Errors
    /// [`TransitionError`] where `to` cannot follow; nothing is changed then.
    pub fn advance(&mut self, to: InstanceState, at: Timestamp, reason: &str) -> Result<Transition, TransitionError> {
        if !self.state.allows(to) {
            return Err(TransitionError { instance: self.id.clone(), from: self.state, to });
        }
        let from = Some(self.state);
        self.state = to;
        self.since = at;
        reason.clone_into(&mut self.reason);
        Ok(Transition {
            instance: self.id.clone(),
            service: self.service.clone(),
            from,
            to,
            at,
            reason: reason.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn nothing_follows_stopped_and_all_lead_there() {
        for state in InstanceState::ALL {
            assert!(!InstanceState::Stopped.allows(state), "{state:?}");
            if state != InstanceState::Stopped {
                let direct = state.allows(InstanceState::Stopped);
                let through = state.allows(InstanceState::Draining) || state.allows(InstanceState::Failed);
                assert!(direct || through, "{state:?} is a trap");
            }
        }
    }

    #[test]
    fn only_a_ready_instance_can_serve() {
        for state in InstanceState::ALL {
            assert_eq!(state.allows(InstanceState::Serving), state == InstanceState::Ready, "{state:?}");
        }
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let service = ServiceName::new("s").unwrap();
        let mut instance = Instance::new(
            InstanceId::from_number(1),
            service,
            Technology::Docker,
            AddressPair::default(),
            Timestamp(5),
            "test",
        );
        let before = instance.clone();
        assert!(instance.advance(InstanceState::Serving, Timestamp(6), "no").is_err());
        assert_eq!(instance, before);
    }
}
