//! Which technologies a node has what it takes for: programs, devices, an engine's socket.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where to look.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The container engine's socket.
    pub docker_socket: PathBuf,
    /// Directories of programs, as `PATH` has them.
    pub path: OsString,
    /// Root of the file system, `/` but for tests.
    pub root: PathBuf,
}

impl Probe {
    /// Labels of the technologies that are there. Whether their instances start is another question.
    #[must_use]
    pub fn technologies(&self) -> BTreeSet<String> {
        let kvm = self.there("/dev/kvm");
        let found = [
            ("docker", self.below(&self.docker_socket).exists()),
            ("spt", self.program("solo5-spt")),
            ("hvt", kvm && self.program("solo5-hvt")),
            ("qemu-microvm", self.program("qemu-system-x86_64")),
            ("qemu-pc", self.program("qemu-system-x86_64")),
            ("firecracker", kvm && self.program("firecracker")),
            ("xen", self.there("/proc/xen/capabilities")),
        ];
        found.into_iter().filter(|(_, there)| *there).map(|(label, _)| label.to_owned()).collect()
    }

    fn there(&self, path: &str) -> bool {
        self.below(Path::new(path)).exists()
    }

    fn program(&self, name: &str) -> bool {
        std::env::split_paths(&self.path).any(|dir| self.below(&dir).join(name).is_file())
    }

    fn below(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::fs;

    use super::*;

    #[test]
    fn what_is_there_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let probe =
            Probe { docker_socket: "/run/docker.sock".into(), path: "/sbin:/bin".into(), root: dir.path().into() };
        assert_eq!(probe.technologies(), BTreeSet::new());
        for parent in ["run", "bin", "dev"] {
            fs::create_dir(dir.path().join(parent)).unwrap();
        }
        for file in ["run/docker.sock", "bin/solo5-spt", "bin/firecracker"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let found = |probe: &Probe| probe.technologies().into_iter().collect::<Vec<_>>();
        assert_eq!(found(&probe), ["docker", "spt"]);
        fs::write(dir.path().join("dev/kvm"), "").unwrap();
        assert_eq!(found(&probe), ["docker", "firecracker", "spt"]);
    }
}
