//! Network namespaces that `ip netns` lists, too.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::error::{LabError, Result};
use super::process::run;

/// A network namespace with its loopback up; removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    kept: bool,
}

impl Namespace {
    /// Makes a namespace of that name.
    ///
    /// # Errors
    /// [`LabError`], also where the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned(), kept: false };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A namespace that is there already; dropping this leaves it.
    #[must_use]
    pub fn existing(name: &str) -> Self {
        Self { name: name.to_owned(), kept: true }
    }

    /// Removes the namespace of that name; one that is gone already is a success.
    ///
    /// # Errors
    /// [`LabError`] where it is there and cannot be removed.
    pub fn remove(name: &str) -> Result<()> {
        if path_of(name).exists() {
            run(Command::new("ip").args(["netns", "del", name]))?;
        }
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Lets it outlive this value (a lab that stays up until its record is cleaned up).
    pub fn keep(mut self) {
        self.kept = true;
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).map_err(LabError::system("open namespace", &self.name))
    }

    /// Runs `work` in a thread of its own inside the namespace. Only the network changes: mounts, and with them
    /// `/sys/fs/bpf`, stay visible.
    ///
    /// # Errors
    /// [`LabError`] where the namespace cannot be entered.
    ///
    /// # Panics
    /// With whatever `work` panics with, so that assertions may be made inside.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.open()?;
        let name = &self.name;
        let inside = move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        match done {
            Ok(result) => result.map_err(LabError::system("enter namespace", name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A program that will start inside the namespace.
    ///
    /// # Errors
    /// [`LabError`] where the namespace is gone.
    pub fn command(&self, program: &str) -> Result<Command> {
        let file = self.open()?;
        let mut command = Command::new(program);
        let enter = move || setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe; nothing is allocated
        // and no lock is taken. The descriptor is owned by the closure and open in the child.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// `ip` with these arguments, inside.
    ///
    /// # Errors
    /// [`LabError::Program`] with what `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn up(&self, interface: &str) -> Result<()> {
        self.ip(&["link", "set", interface, "up"]).map(drop)
    }

    /// Gives an interface an address, IPv6 without duplicate detection.
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn add_address(&self, interface: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let text = format!("{address}/{prefix}");
        let mut words = vec!["addr", "add", &text, "dev", interface];
        if address.is_ipv6() {
            words.push("nodad");
        }
        self.ip(&words).map(drop)
    }

    /// A static route to `destination` (`default` or a prefix).
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn add_route(&self, destination: &str, via: IpAddr) -> Result<()> {
        let family = if via.is_ipv6() { "-6" } else { "-4" };
        self.ip(&[family, "route", "add", destination, "via", &via.to_string()]).map(drop)
    }

    /// Makes an interface compute checksums before it sends. A virtual pair leaves them out otherwise, and what
    /// sees the frame before the kernel's stack does (an XDP program) would see wrong ones.
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn checksums_by_software(&self, interface: &str) -> Result<()> {
        run(self.command("ethtool")?.args(["-K", interface, "tx", "off"])).map(drop)
    }

    /// A kernel setting under `/proc/sys/net` as this namespace has it.
    ///
    /// # Errors
    /// [`LabError`] where there is no such setting.
    pub fn setting(&self, path: &str) -> Result<String> {
        let file = format!("/proc/sys/net/{path}");
        let text = self.run_in(|| std::fs::read_to_string(&file))?;
        Ok(text.map_err(LabError::system("read", &file))?.trim().to_owned())
    }

    /// Changes a kernel setting under `/proc/sys/net` in this namespace.
    ///
    /// # Errors
    /// [`LabError`] where there is no such setting.
    pub fn set(&self, path: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{path}");
        self.run_in(|| std::fs::write(&file, value))?.map_err(LabError::system("write", &file))
    }

    /// Names of all interfaces.
    ///
    /// # Errors
    /// [`LabError::Program`].
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let lines = self.ip(&["-o", "link", "show"])?;
        let names = lines.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
        Ok(names.map(str::to_owned).collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = Self::remove(&self.name) {
            eprintln!("lab: {error}");
        }
    }
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// A virtual cable between two namespaces, both ends up and with software checksums.
///
/// # Errors
/// [`LabError`].
pub fn veth(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    a.0.ip(&["link", "add", a.1, "type", "veth", "peer", "name", b.1, "netns", b.0.name()])?;
    for (namespace, interface) in [a, b] {
        namespace.checksums_by_software(interface)?;
        namespace.up(interface)?;
    }
    Ok(())
}
