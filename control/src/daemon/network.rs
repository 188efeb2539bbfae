//! The configuration's networks as `netlink` takes them, and the command's way to them, with or without a daemon.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::{info, warn};

use super::{StartError, privileges};
use crate::api::client::{self, ClientError};
use crate::config::{self, Config};
use crate::model::{Instance, InstanceId, NetPlan, SettingChange, Technology};
use crate::netlink::{BridgeSpec, Net, NetError, Network, PortSpec};
use crate::store::{FILE_NAME, Store};

/// A technology's bridge.
pub(super) fn bridge(config: &Config, technology: Technology) -> BridgeSpec {
    let pool = config.pool(technology);
    BridgeSpec {
        name: pool.bridge.clone(),
        v4: (pool.gateway, pool.v4),
        v6: pool.gateway6().and_then(|gateway| pool.v6.map(|prefix| (gateway, prefix))),
        shaping: pool.shaping,
    }
}

/// All that a configuration declares, with the bridges of these technologies.
pub(super) fn network(config: &Config, technologies: impl IntoIterator<Item = Technology>) -> Network {
    let mut bridges = Vec::new();
    for technology in technologies {
        let bridge = bridge(config, technology);
        // Technologies that run unikernels share one.
        if !bridges.contains(&bridge) {
            bridges.push(bridge);
        }
    }
    Network {
        bridges,
        tunnels: config.networks.tunnels.clone(),
        routes: config.networks.routes.clone(),
        uplinks: config.networks.uplinks.clone(),
    }
}

/// What was changed on the node is logged, and kept so that `selvedge clear` can change it back.
pub(super) fn note_settings(store: &Store, bridge: &str, changed: &[SettingChange]) {
    for change in changed {
        info!(bridge, path = change.path, before = change.before, after = change.after, "network setting changed");
    }
    if !changed.is_empty()
        && let Err(error) = store.note_settings(changed)
    {
        warn!(%error, "changed settings could not be stored; they will have to be changed back by hand");
    }
}

/// Why the command cannot work on the networks.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Configuration, privileges or store.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The daemon does not do it.
    #[error("{0}")]
    Daemon(#[from] ClientError),
    /// The kernel does not do it.
    #[error("{}", crate::model::in_full(.0))]
    Kernel(#[from] NetError),
}

impl NetworkError {
    /// Exit code: that of the start for a wrong configuration or missing privileges, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(error) => error.exit_code(),
            Self::Daemon(_) | Self::Kernel(_) => 1,
        }
    }
}

/// A configuration and the kernel, ready to be compared.
struct Site {
    net: Net,
    network: Network,
    /// `None` while the daemon runs, which has it.
    store: Option<Store>,
}

impl Site {
    /// Learns whose marks count and which instances there are: from the daemon, or from its store while none runs.
    async fn open(path: &Path) -> Result<Self, NetworkError> {
        let config = config::load(path).map_err(StartError::from)?;
        privileges::check(&config).map_err(StartError::from)?;
        let network = network(&config, config.technologies_in_use());
        match client::network(&config.control.socket).await {
            Ok(report) => {
                let net = Net::new(report.owner.clone())?;
                let status = client::status(&config.control.socket).await?;
                let pids: BTreeMap<_, _> = report.ports.iter().map(|p| (p.instance.clone(), p.pid)).collect();
                let instances = status.services.values().flat_map(|s| &s.instances).map(|i| &i.report.instance);
                for instance in instances {
                    take_up(&net, &config, instance, &pids);
                }
                Ok(Self { net, network, store: None })
            }
            Err(ClientError::Connect { .. }) => {
                let store = Store::open(&config.control.state_dir.join(FILE_NAME)).map_err(StartError::from)?;
                let net = Net::new(store.owner_id().clone())?;
                for instance in store.instances().map_err(StartError::from)? {
                    take_up(&net, &config, &instance, &BTreeMap::new());
                }
                Ok(Self { net, network, store: Some(store) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets an instance's port count as wanted. One without an address of its technology's pool has none.
fn take_up(net: &Net, config: &Config, instance: &Instance, pids: &BTreeMap<InstanceId, Option<u32>>) {
    let Some(service) = config.service(&instance.service) else { return };
    let spec = PortSpec {
        instance: instance.id.clone(),
        bridge: bridge(config, instance.technology),
        addresses: instance.addresses,
        shaping: service.shaping,
        kind: super::driver(config, instance.technology, net.owner(), None).port(),
    };
    // An instance that ended meanwhile is none of the networks' business.
    let _ = net.adopt_port(&spec, pids.get(&instance.id).copied().flatten());
}

/// `selvedge net plan`: what differs between the configuration file and the kernel.
///
/// # Errors
/// [`NetworkError`].
pub async fn net_plan(config: &Path) -> Result<NetPlan, NetworkError> {
    let site = Site::open(config).await?;
    Ok(site.net.plan(&site.network).await?)
}

/// `selvedge net apply`: makes the kernel's networks as the configuration says, all or nothing; the daemon does it
/// where one runs. Gives what was done, and what is left to do.
///
/// # Errors
/// [`NetworkError`]; nothing was changed then.
pub async fn net_apply(config: &Path) -> Result<(NetPlan, NetPlan), NetworkError> {
    let site = Site::open(config).await?;
    let Some(store) = &site.store else {
        let socket = config::load(config).map_err(StartError::from)?.control.socket;
        let done = client::apply_network(&socket).await?;
        return Ok((done, site.net.plan(&site.network).await?));
    };
    let done = site.net.declare(site.network.clone()).await?;
    for bridge in &site.network.bridges {
        // The rest are the node's settings, which have to be remembered.
        let state = site.net.ensure_bridge(bridge).await?;
        note_settings(store, &bridge.name, &state.changed);
    }
    Ok((done, site.net.plan(&site.network).await?))
}
