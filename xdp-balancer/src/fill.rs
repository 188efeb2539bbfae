//! How full the maps are, each by what is really in it.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use aya::maps::MapData;
use xdp_balancer_common::{BUCKET_SETS, BUCKETS_OF_SET, Bucket, BucketSet, GRAIN, Guard, MAX_NAMES, NotedName, object};

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::maps;
use crate::plan::Installed;
use crate::sys;
use crate::transit::MAX_TRANSIT_INTERFACES;

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map, or `names`.
    pub map: &'static str,
    /// Elements in use; of the pool, bytes; of `BUCKETS`, client prefixes whose bucket is not full again.
    pub used: u32,
    /// Elements there are.
    pub capacity: u32,
}

impl Dataplane {
    /// How full the maps are: of tables and lists as installed, of counters and of what the program itself fills as it
    /// is in the kernel. Maps that are looked at only where something is switched on have nothing in use where it is not.
    pub fn fill(&self) -> Result<Vec<Fill>, Error> {
        use object::{BUCKETS, CEILINGS, CURSORS, FLOWS, LISTS, POOL, SERVICES, TOP_CLIENTS, TOP_NAMES, TRANSIT_HOOKS};
        let Installed { names, pool, cursors, .. } = &self.installed;
        let services = names.values().map(|name| name.service + 1).max().unwrap_or(0);
        let bytes = |grains: u32| grains.saturating_mul(GRAIN as u32);
        let features = self.maps.guard().features;
        let samples = features & Guard::SAMPLES != 0;
        let lists = self.rules.as_ref().map_or(0, |(_, lists)| lists.len() as u32);
        let total = self.maps.services.len();
        let mut all = vec![
            Fill { map: "names", used: names.len() as u32, capacity: MAX_NAMES },
            Fill { map: POOL, used: bytes(pool.used()), capacity: bytes(pool.capacity()) },
            Fill { map: CURSORS, used: cursors.used(), capacity: cursors.capacity() },
            Fill { map: SERVICES, used: services, capacity: total },
            Fill { map: CEILINGS, used: services, capacity: total },
            Fill { map: FLOWS, used: self.flows_used()?, capacity: self.maps.flows_capacity },
            self.connections_fill()?,
            Fill { map: LISTS, used: lists, capacity: self.maps.lists_capacity },
            Fill {
                map: BUCKETS,
                used: if features & Guard::LIMITS == 0 { 0 } else { self.buckets_used()? },
                capacity: BUCKET_SETS * BUCKETS_OF_SET as u32,
            },
            noted::<u64>(TOP_CLIENTS, &self.maps.top_clients, samples)?,
            noted::<NotedName>(TOP_NAMES, &self.maps.top_names, samples)?,
        ];
        let places = self.transit();
        if !places.is_empty() {
            let on = places.iter().filter(|place| place.program_id.is_some()).map(|place| place.interface.as_str());
            let used = on.collect::<BTreeSet<_>>().len() as u32;
            all.push(Fill { map: TRANSIT_HOOKS, used, capacity: MAX_TRANSIT_INTERFACES as u32 });
        }
        Ok(all)
    }

    fn buckets_used(&self) -> Result<u32, Error> {
        let map = maps::open(&self.pins, object::BUCKETS)?.ok_or(Error::Missing { name: object::BUCKETS })?;
        let sets = sys::lookup_batch::<u32, BucketSet>(map.fd().as_fd());
        let sets = sets.map_err(Error::system("read", object::BUCKETS))?;
        let now = sys::monotonic_ns();
        let taken = |bucket: &&Bucket| bucket.key != 0 && bucket.full_at > now;
        Ok(sets.iter().map(|(_, set)| set.0.iter().filter(taken).count() as u32).sum())
    }
}

/// Of a map of what was noted; keys are `K`.
fn noted<K: aya::Pod + Default>(name: &'static str, map: &MapData, on: bool) -> Result<Fill, Error> {
    let fd = map.fd().as_fd();
    let [_, _, capacity] = sys::map_size(fd).map_err(Error::system("inspect the map", name))?;
    let read = || sys::lookup_batch::<K, u64>(fd).map_err(Error::system("read", name));
    Ok(Fill { map: name, used: if on { read()?.len() as u32 } else { 0 }, capacity })
}
