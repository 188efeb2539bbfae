//! An instance's port: a pair of virtual interfaces between its bridge and its namespace, a tap on its bridge, or an
//! interface that came with it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::PoisonError;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::error::{NetError, Result, is_gone, refused};
use super::inside::{INTERFACE, Namespace};
use super::link;
use super::mark::{self, Kind, Mac};
use super::network::WantedPort;
use super::{Net, PortSpec, act, diff, inside, tap, vif};
use crate::model::{AddressPair, InstanceId, PortEnd, PortKind};

/// Takes the name of an interface that is about to be brought up.
pub type BeforeUp<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A port that was made; its instance's end waits for the instance's process: an interface in our namespace, or the
/// tap's descriptor.
#[derive(Debug)]
pub struct Port {
    /// What it was made from.
    pub spec: PortSpec,
    /// The host's end.
    pub interface: String,
    /// Index of the host's end.
    pub index: u32,
    /// Hardware address of the instance's end, the same for the same instance always.
    pub mac: Mac,
    /// Index of the bridge.
    bridge: u32,
    /// Name of the instance's end until it is moved; none of a tap.
    peer: Option<String>,
    /// The tap's other end, for the process that is to inherit it; `None` of a pair and where it has been taken.
    pub descriptor: Option<OwnedFd>,
}

/// What went through a port since it was made, as the host's end counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets that the instance sent.
    pub from_instance_packets: u64,
    /// Bytes that the instance sent.
    pub from_instance_bytes: u64,
    /// Packets to the instance.
    pub to_instance_packets: u64,
    /// Bytes to the instance.
    pub to_instance_bytes: u64,
    /// Packets that were dropped in either direction.
    pub dropped_packets: u64,
}

impl Net {
    /// Makes the pair or the tap and joins the host's end to the bridge. A port of ours with the same name, left
    /// from an interrupted start, is removed first. A failure leaves nothing.
    ///
    /// A tap is complete with this: the bridge knows where its addresses are, so that a client's first packet waits
    /// in the tap for the instance and not for neighbour discovery.
    ///
    /// # Errors
    /// [`NetError::Foreign`] where the interface's name or the bridge is another's, [`NetError::Invalid`]
    /// where the addresses do not fit the bridge, else what the kernel said.
    pub async fn create_port(&self, spec: &PortSpec) -> Result<Port> {
        self.create_port_with(spec, &|_| {}).await
    }

    /// The same; `before_up` is told the interface's name before it is brought up: what is attached to it then need not
    /// wait for packets under way, nor lose them.
    ///
    /// # Errors
    /// As of [`Net::create_port`].
    pub async fn create_port_with(&self, spec: &PortSpec, before_up: BeforeUp<'_>) -> Result<Port> {
        validate(spec)?;
        let _changes = self.changes.lock().await;
        let port = self.create(spec, before_up).await?;
        self.wanted().ports.insert(spec.instance.clone(), WantedPort { spec: spec.clone(), holder: None });
        self.publish();
        Ok(port)
    }

    async fn create(&self, spec: &PortSpec, before_up: BeforeUp<'_>) -> Result<Port> {
        let bridge = self.find_ours("make port on", &spec.bridge.name, &Kind::Bridge).await?;
        let bridge = bridge.ok_or_else(|| NetError::Refused {
            operation: "make port on",
            object: spec.bridge.name.clone(),
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        })?;
        // An interface that came with an instance goes with it, which the driver's start sees to.
        if spec.kind != PortKind::Vif {
            self.delete(&spec.instance).await?;
        }

        let mut port = Port {
            spec: spec.clone(),
            interface: spec.instance.interface(),
            index: 0,
            mac: mark::instance_mac(&self.owner, &spec.instance),
            bridge: bridge.index,
            peer: None,
            descriptor: None,
        };
        match spec.kind {
            PortKind::Pair => {
                let peer = format!("svp{}", spec.instance);
                self.add_pair(&port, &peer).await?;
                port.peer = Some(peer);
            }
            PortKind::Tap(how) => {
                port.descriptor = tap::create(&port.interface, how)?;
                self.keep_tap(&port)?;
            }
            // There is nothing to furnish until the instance has brought it.
            PortKind::Vif => return Ok(port),
        }
        match self.furnish(&port, before_up).await {
            Ok(index) => {
                port.index = index;
                Ok(port)
            }
            Err(error) => {
                drop(port);
                Err(self.undo(&spec.instance, error).await)
            }
        }
    }

    /// Joins the host's end to the bridge and shapes it.
    async fn furnish(&self, port: &Port, before_up: BeforeUp<'_>) -> Result<u32> {
        let index = self.join_bridge(port, before_up).await?;
        let steps = port.spec.shaping.map(|shaping| diff::shape_new(&self.owner, &port.interface, shaping));
        for step in steps.iter().flatten() {
            self.execute(step).await?;
        }
        Ok(index)
    }

    /// Moves the instance's end into the network namespace of `pid`, names it `eth0`, gives it addresses and
    /// default routes, and tells the bridge where the addresses are, so that the first packet waits
    /// for no neighbour discovery and an address that is used again meets no old entry. A failure leaves
    /// nothing, of the port neither. With a tap there is nothing left to do: its process has it since its start. An
    /// interface that came with the instance gets the port's name and mark and joins the bridge.
    ///
    /// # Errors
    /// [`NetError::Namespace`] where the process is gone, has no namespace of its own or one that is in use,
    /// else what the kernel said.
    pub async fn attach_port(&self, port: &Port, end: impl Into<PortEnd>) -> Result<()> {
        self.attach_port_with(port, end.into(), &|_| {}).await
    }

    /// The same; `before_up` is told of an interface that came with the instance, as [`Net::create_port_with`] tells it
    /// of others.
    ///
    /// # Errors
    /// As of [`Net::attach_port`].
    pub async fn attach_port_with(&self, port: &Port, end: PortEnd, before_up: BeforeUp<'_>) -> Result<()> {
        let _changes = self.changes.lock().await;
        let attached = match end {
            PortEnd::Process(pid) => match self.attach(port, pid).await {
                Ok(()) => inside::holder(pid).map(Some),
                Err(error) => Err(error),
            },
            PortEnd::Interface(name) => self.take_over(port, &name, before_up).await.map(|()| None),
        };
        match attached {
            Ok(holder) => {
                if let Some(wanted) = self.wanted().ports.get_mut(&port.spec.instance) {
                    wanted.holder = holder;
                }
                self.publish();
                Ok(())
            }
            Err(error) => {
                self.forget(&port.spec.instance);
                Err(self.undo(&port.spec.instance, error).await)
            }
        }
    }

    /// Takes up a port that an earlier run of the daemon made for an instance whose process is `pid`, so that it is kept as
    /// it shall be. Without a process it is not made again should it go; nor is a tap, whose other end its process holds,
    /// nor an interface that came with its instance.
    ///
    /// # Errors
    /// [`NetError::Namespace`] where the process is gone.
    pub fn adopt_port(&self, spec: &PortSpec, pid: Option<u32>) -> Result<()> {
        validate(spec)?;
        let holder = pid.map(inside::holder).transpose()?;
        self.wanted().ports.insert(spec.instance.clone(), WantedPort { spec: spec.clone(), holder });
        self.publish();
        self.intents.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Makes a port again that somebody removed under a running instance.
    pub(super) async fn restore_port(&self, id: &InstanceId) -> Result<()> {
        let Some(wanted) = self.wanted().ports.get(id).cloned() else { return Ok(()) };
        let Some(holder) = wanted.holder else { return Ok(()) };
        let port = self.create(&wanted.spec, &|_| {}).await?;
        match self.attach(&port, holder.pid).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.undo(id, error).await),
        }
    }

    fn forget(&self, id: &InstanceId) {
        self.wanted().ports.remove(id);
        self.publish();
    }

    /// Removes a port with everything that belongs to it, in whatever state it is. One that is gone already
    /// (it goes by itself with the instance's namespace) is a success.
    ///
    /// # Errors
    /// [`NetError::Foreign`] where the interface of that name is not ours.
    pub async fn delete_port(&self, instance: &InstanceId) -> Result<()> {
        let _changes = self.changes.lock().await;
        self.forget(instance);
        self.delete(instance).await
    }

    async fn delete(&self, instance: &InstanceId) -> Result<()> {
        let found = self.find_ours("remove port", &instance.interface(), &Kind::Port(instance.clone())).await;
        let tap = self.taps.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
        let removed = match &found {
            Ok(Some(link)) => match tap {
                Some(tap) => self.close_tap(tap, link).await,
                None => vif::remove(&self.handle, link).await,
            },
            Ok(None) => Ok(()),
            // Another's interface stays; our own neighbour entries go all the same.
            Err(_) => found.map(drop),
        };
        let shaper = mark::shaper_name(&self.owner, &instance.interface());
        let unshaped = match self.find_ours("remove shaper", &shaper, &Kind::Shaper).await {
            Ok(Some(link)) => link::remove(&self.handle, &link).await,
            other => other.map(drop),
        };
        let forgotten = self.forget_neighbours(&mark::instance_mac(&self.owner, instance)).await;
        removed.and(unshaped).and(forgotten)
    }

    /// What went through a port of ours; `None` where there is none.
    ///
    /// # Errors
    /// [`NetError::Foreign`] where the interface of that name is not ours.
    pub async fn port_counters(&self, instance: &InstanceId) -> Result<Option<PortCounters>> {
        let kind = Kind::Port(instance.clone());
        let link = self.find_ours("read counters of", &instance.interface(), &kind).await?;
        Ok(link.and_then(|link| link.stats).map(|stats| PortCounters {
            from_instance_packets: stats.rx_packets,
            from_instance_bytes: stats.rx_bytes,
            to_instance_packets: stats.tx_packets,
            to_instance_bytes: stats.tx_bytes,
            dropped_packets: stats.rx_dropped.saturating_add(stats.tx_dropped),
        }))
    }

    /// Keeps a second descriptor of a port's tap.
    fn keep_tap(&self, port: &Port) -> Result<()> {
        let Some(descriptor) = &port.descriptor else { return Ok(()) };
        let second = descriptor.try_clone().map_err(|source| NetError::Refused {
            operation: "keep tap",
            object: port.interface.clone(),
            source,
        })?;
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).insert(port.spec.instance.clone(), second);
        Ok(())
    }

    /// Closes a tap's last descriptor, which removes it. The interface is off the list at once, but the kernel keeps
    /// whoever closes it for a grace period longer, some 20 ms: that is for a thread to wait.
    async fn close_tap(&self, tap: OwnedFd, link: &link::Link) -> Result<()> {
        let closing = tokio::task::spawn_blocking(move || drop(tap));
        loop {
            let closed = closing.is_finished();
            let listed = link::find(&self.handle, &link.name).await?.is_some_and(|found| found.index == link.index);
            if !listed {
                return Ok(());
            }
            // Some process has it open still.
            if closed {
                return link::remove(&self.handle, link).await;
            }
        }
    }

    /// Both ends in one request, with the hardware addresses that are their mark until the alias is set.
    async fn add_pair(&self, port: &Port, peer: &str) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(peer.to_owned()).address(port.mac.to_vec()).build();
        let mut message = LinkMessageBuilder::<LinkUnspec>::new()
            .name(port.interface.clone())
            .address(mark::host_mac(&self.owner, &port.spec.instance).to_vec())
            .build();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.handle.link().add(message).execute().await.map_err(refused("make port", &port.interface))
    }

    /// Marks the host's end, joins it to the bridge and brings it up. It gets no IPv6 address by itself: it
    /// is a port of the bridge, no interface of the node's.
    async fn join_bridge(&self, port: &Port, before_up: BeforeUp<'_>) -> Result<u32> {
        let host = link::expect(&self.handle, "make port", &port.interface).await?;
        link::change(&self.handle, "make port", &port.interface, act::quiet(host.index)).await?;
        let marked = LinkUnspec::new_with_index(host.index)
            // A pair has it already; others, which may change it only while they are down, get it here.
            .address(mark::host_mac(&self.owner, &port.spec.instance).to_vec())
            .alias(mark::alias(&self.owner, &Kind::Port(port.spec.instance.clone())))
            .controller(port.bridge)
            .build();
        link::change(&self.handle, "join to its bridge", &port.interface, marked).await?;
        before_up(&port.interface);
        let up = LinkUnspec::new_with_index(host.index).up().build();
        link::change(&self.handle, "bring up", &port.interface, up).await?;
        if port.peer.is_none() {
            self.add_neighbours(port).await?;
        }
        Ok(host.index)
    }

    /// Makes an interface that came with its instance, which is down, the host's end of the port.
    async fn take_over(&self, port: &Port, name: &str, before_up: BeforeUp<'_>) -> Result<()> {
        self.delete(&port.spec.instance).await?;
        let found = link::expect(&self.handle, "attach port", name).await?;
        let named = LinkUnspec::new_with_index(found.index).name(port.interface.clone()).build();
        link::change(&self.handle, "take over", name, named).await?;
        self.furnish(port, before_up).await.map(drop)
    }

    async fn attach(&self, port: &Port, pid: u32) -> Result<()> {
        let Some(name) = &port.peer else { return Ok(()) };
        let namespace = Namespace::of(pid)?;
        namespace.check_empty().await?;
        let peer = link::expect(&self.handle, "attach port", name).await?;
        // Moved and named in one request: it is never in the other namespace under a name that may be taken.
        let moved =
            LinkUnspec::new_with_index(peer.index).name(INTERFACE).setns_by_fd(namespace.file().as_raw_fd()).build();
        link::change(&self.handle, "move into the instance", name, moved).await?;
        namespace.configure(&port.spec).await?;
        self.add_neighbours(port).await
    }

    /// Tells the bridge which hardware address the instance's addresses have.
    async fn add_neighbours(&self, port: &Port) -> Result<()> {
        for (address, _) in port.spec.prefixes() {
            self.set_neighbour(&port.spec.bridge.name, address, &port.mac).await?;
        }
        Ok(())
    }

    /// Removes what a failed step left and gives the step's own error on.
    async fn undo(&self, instance: &InstanceId, error: NetError) -> NetError {
        if let Err(left) = self.delete(instance).await {
            tracing::warn!(%instance, error = %left, "a half-made port could not be removed");
        }
        error
    }

    /// Removes neighbour entries with that hardware address, wherever they are: it is ours alone.
    async fn forget_neighbours(&self, mac: &Mac) -> Result<()> {
        let has = |m: &NeighbourMessage| {
            m.attributes.iter().any(|a| matches!(a, NeighbourAttribute::LinkLayerAddress(bytes) if bytes == mac))
        };
        let entries: Vec<NeighbourMessage> =
            self.handle.neighbours().get().execute().try_collect().await.map_err(refused("list", "neighbours"))?;
        let mut first = Ok(());
        for entry in entries.into_iter().filter(has) {
            let destination = entry.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(v4.to_string()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(v6.to_string()),
                _ => None,
            });
            let object = destination.unwrap_or_else(|| "without an address".to_owned());
            let removed = match self.handle.neighbours().del(entry).execute().await {
                Err(error) if !is_gone(&error) => Err(refused("remove neighbour", &object)(error)),
                _ => Ok(()),
            };
            first = first.and(removed);
        }
        first
    }
}

/// What can be seen to be wrong before the kernel is asked.
fn validate(spec: &PortSpec) -> Result<()> {
    let invalid =
        |reason: String| Err(NetError::Invalid { operation: "make port", object: spec.instance.to_string(), reason });
    let AddressPair { v4, v6 } = spec.addresses;
    if v4.is_none() && v6.is_none() {
        return invalid("it has no address".to_owned());
    }
    if let Some(v4) = v4
        && (!spec.bridge.v4.1.contains(&v4) || v4 == spec.bridge.v4.0)
    {
        return invalid(format!("{v4} is not a free address of {}", spec.bridge.v4.1));
    }
    match (v6, spec.bridge.v6) {
        (Some(v6), None) => invalid(format!("{v6} on a bridge without IPv6")),
        (Some(v6), Some((gateway, net))) if !net.contains(&v6) || v6 == gateway => {
            invalid(format!("{v6} is not a free address of {net}"))
        }
        _ => Ok(()),
    }
}
