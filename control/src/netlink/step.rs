//! One thing to do to the kernel's networks, in words, and its reverse.

use std::net::IpAddr;

use super::BridgeSpec;
use super::forward;
use super::mark::Mac;
use super::nft::Change;
use super::seen::{Seen, SeenRoute};
use crate::model::{InstanceId, NetChange, RouteSpec, Shaping, VxlanSpec};

/// A change of an existing link; `None` leaves a property as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Adjust {
    pub up: Option<bool>,
    pub alias: Option<String>,
    pub mac: Option<Mac>,
    pub stp: Option<bool>,
    pub mtu: Option<u32>,
    /// The bridge to join; the inner `None` for none.
    pub controller: Option<Option<String>>,
}

/// One step. Links are named, not numbered: a step may be about a link that an earlier one makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    AddBridge(BridgeSpec),
    AddShaper(String),
    AddTunnel(VxlanSpec),
    RemoveLink {
        object: &'static str,
        name: String,
    },
    RestorePort(InstanceId),
    Adjust {
        object: &'static str,
        name: String,
        to: Adjust,
    },
    AddAddress {
        link: String,
        address: IpAddr,
        prefix: u8,
    },
    RemoveAddress {
        link: String,
        address: IpAddr,
        prefix: u8,
    },
    AddRoute(RouteSpec),
    RemoveRoute(RouteSpec),
    SetNeighbour {
        link: String,
        address: IpAddr,
        mac: Mac,
    },
    RemoveNeighbour {
        link: String,
        address: IpAddr,
    },
    AddFlood {
        link: String,
        remote: IpAddr,
    },
    RemoveFlood {
        link: String,
        remote: IpAddr,
    },
    /// `change` where a bucket of ours is there and is changed in place.
    SetBucket {
        link: String,
        shaping: Shaping,
        limit_bytes: u32,
        change: bool,
    },
    RemoveBucket {
        link: String,
    },
    AddClsact {
        link: String,
    },
    RemoveClsact {
        link: String,
    },
    SetRedirect {
        link: String,
        to: String,
    },
    RemoveRedirect {
        link: String,
    },
    Set {
        path: String,
        value: String,
    },
    Forward(Change),
}

impl Step {
    /// What it is about, which one, and what is done.
    pub fn change(&self) -> NetChange {
        let (object, name, what) = match self {
            Self::AddBridge(spec) => ("bridge", spec.name.clone(), "add".to_owned()),
            Self::AddShaper(name) => ("shaper", name.clone(), "add".to_owned()),
            Self::AddTunnel(spec) => ("vxlan", spec.name.clone(), format!("add with VNI {}", spec.vni)),
            Self::RemoveLink { object, name } => (*object, name.clone(), "remove".to_owned()),
            Self::RestorePort(id) => ("port", id.interface(), "make again and move into the instance".to_owned()),
            Self::Adjust { object, name, to } => (*object, name.clone(), to.words()),
            Self::AddAddress { link, address, prefix } => ("address", format!("{address}/{prefix}"), on("add", link)),
            Self::RemoveAddress { link, address, prefix } => {
                ("address", format!("{address}/{prefix}"), on("remove", link))
            }
            Self::AddRoute(route) => ("route", route.to.to_string(), format!("add {}", hop(route))),
            Self::RemoveRoute(route) => ("route", route.to.to_string(), format!("remove {}", hop(route))),
            Self::SetNeighbour { link, address, .. } => ("neighbour", address.to_string(), on("set", link)),
            Self::RemoveNeighbour { link, address } => ("neighbour", address.to_string(), on("remove", link)),
            Self::AddFlood { link, remote } => ("vxlan", link.clone(), format!("add remote {remote}")),
            Self::RemoveFlood { link, remote } => ("vxlan", link.clone(), format!("remove remote {remote}")),
            Self::SetBucket { link, shaping, change, .. } => {
                let verb = if *change { "change" } else { "add" };
                let Shaping { rate_bps, burst_bytes } = shaping;
                ("qdisc", link.clone(), format!("{verb} rate {rate_bps} bit/s, burst {burst_bytes} bytes"))
            }
            Self::RemoveBucket { link } => ("qdisc", link.clone(), "remove".to_owned()),
            Self::AddClsact { link } => ("qdisc", link.clone(), "add clsact".to_owned()),
            Self::RemoveClsact { link } => ("qdisc", link.clone(), "remove clsact".to_owned()),
            Self::SetRedirect { link, to } => ("redirect", link.clone(), format!("set to {to}")),
            Self::RemoveRedirect { link } => ("redirect", link.clone(), "remove".to_owned()),
            Self::Set { path, value } => ("setting", path.clone(), format!("set to {value}")),
            Self::Forward(change) => return forward::words(change),
        };
        NetChange { object: object.to_owned(), name, what }
    }

    /// What takes it back, given what was there before. `None` where it cannot be taken back: removals of links, which
    /// come last for that reason, and ports, which undo themselves.
    pub fn reverse(&self, before: &Seen) -> Option<Self> {
        let remove = |object, name: &str| Some(Self::RemoveLink { object, name: name.to_owned() });
        match self.clone() {
            Self::AddBridge(spec) => remove("bridge", &spec.name),
            Self::AddShaper(name) => remove("shaper", &name),
            Self::AddTunnel(spec) => remove("vxlan", &spec.name),
            Self::RemoveLink { .. } | Self::RestorePort(_) | Self::Forward(_) => None,
            Self::Adjust { object, name, to } => {
                // Of a link that was not there before, the removal takes everything back.
                let to = to.reverse(&name, before)?;
                Some(Self::Adjust { object, name, to })
            }
            Self::AddAddress { link, address, prefix } => Some(Self::RemoveAddress { link, address, prefix }),
            Self::RemoveAddress { link, address, prefix } => Some(Self::AddAddress { link, address, prefix }),
            Self::AddRoute(route) => Some(Self::RemoveRoute(route)),
            Self::RemoveRoute(route) => Some(Self::AddRoute(route)),
            Self::SetNeighbour { link, address, .. } => {
                let index = before.link(&link)?.index;
                let known = before.neighbours.iter().find(|n| n.index == index && n.address == address);
                Some(match known.and_then(|n| n.mac) {
                    Some(mac) => Self::SetNeighbour { link, address, mac },
                    None => Self::RemoveNeighbour { link, address },
                })
            }
            Self::RemoveNeighbour { .. } => None,
            Self::AddFlood { link, remote } => Some(Self::RemoveFlood { link, remote }),
            Self::RemoveFlood { link, remote } => Some(Self::AddFlood { link, remote }),
            Self::SetBucket { link, .. } | Self::RemoveBucket { link } => {
                let removed = matches!(self, Self::RemoveBucket { .. });
                let old = before.root(before.link(&link)?.index).and_then(|q| q.bucket);
                Some(match old {
                    Some(bucket) => {
                        let (shaping, limit_bytes) = (bucket.shaping(), bucket.limit_bytes);
                        Self::SetBucket { link, shaping, limit_bytes, change: !removed }
                    }
                    None => Self::RemoveBucket { link },
                })
            }
            Self::AddClsact { link } => Some(Self::RemoveClsact { link }),
            Self::RemoveClsact { link } => Some(Self::AddClsact { link }),
            Self::SetRedirect { link, .. } | Self::RemoveRedirect { link } => {
                let old = before.redirects.get(&before.link(&link)?.index).and_then(|to| before.name(*to));
                Some(match old {
                    Some(to) => Self::SetRedirect { link, to: to.to_owned() },
                    None => Self::RemoveRedirect { link },
                })
            }
            Self::Set { path, .. } => {
                let value = before.settings.get(&path)?.clone();
                Some(Self::Set { path, value })
            }
        }
    }
}

impl Adjust {
    fn words(&self) -> String {
        let mut words = Vec::new();
        match self.up {
            Some(true) => words.push("bring up".to_owned()),
            Some(false) => words.push("take down".to_owned()),
            None => {}
        }
        match &self.controller {
            Some(Some(bridge)) => words.push(format!("join to {bridge}")),
            Some(None) => words.push("take off its bridge".to_owned()),
            None => {}
        }
        match self.stp {
            Some(true) => words.push("switch STP on".to_owned()),
            Some(false) => words.push("switch STP off".to_owned()),
            None => {}
        }
        if self.alias.is_some() {
            words.push("mark".to_owned());
        }
        if self.mac.is_some() {
            words.push("set hardware address".to_owned());
        }
        if let Some(mtu) = self.mtu {
            words.push(format!("set MTU {mtu}"));
        }
        words.join(", ")
    }

    fn reverse(&self, name: &str, before: &Seen) -> Option<Self> {
        let link = before.link(name)?;
        Some(Self {
            up: self.up.map(|_| link.up),
            alias: self.alias.as_ref().map(|_| link.alias.clone().unwrap_or_default()),
            mac: self.mac.and(link.mac),
            stp: self.stp.map(|_| matches!(link.nature, super::link::Nature::Bridge { stp: true })),
            mtu: self.mtu.map(|_| link.mtu),
            controller: self
                .controller
                .as_ref()
                .map(|_| link.controller.and_then(|index| before.name(index)).map(str::to_owned)),
        })
    }
}

fn on(verb: &str, link: &str) -> String {
    format!("{verb} on {link}")
}

fn hop(route: &RouteSpec) -> String {
    let via = route.via.map(|via| format!("via {via} "));
    let device = route.device.as_ref().map(|device| format!("dev {device} "));
    format!("{}{}metric {}", via.unwrap_or_default(), device.unwrap_or_default(), route.metric)
}

/// A route that is there, as it would be declared.
pub(super) fn declared(route: &SeenRoute, seen: &Seen) -> RouteSpec {
    let device = route.device.and_then(|index| seen.name(index)).map(str::to_owned);
    RouteSpec { to: route.to, via: route.via, device, metric: route.metric }
}
