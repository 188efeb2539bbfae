//! What a process and its descendants use, read from their control groups: version 1, version 2, or both at once,
//! found at run time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Usage;

/// The files that tell one instance's usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    cpu: Cpu,
    memory: Memory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cpu {
    /// `cpuacct.usage`: nanoseconds.
    V1(PathBuf),
    /// `cpu.stat`: a line `usage_usec`.
    V2(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Memory {
    /// A directory with `memory.usage_in_bytes` and `memory.stat` (`total_inactive_file`).
    V1(PathBuf),
    /// A directory with `memory.current` and `memory.stat` (`inactive_file`).
    V2(PathBuf),
}

impl Cgroup {
    /// The groups that `pid` is in now.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let cpu = match directory(&groups, &mounts, "cpuacct") {
            Some(dir) => Some(Cpu::V1(dir.join("cpuacct.usage"))),
            None => unified(&groups, &mounts).map(|dir| Cpu::V2(dir.join("cpu.stat"))),
        };
        let memory = match directory(&groups, &mounts, "memory") {
            Some(dir) => Some(Memory::V1(dir)),
            None => unified(&groups, &mounts).map(Memory::V2),
        };
        let none = |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has no {what} cgroup"));
        Ok(Self { cpu: cpu.ok_or_else(|| none("CPU"))?, memory: memory.ok_or_else(|| none("memory"))? })
    }

    /// What has been used until now. Memory is what the kernel could not take back without harm: all that is
    /// charged without file pages that nobody has used for a while.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        let cpu_ns = match &self.cpu {
            Cpu::V1(file) => number(file)?,
            Cpu::V2(file) => field(file, "usage_usec")?.saturating_mul(1000),
        };
        let (charged, inactive) = match &self.memory {
            Memory::V1(dir) => {
                (number(&dir.join("memory.usage_in_bytes"))?, field(&dir.join("memory.stat"), "total_inactive_file")?)
            }
            Memory::V2(dir) => {
                (number(&dir.join("memory.current"))?, field(&dir.join("memory.stat"), "inactive_file")?)
            }
        };
        Ok(Usage { cpu_ns, memory_bytes: charged.saturating_sub(inactive) })
    }
}

/// A file that holds one number.
fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| malformed(path))
}

/// One line of a file of names and numbers.
fn field(path: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| malformed(path))
}

fn malformed(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} has another form than expected", path.display()))
}

/// The directory of a version 1 controller's group.
fn directory(groups: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let has = parts.next()?.split(',').any(|name| name == controller);
        has.then(|| parts.next()).flatten()
    })?;
    let mount = mounts
        .lines()
        .filter_map(Mount::parse)
        .find(|mount| mount.kind == "cgroup" && mount.options.split(',').any(|name| name == controller))?;
    mount.directory(group)
}

/// The directory of the group in the one tree of version 2.
fn unified(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.kind == "cgroup2")?;
    mount.directory(group)
}

/// One line of `mountinfo`, as far as it is needed.
pub(super) struct Mount<'a> {
    root: &'a str,
    pub(super) point: &'a str,
    pub(super) kind: &'a str,
    pub(super) options: &'a str,
}

impl<'a> Mount<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (left.next()?, left.next()?);
        let kind = right.next()?;
        Some(Self { root, point, kind, options: right.nth(1)? })
    }

    /// Where `group`, a path from the tree's root, is below this mount.
    fn directory(&self, group: &str) -> Option<PathBuf> {
        let below = if self.root == "/" { group } else { group.strip_prefix(self.root)? };
        Some(Path::new(self.point).join(below.trim_start_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    const V1: &str = "30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "25 20 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn both_versions_are_found() {
        let groups = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n";
        let cpu = directory(groups, V1, "cpuacct").unwrap();
        assert_eq!(cpu, Path::new("/sys/fs/cgroup/cpu,cpuacct/docker/abc"));
        assert_eq!(directory(groups, V1, "memory").unwrap(), Path::new("/sys/fs/cgroup/memory/docker/abc"));

        let groups = "0::/system.slice/docker-abc.scope\n";
        assert_eq!(directory(groups, V2, "memory"), None);
        assert_eq!(unified(groups, V2).unwrap(), Path::new("/sys/fs/cgroup/system.slice/docker-abc.scope"));
    }

    #[test]
    fn a_mount_of_a_part_of_the_tree_is_understood() {
        let mounts = "30 20 0:26 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let inside = directory("5:memory:/outer/docker/abc\n", mounts, "memory");
        assert_eq!(inside.unwrap(), Path::new("/sys/fs/cgroup/memory/docker/abc"));
        assert_eq!(directory("5:memory:/elsewhere\n", mounts, "memory"), None);
    }

    /// A directory of files as version 2 has them.
    #[test]
    fn version_2_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
        write("memory.current", "9000000\n");
        write("memory.stat", "anon 5000000\ninactive_anon 1\nactive_file 7\ninactive_file 4000000\n");
        let group = Cgroup { cpu: Cpu::V2(dir.path().join("cpu.stat")), memory: Memory::V2(dir.path().to_owned()) };
        assert_eq!(group.usage().unwrap(), Usage { cpu_ns: 1_500_000, memory_bytes: 5_000_000 });
        write("cpu.stat", "nr_periods 3\n");
        assert_eq!(group.usage().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn our_own_usage_rises() {
        let group = Cgroup::of(std::process::id()).unwrap();
        let before = group.usage().unwrap();
        assert!(before.memory_bytes > 0);
        let start = std::time::Instant::now();
        let mut turns = 0u64;
        while start.elapsed() < std::time::Duration::from_millis(50) {
            turns = std::hint::black_box(turns + 1);
        }
        assert!(group.usage().unwrap().cpu_ns > before.cpu_ns);
    }
}
