//! Compares what is in the kernel with what was put there, and puts it right: somebody with the rights can alter, detach
//! and delete everything of ours.
//!
//! Two looks. A glance costs some system calls: pins, links, programs, settings. A full look reads all tables back, name
//! by name. The kernel tells nobody when a link is detached or its program replaced, so both are for a clock.

use std::os::fd::AsFd as _;

use xdp_balancer_common::{Settings, object};

use crate::dataplane::Dataplane;
use crate::drift::{Drift, DriftKind, Mended, mend_pin, mend_pin_at, pin_again};
use crate::error::Error;
use crate::hook::{create, instead_of_ours};
use crate::object as elf;
use crate::plan::Installed;
use crate::sys;
use crate::table::{Checked, CheckedName, Role, present};

impl Dataplane {
    /// Looks at pins, links, programs, settings and rules, and puts right what it can. What an operator took off by
    /// [`detach`](crate::detach) stays off, and an interface that is gone is none of its work.
    pub fn glance(&mut self) -> Result<Vec<Mended>, Error> {
        let mut found = Vec::new();
        self.maps.end_stale_capture(&self.pins)?;
        if let Some(drift) = self.settings_drift() {
            self.maps.set_settings(&self.settings);
            found.push((drift, Ok(())));
        }
        found.extend(self.mend_guard());
        for (name, map) in &self.pinned {
            found.extend(mend_pin(&self.pins, name, map.as_fd())?);
        }
        for interface in self.held.keys().cloned().collect::<Vec<_>>() {
            found.extend(self.mend_link(&interface)?);
        }
        if let Some(transit) = &mut self.transit {
            found.extend(transit.mend(&self.pins)?);
        }
        Ok(found)
    }

    /// Reads back all tables and counters' existence, and puts right what differs.
    pub fn audit(&mut self) -> Result<Vec<Mended>, Error> {
        let mut found = self.glance()?;
        let drifts = self.table_drifts()?;
        if !drifts.is_empty() {
            let mended = self.rewrite().map_err(|error| error.to_string());
            found.extend(drifts.into_iter().map(|drift| {
                let mended = mended.clone().map_err(Error::system("rewrite", object::POOL));
                (drift, mended)
            }));
        }
        found.extend(self.mend_lists()?);
        let there = self.flows()?;
        for ifindex in self.counted.iter().copied().filter(|index| !there.contains(index)).collect::<Vec<_>>() {
            match sys::if_name(ifindex) {
                Some(name) => {
                    let drift = Drift::new(DriftKind::Counter, name, "its packets are not counted");
                    found.push((drift, self.make_flow(ifindex)));
                }
                None => {
                    self.counted.remove(&ifindex);
                }
            }
        }
        Ok(found)
    }

    fn settings_drift(&self) -> Option<Drift> {
        let found = self.maps.settings();
        (found != self.settings)
            .then(|| Drift::new(DriftKind::Settings, object::POOL, settings_words(&found, &self.settings)))
    }

    fn table_drifts(&self) -> Result<Vec<Drift>, Error> {
        let wanted = self.installed.checked(&self.settings);
        match self.maps.read_installed(self.installed.pool.capacity()) {
            Ok(read) => Ok(differences(&read, &wanted)),
            Err(Error::Damaged { map, index, what }) => {
                Ok(vec![Drift::new(DriftKind::Table, format!("{map}[{index}]"), what)])
            }
            Err(error) => Err(error),
        }
    }

    /// Writes all tables again, each answer where it is: what is right does not change by that.
    fn rewrite(&mut self) -> Result<(), Error> {
        let writes = self.installed.image();
        self.maps.fill_pool(&writes);
        self.maps.store_words(&writes);
        if self.installed.names.is_empty() {
            return Ok(());
        }
        let next = self.installed.with_other_table()?;
        self.put_names(next)
    }

    fn mend_link(&mut self, interface: &str) -> Result<Vec<Mended>, Error> {
        let Some(held) = self.held.get_mut(interface) else { return Ok(Vec::new()) };
        let Some(ifindex) = sys::if_index(interface).filter(|_| !self.pins.is_off(interface)) else {
            return Ok(Vec::new());
        };
        let program = elf::loaded_xdp(&self.object)?.fd().map_err(Error::system("open", object::XDP))?;
        let own = elf::loaded_xdp(&self.object)?.info().map_err(Error::system("inspect", object::XDP))?.id();
        let inspect = |error| Error::system("inspect the link on", interface)(error);
        let pin = self.pins.link(interface);
        let mut found = Vec::new();
        let mut info = sys::link_info(held.link.as_fd()).map_err(inspect)?;
        if info.ifindex != ifindex {
            // Attached by hand after an order to take it off: then this link is as good.
            let by_hand = self.pins.links()?.into_iter().find(|link| link.info.ifindex == ifindex);
            if let Some(link) = by_hand {
                sys::link_update(link.link.as_fd(), program.as_fd())
                    .map_err(Error::system("replace the program on", interface))?;
                held.link = link.link;
                return Ok(found);
            }
            let mended = create(program.as_fd(), interface, ifindex, held.mode).and_then(|(link, _)| {
                pin_again(&pin, link.as_fd())?;
                held.link = link;
                Ok(())
            });
            found.push((Drift::new(DriftKind::Link, interface, "the link is detached"), mended));
            return Ok(found);
        }
        if info.program_id != own {
            let what = instead_of_ours(info.program_id);
            let mended = sys::link_update(held.link.as_fd(), program.as_fd())
                .map_err(Error::system("replace the program on", interface));
            info = sys::link_info(held.link.as_fd()).map_err(inspect)?;
            log::debug!("{interface} runs program {} now", info.program_id);
            found.push((Drift::new(DriftKind::Program, interface, what), mended));
        }
        found.extend(mend_pin_at(&self.pins, &pin, format!("links/{interface}"), held.link.as_fd())?);
        Ok(found)
    }
}

/// Which settings differ.
pub(crate) fn settings_words(found: &Settings, wanted: &Settings) -> String {
    let parts = [
        ("epoch", found.epoch != wanted.epoch),
        ("generation", found.generation != wanted.generation),
        ("cookie secret", found.cookie_secret != wanted.cookie_secret),
        ("features", found.features != wanted.features),
        ("IPv4 addresses", found.local4 != wanted.local4 || found.local_lens[0] != wanted.local_lens[0]),
        ("IPv6 addresses", found.local6 != wanted.local6 || found.local_lens[1] != wanted.local_lens[1]),
        ("monitors", found.quiet != wanted.quiet || found.quiet_lens != wanted.quiet_lens),
    ];
    let words: Vec<&str> = parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    if words.is_empty() { "others".to_owned() } else { words.join(", ") }
}

/// What the tables say else than is wanted, name by name; where the parts lie is nobody's matter.
pub(crate) fn differences(read: &Installed, wanted: &Checked) -> Vec<Drift> {
    let read = read.checked(&wanted.settings);
    let drift = |wire: &[u8], what: String| Drift::new(DriftKind::Table, present(wire), what);
    let mut found = Vec::new();
    for (wire, name) in &wanted.names {
        match read.names.get(wire) {
            None => found.push(drift(wire, "is not in the tables".to_owned())),
            Some(other) => found.extend(name_words(other, name).map(|what| drift(wire, what))),
        }
    }
    let extra = read.names.keys().filter(|wire| !wanted.names.contains_key(*wire));
    found.extend(extra.map(|wire| drift(wire, "is in the tables and shall not be".to_owned())));
    found
}

fn name_words(found: &CheckedName, wanted: &CheckedName) -> Option<String> {
    let mut words = Vec::new();
    if found.service != wanted.service {
        words.push(format!("counts for service {} instead of {}", found.service, wanted.service));
    }
    if found.wildcard != wanted.wildcard {
        words.push("another wildcard".to_owned());
    }
    let of = |name: &CheckedName, role: Role| name.rings.iter().find(|(r, _)| *r == role).map(|(_, ring)| ring.clone());
    let roles = |name: &CheckedName| name.rings.iter().map(|(role, _)| *role).collect::<Vec<_>>();
    for role in roles(wanted) {
        match (of(found, role), of(wanted, role)) {
            (None, _) => words.push(format!("has no {}", role_word(role))),
            (Some(found), Some(wanted)) if found != wanted => {
                words.push(format!("{}: answers differ", role_word(role)));
            }
            _ => {}
        }
    }
    let extra = roles(found).into_iter().filter(|role| of(wanted, *role).is_none());
    words.extend(extra.map(|role| format!("has {} and shall not", role_word(role))));
    (!words.is_empty()).then(|| words.join("; "))
}

fn role_word(role: Role) -> String {
    match role {
        Role::Type(_, 1) => "A".to_owned(),
        Role::Type(_, 28) => "AAAA".to_owned(),
        Role::Type(_, qtype) => format!("TYPE{qtype}"),
        Role::Others => "answer for other types".to_owned(),
        Role::Below => "answer for names below".to_owned(),
    }
}
