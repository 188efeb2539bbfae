//! A technology's bridge.

use netlink_packet_route::link::BridgeStpState;
use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::error::{NetError, Result, refused};
use super::forwarding;
use super::link::{self, Link};
use super::mark::{self, Kind};
use super::{BridgeSpec, Net};
use crate::model::SettingChange;

/// What [`Net::ensure_bridge`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeState {
    /// Interface index.
    pub index: u32,
    /// True where the bridge was not there before.
    pub created: bool,
    /// Settings of the whole node that were changed for it. The caller logs and keeps them; they are what
    /// [`Net::restore`] takes.
    pub changed: Vec<SettingChange>,
}

impl Net {
    /// Makes the bridge be there, up, without spanning tree, with exactly the gateways' addresses, and the
    /// node forward between it and the other interfaces. Idempotent. A bridge that could not be finished is
    /// removed again if this call made it.
    ///
    /// # Errors
    /// [`NetError::Foreign`] where the name is taken by something that is not ours, which stays untouched;
    /// [`NetError::Invalid`] for a specification that cannot be made; else what the kernel said.
    pub async fn ensure_bridge(&self, spec: &BridgeSpec) -> Result<BridgeState> {
        validate(spec)?;
        let _changes = self.changes.lock().await;
        let found = self.find_ours("make bridge", &spec.name, &Kind::Bridge).await?;
        let created = found.is_none();
        if created {
            let message = self.message(spec).build();
            self.handle.link().add(message).execute().await.map_err(refused("make bridge", &spec.name))?;
        }
        match self.adjust(spec).await {
            Ok((index, changed)) => Ok(BridgeState { index, created, changed }),
            Err(error) => {
                if created && let Err(left) = self.take_bridge_away(&spec.name).await {
                    tracing::warn!(bridge = spec.name, error = %left, "a half-made bridge could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Removes a bridge of ours; one that is gone already is a success. Ports that still are on it stay, as
    /// links without a bridge.
    ///
    /// # Errors
    /// [`NetError::Foreign`] where the name is taken by something that is not ours.
    pub async fn remove_bridge(&self, name: &str) -> Result<()> {
        let _changes = self.changes.lock().await;
        self.take_bridge_away(name).await
    }

    async fn take_bridge_away(&self, name: &str) -> Result<()> {
        match self.find_ours("remove bridge", name, &Kind::Bridge).await? {
            Some(bridge) => link::remove(&self.handle, &bridge).await,
            None => Ok(()),
        }
    }

    /// What makes or corrects the link itself.
    fn message(&self, spec: &BridgeSpec) -> LinkMessageBuilder<LinkBridge> {
        LinkMessageBuilder::<LinkBridge>::new(&spec.name)
            .stp_state(BridgeStpState::Disabled)
            .address(mark::bridge_mac(&self.owner, &spec.name).to_vec())
    }

    /// Mark, state, addresses and forwarding of a bridge that is there.
    async fn adjust(&self, spec: &BridgeSpec) -> Result<(u32, Vec<SettingChange>)> {
        let bridge = link::expect(&self.handle, "adjust bridge", &spec.name).await?;
        let message = self.message(spec).index(bridge.index).alias(mark::alias(&self.owner, &Kind::Bridge)).up();
        link::change(&self.handle, "adjust bridge", &spec.name, message.build()).await?;
        if spec.v6.is_some() {
            forwarding::set(&format!("ipv6/conf/{}/disable_ipv6", spec.name), "0")?;
        }
        self.set_addresses(spec, &bridge).await?;
        let mut changed = forwarding::enable_v4(&spec.name)?;
        if spec.v6.is_some() {
            changed.extend(forwarding::enable_v6(&spec.name)?);
        }
        // What is the bridge's own goes with the bridge; only the rest is worth a word.
        let own = [format!("ipv4/conf/{}/", spec.name), format!("ipv6/conf/{}/", spec.name)];
        changed.retain(|change| !own.iter().any(|prefix| change.path.starts_with(prefix)));
        Ok((bridge.index, changed))
    }

    /// Adds what is missing first and removes what is too much then: there is no moment without a gateway
    /// when a pool's gateway changes.
    async fn set_addresses(&self, spec: &BridgeSpec, bridge: &Link) -> Result<()> {
        let wanted = spec.addresses();
        let present = link::addresses(&self.handle, bridge).await?;
        for (address, prefix) in &wanted {
            if !present.iter().any(|(a, p, _)| a == address && p == prefix) {
                link::add_address(&self.handle, bridge, *address, *prefix).await?;
            }
        }
        for (address, prefix, message) in present {
            if !wanted.contains(&(address, prefix)) {
                let removed = self.handle.address().del(message).execute().await;
                removed.map_err(refused("remove an old address from", &bridge.name))?;
            }
        }
        Ok(())
    }
}

/// What can be seen to be wrong before the kernel is asked.
pub(super) fn validate(spec: &BridgeSpec) -> Result<()> {
    let invalid =
        |reason: String| Err(NetError::Invalid { operation: "make bridge", object: spec.name.clone(), reason });
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if spec.name.is_empty() || spec.name.len() > 15 || !spec.name.chars().all(plain) {
        return invalid("the name must be 1 to 15 of a-z, A-Z, 0-9, '-' and '_'".to_owned());
    }
    let (gateway, net) = spec.v4;
    if !net.contains(&gateway) {
        return invalid(format!("gateway {gateway} is not in {net}"));
    }
    match spec.v6 {
        Some((gateway, net)) if !net.contains(&gateway) => invalid(format!("gateway {gateway} is not in {net}")),
        _ => Ok(()),
    }
}
