//! A fresh system to install into: a minimal root of this machine's own release, in a network and a mount
//! namespace of its own, so that nothing here is touched and nothing here is seen.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Mounted below the root, in this order.
const MOUNTS: &[(&str, &str)] = &[("proc", "proc"), ("sysfs", "sys"), ("bpf", "sys/fs/bpf"), ("tmpfs", "run")];

/// What installing any package changes: the package manager's own books, logs and caches.
const BOOKS: &[&str] = &["var/lib/dpkg", "var/log", "var/cache"];

/// Size, mode, owner and time of a file, by its path.
pub type Listing = BTreeMap<PathBuf, (u64, u32, u32, i64)>;

/// An installed system; gone with this value.
pub struct Root {
    directory: Option<TempDir>,
    mounted: Vec<CString>,
}

impl Root {
    /// Unpacks a fresh one and moves this thread into its namespaces, for good: the thread is the test's.
    ///
    /// # Errors
    /// Why there can be none, as a reason for skipping.
    pub fn fresh(target: &Path) -> Result<Self, String> {
        let cache = target.join("package-test");
        fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
        let base = base(&cache)?;
        let directory = TempDir::with_prefix_in("root-", &cache).expect("a directory for the root");
        let unpacked = Command::new("tar").arg("-xf").arg(&base).arg("-C").arg(directory.path()).output();
        let unpacked = unpacked.expect("tar");
        assert!(unpacked.status.success(), "tar: {}", String::from_utf8_lossy(&unpacked.stderr));

        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS).expect("namespaces");
        let nothing: Option<&CStr> = None;
        mount(nothing, c"/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
        let mut root = Self { directory: Some(directory), mounted: Vec::new() };
        for (kind, at) in MOUNTS {
            let at = CString::new(root.path().join(at).as_os_str().as_bytes()).expect("a path");
            mount(Some(*kind), at.as_c_str(), Some(*kind), MsFlags::empty(), nothing)
                .unwrap_or_else(|e| panic!("mount {kind} at {at:?}: {e}"));
            root.mounted.push(at);
        }
        Ok(root)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().expect("there until dropped").path()
    }

    /// A file of it, as this process sees it.
    pub fn file(&self, inside: &str) -> PathBuf {
        self.path().join(inside.trim_start_matches('/'))
    }

    /// A command to be run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.path()).arg(program).env_clear().current_dir("/");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a command inside and gives what it has written to standard output.
    ///
    /// # Panics
    /// Where it fails, with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().expect("chroot");
        succeeded(&format!("{program} {}", arguments.join(" ")), output)
    }

    /// All files but those of mounted file systems and the package manager's books.
    pub fn listing(&self) -> Listing {
        let mut found = Listing::new();
        let device = fs::metadata(self.path()).expect("the root").dev();
        let mut directories = vec![self.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).expect("a directory") {
                let entry = entry.expect("an entry");
                let below = entry.path().strip_prefix(self.path()).expect("below the root").to_owned();
                let meta = entry.metadata().expect("an entry's metadata");
                if meta.dev() != device || BOOKS.iter().any(|book| below == Path::new(book)) {
                    continue;
                }
                if meta.is_dir() {
                    directories.push(entry.path());
                    // Its time and size change whenever something comes and goes inside.
                    found.insert(below, (0, meta.mode(), meta.uid(), 0));
                } else {
                    found.insert(below, (meta.len(), meta.mode(), meta.uid(), meta.mtime()));
                }
            }
        }
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut clean = true;
        while let Some(at) = self.mounted.pop() {
            if let Err(error) = umount2(at.as_c_str(), MntFlags::MNT_DETACH) {
                eprintln!("umount {at:?}: {error}");
                clean = false;
            }
        }
        if let (false, Some(directory)) = (clean, self.directory.take()) {
            // Removing it would remove what is mounted there.
            eprintln!("left behind: {}", directory.keep().display());
        }
    }
}

/// Standard output of a command that must have succeeded.
pub fn succeeded(what: &str, output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The archive that roots are unpacked from, made once: by the test that comes first, and the others wait.
fn base(cache: &Path) -> Result<PathBuf, String> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let release = fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.map(|suite| suite.trim_matches('"')).ok_or("this system's release has no name for mmdebstrap")?;
    let archive = cache.join(format!("{suite}.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    // Under a name that no later run takes for a whole one.
    let part = cache.join(format!("{suite}-{}.tar", std::process::id()));
    let made = Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", suite]).arg(&part).output();
    let made = match made {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err("mmdebstrap is missing: run make setup".into()),
        made => made.map_err(|e| format!("mmdebstrap: {e}"))?,
    };
    if !made.status.success() {
        let _ = fs::remove_file(&part);
        let said = String::from_utf8_lossy(&made.stderr);
        return Err(format!("mmdebstrap made no root: {}", said.lines().last().unwrap_or_default().replace(')', "]")));
    }
    fs::rename(&part, &archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    Ok(archive)
}
