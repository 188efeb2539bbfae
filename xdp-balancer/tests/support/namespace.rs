//! Network namespaces with names, so that programs can be started in them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

/// A network namespace, removed with the test.
pub struct Namespace(String);

impl Namespace {
    pub fn create(name: &str) -> Self {
        ip(&["netns", "add", name]);
        Self(name.to_owned())
    }

    /// `ip` with these arguments, inside.
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.0], arguments].concat());
    }

    /// `tc` with these arguments, inside, but with the pins of outside, which `ip netns exec` and `tc -n` hide.
    pub fn tc(&self, arguments: &[&str]) {
        let output = self.run_in(|| Command::new("tc").args(arguments).output().unwrap());
        assert!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn up(&self, interface: &str) {
        self.ip(&["link", "set", interface, "up"]);
    }

    /// Whether the kernel has VLAN devices.
    pub fn has_vlan_devices(&self) -> bool {
        let add = ["-n", &self.0, "link", "add", "link", "lo", "name", "v", "type", "vlan", "id", "7"];
        Command::new("ip").args(add).output().unwrap().status.success()
    }

    /// Without duplicate detection.
    pub fn add_address(&self, interface: &str, address: std::net::IpAddr, prefix: u8) {
        let address_prefix = format!("{address}/{prefix}");
        let mut arguments = vec!["address", "add", &address_prefix, "dev", interface];
        if address.is_ipv6() {
            arguments.push("nodad");
        }
        self.ip(&arguments);
    }

    /// Sets a kernel setting below `/proc/sys`.
    pub fn set(&self, path: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/{path}"), value.to_owned());
        self.run_in(move || std::fs::write(path, value)).unwrap();
    }

    /// A program that will start inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Works inside, in a thread of its own.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        let inside = || {
            // SAFETY: an open descriptor of a namespace.
            assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A virtual cable between two namespaces, both ends up and with checksums by software.
pub fn veth(a: (&Namespace, &str), b: (&Namespace, &str)) {
    a.0.ip(&["link", "add", a.1, "type", "veth", "peer", "name", b.1, "netns", &b.0.0]);
    for (namespace, interface) in [a, b] {
        let output = namespace.command("ethtool").args(["-K", interface, "tx", "off"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        namespace.up(interface);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
