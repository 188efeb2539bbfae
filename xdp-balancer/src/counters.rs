//! Reading the counters: per CPU in the kernel, summed here.

use std::os::fd::AsFd as _;

use aya::maps::{IterableMap as _, MapError, PerCpuValues};
use aya::util::nr_cpus;
use xdp_balancer_common::{FlowCount, ServiceCount, Verdict, object};

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::maps::{Maps, sums};

/// Counters since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Random number of this set of maps. Another number than last time: the counters began anew.
    pub epoch: u64,
    /// Packets by [`Verdict`], in its order.
    pub verdicts: Vec<u64>,
    /// Counts by service index.
    pub services: Vec<ServiceCount>,
}

impl Counters {
    /// Packets that ended with a verdict.
    #[must_use]
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(verdict as usize).copied().unwrap_or(0)
    }
}

/// The verdict whose count differs; of one packet, its own.
pub(crate) fn changed(before: &[u64], after: &[u64]) -> Option<Verdict> {
    let index = before.iter().zip(after).position(|(before, after)| before != after)?;
    Verdict::ALL.get(index).copied()
}

impl Maps {
    /// Sums the counters of all CPUs.
    pub(crate) fn counters(&self, services: u32) -> Result<Counters, Error> {
        let mut verdicts =
            sums(self.verdicts.map().fd().as_fd(), object::VERDICTS, self.verdicts.len(), |a: &mut u64, b| *a += b)?;
        let services = services.min(self.services.len());
        let mut services = sums(self.services.map().fd().as_fd(), object::SERVICES, services, ServiceCount::add)?;
        for carried in &self.carried {
            for (index, total) in (0..).zip(&mut verdicts) {
                *total += carried.verdict(index)?;
            }
            for (index, total) in (0..).zip(&mut services) {
                total.add(&carried.service(index)?);
            }
        }
        Ok(Counters { epoch: self.settings().epoch, verdicts, services })
    }
}

impl Dataplane {
    /// Verdicts, and the counts of the services below index `services`.
    pub fn counters(&self, services: u32) -> Result<Counters, Error> {
        self.maps.counters(services)
    }

    /// An instance's counts; `None` if they are not kept for this interface.
    pub fn flow(&self, ifindex: u32) -> Result<Option<FlowCount>, Error> {
        let parts = match self.maps.flows.get(&ifindex, 0) {
            Ok(parts) => parts,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(Error::system("read", object::FLOWS)(error)),
        };
        let mut total = FlowCount::default();
        for part in parts.iter() {
            total.packets_to += part.packets_to;
            total.bytes_to += part.bytes_to;
            total.packets_from += part.packets_from;
            total.bytes_from += part.bytes_from;
            total.connections += part.connections;
            total.quiet_to += part.quiet_to;
        }
        Ok(Some(total))
    }

    /// Ends counting for an interface that is gone or given up; its filters go with it, and its connections are
    /// forgotten.
    pub fn forget_flow(&mut self, ifindex: u32) -> Result<(), Error> {
        self.end_flow(ifindex)?;
        self.forget_connections(ifindex)
    }

    fn end_flow(&mut self, ifindex: u32) -> Result<(), Error> {
        self.counted.remove(&ifindex);
        match self.maps.flows.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(Error::system("write", object::FLOWS)(error)),
        }
    }

    /// Interfaces that are counted.
    pub fn flows(&self) -> Result<Vec<u32>, Error> {
        self.maps.flows.keys().collect::<Result<_, _>>().map_err(Error::system("read", object::FLOWS))
    }

    pub(crate) fn flows_used(&self) -> Result<u32, Error> {
        Ok(self.flows()?.len() as u32)
    }

    /// Makes an interface's counters, if they are not there.
    pub(crate) fn make_flow(&mut self, ifindex: u32) -> Result<(), Error> {
        self.counted.insert(ifindex);
        const BPF_NOEXIST: u64 = 1;
        let cpus = nr_cpus().map_err(|(path, error)| Error::system("read", path)(error))?;
        let zero =
            PerCpuValues::try_from(vec![FlowCount::default(); cpus]).map_err(Error::system("write", object::FLOWS))?;
        match self.maps.flows.insert(ifindex, zero, BPF_NOEXIST) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                let (used, capacity) = (self.flows_used()?, self.maps.flows_capacity);
                Err(Error::Full { map: object::FLOWS, used, needed: used + 1, capacity })
            }
            Err(error) => Err(Error::system("write", object::FLOWS)(error)),
        }
    }
}
