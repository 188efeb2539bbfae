//! What tests do to a dataplane and no daemon may: run its program from other threads, and take protections out.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, MapData};
use aya::programs::{Program, TestRun as _, TestRunOptions};
use xdp_balancer_common::{BUCKET_SETS, Bucket, BucketSet, GRAIN, RingWord, object};

use crate::dataplane::{Dataplane, RunAction, RunResult};
use crate::error::Error;
use crate::object as elf;
use crate::plan::ring_bytes;
use crate::sys;
use crate::table::Table;

/// The program alone, to be run in one thread while another one publishes.
pub struct Runner(OwnedFd);

impl Runner {
    /// As [`Dataplane::run`].
    pub fn run(&self, frame: &[u8]) -> Result<RunResult, Error> {
        let mut out = vec![0; 4096];
        let run = sys::test_run(self.0.as_fd(), frame, &mut out);
        let (action, len, nanoseconds) = run.map_err(Error::system("run a frame through", object::XDP))?;
        out.truncate(len);
        Ok(RunResult { action: RunAction::of(action), frame: out, duration_ns: nanoseconds.into() })
    }
}

impl Dataplane {
    /// Moves the heartbeat: it was so long ago.
    pub fn set_heartbeat_age(&self, age: Duration) {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.maps.set_heartbeat(sys::monotonic_ns().saturating_sub(age).max(1));
    }

    /// Rewrites replies on the way out as on a kernel without tcx: from the next switching on, by a filter.
    pub fn without_tcx(&mut self) {
        self.tcx = false;
    }

    /// Fills every bucket with a prefix that nobody has, for so long.
    pub fn fill_buckets(&mut self, time: Duration) -> Result<(), Error> {
        let full_at = sys::monotonic_ns() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut buckets: Array<&mut MapData, BucketSet> = match self.object.map_mut(object::BUCKETS) {
            Some(map) => map.try_into().map_err(Error::system("open the map", object::BUCKETS))?,
            None => return Err(Error::Missing { name: object::BUCKETS }),
        };
        for index in 0..BUCKET_SETS {
            let bucket = |way: u64| Bucket { key: u64::from(index) << 8 | way << 1 | 1, full_at };
            let set = BucketSet(std::array::from_fn(|way| bucket(way as u64)));
            buckets.set(index, set, 0).map_err(Error::system("write", object::BUCKETS))?;
        }
        Ok(())
    }

    /// The program, once more.
    pub fn runner(&self) -> Result<Runner, Error> {
        let program = elf::loaded_xdp(&self.object)?.fd().map_err(Error::system("open", object::XDP))?;
        Ok(Runner(program.as_fd().try_clone_to_owned().map_err(Error::system("open", object::XDP))?))
    }

    /// Runs a frame that goes out through the classifier that rewrites replies; `None` where the kernel does not take it
    /// for a packet.
    pub fn run_out(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(Program::SchedClassifier(program)) = self.transit_object()?.program(object::TRANSIT_EGRESS) else {
            return Err(Error::Missing { name: object::TRANSIT_EGRESS });
        };
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        match program.test_run(options).map_err(Error::system("run a frame through", object::TRANSIT_EGRESS)) {
            Err(error) if error.errno() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
            Ok(result) => {
                out.truncate(result.data_size_out as usize);
                Ok(Some(out))
            }
        }
    }

    /// Publishes with the protection taken out: what is wanted is written over the answers in force, which programs
    /// are reading. Only for tables that differ from the one in force in the bytes of answers alone; generation and
    /// settings stay.
    pub fn publish_over(&mut self, table: &Table) -> Result<(), Error> {
        let wanted = table.check(self.maps.services.len(), &mut self.rings)?;
        for (wire, name) in &wanted.names {
            let installed = self.installed.names.get(wire);
            let rrsets = installed.into_iter().flat_map(|installed| &installed.rings);
            for ((_, grain), (_, ring)) in rrsets.zip(&name.rings) {
                let Some((rrset, ring)) = self.installed.rrsets.get(grain).zip(ring.as_ref()) else { continue };
                let (bytes, _) = ring_bytes(ring, rrset.run.0);
                assert_eq!(bytes.len(), rrset.run.1 as usize * GRAIN, "as many grains as before");
                self.maps.pool.write(rrset.run.0 as usize * GRAIN, &bytes);
            }
        }
        Ok(())
    }

    /// Damages the first RRset of a name (wire form, lower case): a ring of no turns, by client. False if there is no
    /// such name.
    pub fn damage(&mut self, wire: &[u8]) -> bool {
        let first = self.installed.names.get(wire).and_then(|name| name.rings.first());
        let Some((_, grain)) = first else { return false };
        self.maps.pool.store(*grain as usize * GRAIN, RingWord::ring(1, 0, true).0);
        true
    }
}
