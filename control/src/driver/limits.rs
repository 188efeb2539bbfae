//! Control groups of our own making: limits on an instance's process, and the way to find it again.
//!
//! A process is put into its group before it becomes the instance, so a group's members are the instance whatever
//! happened to the daemon meanwhile. Version 1, version 2, or both at once, found at run time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cgroup::Mount;

/// Name of the group that holds all of ours.
const TOP: &str = "selvedge";
/// Length of the period that CPU time is dealt out by.
const PERIOD_US: u64 = 100_000;
/// Least that the kernel takes as a period's share.
const LEAST_QUOTA_US: u64 = 1_000;
/// How often the removal of a group is tried that the kernel still calls busy, a millisecond apart: a process that
/// has ended leaves its group a moment later, and version 1 tells nobody.
const REMOVALS: u32 = 500;

/// How often directories are made that others remove meanwhile.
const CREATIONS: u32 = 16;

/// What an instance may use. `None` leaves a limit as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Limits {
    /// Processors' worth of time.
    pub vcpus: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u32>,
}

impl Limits {
    fn quota_us(self) -> Option<u64> {
        self.vcpus.map(|vcpus| ((vcpus * PERIOD_US as f64) as u64).max(LEAST_QUOTA_US))
    }
}

/// One file of a group and what is written to it, if anything.
type Setting = (&'static str, fn(Limits) -> Option<String>);

/// Controllers of version 1 with their settings. `cpuacct` limits nothing, it counts.
const V1: [(&str, &[Setting]); 4] = [
    (
        "cpu",
        &[
            ("cpu.cfs_period_us", |l| l.vcpus.map(|_| PERIOD_US.to_string())),
            ("cpu.cfs_quota_us", |l| l.quota_us().map(|quota| quota.to_string())),
        ],
    ),
    ("cpuacct", &[]),
    ("memory", &[("memory.limit_in_bytes", |l| l.memory.map(|bytes| bytes.to_string()))]),
    ("pids", &[("pids.max", |l| l.tasks.map(|tasks| tasks.to_string()))]),
];

/// The same of version 2, where all are in one group.
const V2: &[Setting] = &[
    ("cpu.max", |l| l.quota_us().map(|quota| format!("{quota} {PERIOD_US}"))),
    ("memory.max", |l| l.memory.map(|bytes| bytes.to_string())),
    ("pids.max", |l| l.tasks.map(|tasks| tasks.to_string())),
];

/// One hierarchy that groups are made in.
#[derive(Debug, Clone)]
struct Hierarchy {
    root: PathBuf,
    settings: &'static [Setting],
    /// Version 2: controllers have to be handed down.
    unified: bool,
}

/// The node's hierarchies as far as they limit something.
#[derive(Debug, Clone)]
pub(super) struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Those that are mounted.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where memory cannot be limited by any.
    pub(super) fn find() -> io::Result<Self> {
        Self::of(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy limits memory here"))
    }

    fn of(mounts: &str) -> Option<Self> {
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let controller = |name: &str| {
            mounts.iter().find(|m| m.kind == "cgroup" && m.options.split(',').any(|option| option == name))
        };
        if controller("memory").is_some() {
            let found = V1.iter().filter_map(|(name, settings)| Some((controller(name)?, *settings)));
            let all = found.map(|(m, settings)| Hierarchy { root: m.point.into(), settings, unified: false });
            return Some(Self(all.collect()));
        }
        let mount = mounts.iter().find(|m| m.kind == "cgroup2")?;
        Some(Self(vec![Hierarchy { root: mount.point.into(), settings: V2, unified: true }]))
    }

    /// The group `name` of `owner`, there or not.
    pub(super) fn group(&self, owner: &str, name: &str) -> Group {
        let below = Path::new(TOP).join(owner).join(name);
        Group { parts: self.0.iter().map(|h| (h.clone(), h.root.join(&below))).collect() }
    }
}

/// One instance's group: a directory in each hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    parts: Vec<(Hierarchy, PathBuf)>,
}

impl Group {
    /// Makes it with its limits. One that is there gets these limits.
    pub(super) fn create(&self, limits: Limits) -> io::Result<()> {
        for (hierarchy, directory) in &self.parts {
            create_all(|| fs::create_dir_all(directory))?;
            if hierarchy.unified {
                hand_down(&hierarchy.root, directory)?;
            }
        }
        self.limit(limits)
    }

    /// Gives it these limits, also while processes are in it.
    pub(super) fn limit(&self, limits: Limits) -> io::Result<()> {
        for (hierarchy, directory) in &self.parts {
            for (file, value) in hierarchy.settings {
                if let Some(value) = value(limits) {
                    fs::write(directory.join(file), value)?;
                }
            }
        }
        Ok(())
    }

    /// The files through which a process with one thread enters, by writing `0`. They are opened here so that a
    /// process without privileges can.
    pub(super) fn doors(&self) -> io::Result<Vec<File>> {
        let open = |(hierarchy, directory): &(Hierarchy, PathBuf)| {
            // A thread that moves itself takes no lock; a whole process waits for a grace period, some 10 ms.
            let file = if hierarchy.unified { "cgroup.procs" } else { "tasks" };
            OpenOptions::new().write(true).open(directory.join(file))
        };
        self.parts.iter().map(open).collect()
    }

    /// Its processes that run, in any hierarchy; none where it is not there.
    pub(super) fn processes(&self) -> io::Result<Vec<u32>> {
        let mut all = Vec::new();
        for (_, directory) in &self.parts {
            match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Removes it; one that is not there is a success. No process may be in it any more.
    pub(super) fn remove(&self) -> io::Result<()> {
        for (_, directory) in &self.parts {
            let mut left = REMOVALS;
            loop {
                match fs::remove_dir(directory) {
                    Ok(()) => break,
                    Err(error) if is_gone(&error) => break,
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && left > 0 => left -= 1,
                    Err(error) => return Err(error),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            // The owner's group goes with its last instance, and ours with the last owner; a refusal means that there
            // are others.
            for above in directory.ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(above);
            }
        }
        Ok(())
    }
}

/// Makes a directory with those above it. They may be removed at the same moment with the last one that was in them;
/// then they are made again.
pub(super) fn create_all(create: impl Fn() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..CREATIONS {
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    create()
}

/// Makes the controllers of version 2 count in every group from the root down to the one above `directory`.
fn hand_down(root: &Path, directory: &Path) -> io::Result<()> {
    let below = directory.strip_prefix(root).unwrap_or(directory);
    let mut at = root.to_owned();
    for part in below.components() {
        fs::write(at.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
        at.push(part);
    }
    Ok(())
}

/// A group that is not there, or went away while its file was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let v1 = "30 20 0:26 / /cg/cpu rw - cgroup cgroup rw,cpu\n31 20 0:27 / /cg/memory rw - cgroup cgroup rw,memory\n\
                  32 20 0:28 / /cg/unified rw - cgroup2 cgroup2 rw\n";
        let group = Hierarchies::of(v1).unwrap().group("owner", "1");
        let places: Vec<_> = group.parts.iter().map(|(_, directory)| directory.to_str().unwrap()).collect();
        assert_eq!(places, ["/cg/cpu/selvedge/owner/1", "/cg/memory/selvedge/owner/1"]);
        let v2 = "25 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let group = Hierarchies::of(v2).unwrap().group("owner", "1");
        assert_eq!(group.parts[0].1, Path::new("/sys/fs/cgroup/selvedge/owner/1"));
        assert!(Hierarchies::of("1 1 0:1 / / rw - ext4 /dev/sda rw\n").is_none());
    }

    #[test]
    fn shares_of_time_are_what_the_kernel_takes() {
        let limits = |vcpus| Limits { vcpus: Some(vcpus), ..Limits::default() };
        assert_eq!(V2[0].1(limits(1.5)).as_deref(), Some("150000 100000"));
        assert_eq!(limits(0.001).quota_us(), Some(1000));
    }

    /// A tree of files laid out as version 2 lays them out: what is written where, for the life of a group.
    #[test]
    fn version_2_is_handed_down_limited_and_changed_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { root: dir.path().to_owned(), settings: V2, unified: true };
        let group = Hierarchies(vec![hierarchy]).group("owner", "spt-1");
        let at = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        group.create(Limits { vcpus: Some(0.5), memory: Some(64 << 20), tasks: Some(4) }).unwrap();
        for above in ["", "selvedge/", "selvedge/owner/"] {
            assert_eq!(at(&format!("{above}cgroup.subtree_control")), "+cpu +memory +pids");
        }
        // A group with processes of its own may hand nothing down.
        assert!(!dir.path().join("selvedge/owner/spt-1/cgroup.subtree_control").exists());
        let limits = || ["cpu.max", "memory.max", "pids.max"].map(|file| at(&format!("selvedge/owner/spt-1/{file}")));
        assert_eq!(limits(), ["50000 100000", "67108864", "4"]);
        group.limit(Limits { vcpus: Some(2.0), ..Limits::default() }).unwrap();
        assert_eq!(limits(), ["200000 100000", "67108864", "4"]);

        fs::write(dir.path().join("selvedge/owner/spt-1/cgroup.procs"), "12\n7\n12\n").unwrap();
        assert_eq!(group.processes().unwrap(), [7, 12]);
        let [mut door] = <[File; 1]>::try_from(group.doors().unwrap()).unwrap();
        io::Write::write_all(&mut door, b"0").unwrap();
        assert!(at("selvedge/owner/spt-1/cgroup.procs").starts_with('0'));
    }

    #[test]
    fn a_group_that_is_not_there_is_empty_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { root: dir.path().to_owned(), settings: &[], unified: false };
        let group = Hierarchies(vec![hierarchy]).group("owner", "1");
        assert_eq!(group.processes().unwrap(), Vec::<u32>::new());
        group.remove().unwrap();
    }
}
