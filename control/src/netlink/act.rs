//! Carrying steps out: one request each, undone newest first where that is asked for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::StreamExt;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourState};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::{LinkBridge, LinkIfb, LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder};

use super::diff::handle_of;
use super::error::{NetError, Result, errno_of, is_gone, refused};
use super::mark::{self, Mac};
use super::seen::Seen;
use super::step::{Adjust, Step};
use super::{Net, forwarding, link, tc};
use crate::model::{RouteSpec, Shaping, VxlanSpec};

impl Net {
    /// Carries all steps out, or none: after a failure those that were carried out are taken back, newest first, and the
    /// failure is returned.
    pub(super) async fn carry_out(&self, steps: &[Step], before: &Seen) -> Result<()> {
        let mut done: Vec<&Step> = Vec::new();
        for step in steps {
            if let Err(error) = self.execute(step).await {
                for reverse in done.iter().rev().filter_map(|step| step.reverse(before)) {
                    if let Err(left) = self.execute(&reverse).await {
                        tracing::warn!(step = ?reverse.change(), error = %left, "could not be taken back");
                    }
                }
                return Err(error);
            }
            done.push(step);
        }
        Ok(())
    }

    /// One step.
    pub(super) async fn execute(&self, step: &Step) -> Result<()> {
        match step {
            Step::AddBridge(spec) => {
                let message = LinkMessageBuilder::<LinkBridge>::new(&spec.name)
                    .stp_state(BridgeStpState::Disabled)
                    .address(mark::bridge_mac(&self.owner, &spec.name).to_vec());
                self.add_link(&spec.name, message.build()).await
            }
            Step::AddShaper(name) => {
                let message = LinkIfb::new(name).address(mark::shaper_mac(&self.owner, name).to_vec());
                self.add_link(name, message.build()).await?;
                let index = link::expect(&self.handle, "make link", name).await?.index;
                link::change(&self.handle, "make link", name, quiet(index)).await
            }
            Step::AddTunnel(spec) => self.add_tunnel(spec).await,
            Step::RemoveLink { name, .. } => match link::find(&self.handle, name).await? {
                Some(found) => link::remove(&self.handle, &found).await,
                None => Ok(()),
            },
            Step::RestorePort(id) => Box::pin(self.restore_port(id)).await,
            Step::Adjust { name, to, .. } => self.adjust_link(name, to).await,
            Step::AddAddress { link, address, prefix } => {
                let link = link::expect(&self.handle, "add address", link).await?;
                link::add_address(&self.handle, &link, *address, *prefix).await
            }
            Step::RemoveAddress { link, address, prefix } => self.remove_address(link, *address, *prefix).await,
            Step::AddRoute(route) => {
                let message = self.route(route).await?;
                let added = self.handle.route().add(message).execute().await;
                added.map_err(refused("add route", &route.to.to_string()))
            }
            Step::RemoveRoute(route) => {
                let message = self.route(route).await?;
                let removed = self.handle.route().del(message).execute().await;
                unless_gone(removed, "remove route", &route.to.to_string())
            }
            Step::SetNeighbour { link, address, mac } => self.set_neighbour(link, *address, mac).await,
            Step::RemoveNeighbour { link, address } => {
                let index = link::expect(&self.handle, "remove neighbour", link).await?.index;
                let removed = self.handle.neighbours().del(neighbour(index, *address)).execute().await;
                unless_gone(removed, "remove neighbour", &address.to_string())
            }
            Step::AddFlood { link, remote } => {
                let message = RouteNetlinkMessage::NewNeighbour(self.flood(link, *remote).await?);
                let flags = NLM_F_CREATE | NLM_F_APPEND;
                self.send(message, flags).await.map_err(refused("add remote to", link))
            }
            Step::RemoveFlood { link, remote } => {
                let message = RouteNetlinkMessage::DelNeighbour(self.flood(link, *remote).await?);
                unless_gone(self.send(message, 0).await, "remove remote from", link)
            }
            Step::SetBucket { link, shaping, limit_bytes, change } => {
                self.set_bucket(link, *shaping, *limit_bytes, *change).await
            }
            Step::RemoveBucket { link } => {
                let index = link::expect(&self.handle, "unshape", link).await?.index;
                let message = tc::root(index, handle_of(&self.owner));
                let removed = self.send(RouteNetlinkMessage::DelQueueDiscipline(message), 0).await;
                unless_gone(removed, "unshape", link)
            }
            Step::AddClsact { link } => {
                let index = link::expect(&self.handle, "add clsact to", link).await?.index;
                let message = RouteNetlinkMessage::NewQueueDiscipline(tc::clsact(index));
                match self.send(message, NLM_F_CREATE | NLM_F_EXCL).await.map_err(errno_of) {
                    // Whoever was faster has made the same.
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        Err(NetError::Refused { operation: "add clsact to", object: link.clone(), source: error })
                    }
                    _ => Ok(()),
                }
            }
            Step::RemoveClsact { link } => {
                let index = link::expect(&self.handle, "remove clsact from", link).await?.index;
                let message = RouteNetlinkMessage::DelQueueDiscipline(tc::clsact(index));
                unless_gone(self.send(message, 0).await, "remove clsact from", link)
            }
            Step::SetRedirect { link, to } => self.set_redirect(link, to).await,
            Step::RemoveRedirect { link } => {
                let index = link::expect(&self.handle, "remove the redirect of", link).await?.index;
                self.remove_redirect(index, link).await
            }
            Step::Set { path, value } => forwarding::set(path, value).map(drop),
            Step::Forward(change) => self.nft.apply(change),
        }
    }

    async fn add_link(&self, name: &str, message: LinkMessage) -> Result<()> {
        self.handle.link().add(message).execute().await.map_err(refused("make link", name))
    }

    async fn add_tunnel(&self, spec: &VxlanSpec) -> Result<()> {
        let message = LinkVxlan::new(&spec.name, spec.vni).port(spec.port).learning(true);
        let message = match spec.local {
            IpAddr::V4(local) => message.local(local),
            IpAddr::V6(local) => message.local6(local),
        };
        let message = message.mtu(spec.mtu).address(mark::tunnel_mac(&self.owner, &spec.name).to_vec());
        self.add_link(&spec.name, message.build()).await
    }

    async fn adjust_link(&self, name: &str, to: &Adjust) -> Result<()> {
        let index = link::expect(&self.handle, "adjust", name).await?.index;
        if let Some(stp) = to.stp {
            let state = if stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
            let message = LinkMessageBuilder::<LinkBridge>::new(name).stp_state(state).index(index).build();
            link::change(&self.handle, "set STP of", name, message).await?;
        }
        let mut message = LinkUnspec::new_with_index(index);
        if let Some(alias) = &to.alias {
            message = message.alias(alias.clone());
        }
        if let Some(mac) = to.mac {
            message = message.address(mac.to_vec());
        }
        if let Some(mtu) = to.mtu {
            message = message.mtu(mtu);
        }
        message = match &to.controller {
            Some(Some(bridge)) => message.controller(link::expect(&self.handle, "join to", bridge).await?.index),
            Some(None) => message.nocontroller(),
            None => message,
        };
        message = match to.up {
            Some(true) => message.up(),
            Some(false) => message.down(),
            None => message,
        };
        link::change(&self.handle, "adjust", name, message.build()).await
    }

    async fn remove_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let link = link::expect(&self.handle, "remove address", name).await?;
        for (held, len, message) in link::addresses(&self.handle, &link).await? {
            if (held, len) == (address, prefix) {
                let removed = self.handle.address().del(message).execute().await;
                unless_gone(removed, "remove address", &format!("{address}/{prefix} from {name}"))?;
            }
        }
        Ok(())
    }

    async fn route(&self, route: &RouteSpec) -> Result<RouteMessage> {
        let index = match &route.device {
            Some(device) => Some(link::expect(&self.handle, "route over", device).await?.index),
            None => None,
        };
        let protocol = RouteProtocol::Other(mark::ROUTE_PROTOCOL);
        // Without a next hop the destination is on the link itself.
        let scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let (to, len) = (route.to.addr(), route.to.prefix_len());
        let message = match to {
            IpAddr::V4(to) => {
                let mut builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, len).scope(scope);
                if let Some(IpAddr::V4(via)) = route.via {
                    builder = builder.gateway(via);
                }
                if let Some(index) = index {
                    builder = builder.output_interface(index);
                }
                builder.priority(route.metric).protocol(protocol).build()
            }
            IpAddr::V6(to) => {
                let mut builder = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, len);
                if let Some(IpAddr::V6(via)) = route.via {
                    builder = builder.gateway(via);
                }
                if let Some(index) = index {
                    builder = builder.output_interface(index);
                }
                builder.priority(route.metric).protocol(protocol).build()
            }
        };
        Ok(message)
    }

    /// An entry for good: no neighbour discovery, and no old entry of an address that is used again.
    pub(super) async fn set_neighbour(&self, bridge: &str, address: IpAddr, mac: &Mac) -> Result<()> {
        let index = link::expect(&self.handle, "add neighbour", bridge).await?.index;
        let request = self.handle.neighbours().add(index, address).link_layer_address(mac);
        request.replace().execute().await.map_err(|error| NetError::Refused {
            operation: "add neighbour",
            object: format!("{address} on {bridge}"),
            source: errno_of(error),
        })
    }

    /// An entry of a tunnel's forwarding table: what is for all goes there, too.
    async fn flood(&self, name: &str, remote: IpAddr) -> Result<NeighbourMessage> {
        let index = link::expect(&self.handle, "set remotes of", name).await?.index;
        let mut message = NeighbourMessage::default();
        message.header = NeighbourHeader {
            family: AddressFamily::Bridge,
            ifindex: index,
            state: NeighbourState::Permanent,
            flags: NeighbourFlags::Own,
            ..NeighbourHeader::default()
        };
        message.attributes =
            vec![NeighbourAttribute::LinkLayerAddress(vec![0; 6]), NeighbourAttribute::Destination(remote.into())];
        Ok(message)
    }

    async fn set_bucket(&self, name: &str, shaping: Shaping, limit_bytes: u32, change: bool) -> Result<()> {
        let index = link::expect(&self.handle, "shape", name).await?.index;
        let message = tc::bucket_message(index, handle_of(&self.owner), shaping, limit_bytes);
        // A change keeps the queue, so that no packet is lost.
        let flags = if change { 0 } else { NLM_F_CREATE | NLM_F_EXCL };
        self.send(RouteNetlinkMessage::NewQueueDiscipline(message), flags).await.map_err(refused("shape", name))
    }

    async fn set_redirect(&self, name: &str, to: &str) -> Result<()> {
        let operation = "redirect what is received by";
        let index = link::expect(&self.handle, operation, name).await?.index;
        let to = link::expect(&self.handle, operation, to).await?.index;
        self.remove_redirect(index, name).await?;
        let message = RouteNetlinkMessage::NewTrafficFilter(tc::redirect_message(index, to));
        self.send(message, NLM_F_CREATE | NLM_F_EXCL).await.map_err(refused(operation, name))
    }

    async fn remove_redirect(&self, index: u32, name: &str) -> Result<()> {
        let message: TcMessage = tc::redirect_place(index);
        let removed = self.send(RouteNetlinkMessage::DelTrafficFilter(message), 0).await;
        match removed.map_err(errno_of) {
            // EINVAL: there is no place for filters at all.
            Err(source) if !matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => {
                Err(NetError::Refused { operation: "remove the redirect of", object: name.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    /// One request that `rtnetlink` has no builder for.
    async fn send(&self, message: RouteNetlinkMessage, flags: u16) -> std::result::Result<(), rtnetlink::Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    }
}

/// A link gets no IPv6 address by itself: it is a part of a path, no interface of the node's.
pub(super) fn quiet(index: u32) -> LinkMessage {
    let mode = vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])];
    LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(mode)).build()
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::from(address))];
    message
}

/// What is gone already is removed.
fn unless_gone(done: std::result::Result<(), rtnetlink::Error>, operation: &'static str, object: &str) -> Result<()> {
    match done {
        Err(error) if !is_gone(&error) => {
            let source = errno_of(error);
            match source.raw_os_error() {
                // A route or an address that is not there.
                Some(libc::ESRCH | libc::EADDRNOTAVAIL) => Ok(()),
                _ => Err(NetError::Refused { operation, object: object.to_owned(), source }),
            }
        }
        _ => Ok(()),
    }
}
