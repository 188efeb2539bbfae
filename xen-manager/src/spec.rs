//! What a domain shall be.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use crate::domain::DomainName;

/// How a guest is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainKind {
    /// Paravirtual: the guest knows that it runs on Xen and asks it for every page table.
    Pv,
    /// Hardware virtualization with paravirtual devices and no emulator.
    Pvh,
}

/// A network interface's hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac([u8; 6]);

/// Why a text is no [`Mac`] that an interface can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six bytes in hexadecimal with colons between them.
    #[error("{0:?} is no hardware address; one looks like 00:16:3e:00:00:01")]
    Form(String),
    /// A group's address, or none.
    #[error("{0} is the address of a group of interfaces or of none")]
    NotOne(Mac),
}

impl Mac {
    /// The six bytes, first one first on the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(form)?;
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(form());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        let mac = Self(octets);
        if octets == [0; 6] || octets[0] & 1 == 1 { Err(MacError::NotOne(mac)) } else { Ok(mac) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One network interface of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vif {
    /// Its address inside the guest.
    pub mac: Mac,
    /// Name of the end in this domain, which goes to the bridge.
    pub port: String,
}

/// What a domain shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// Its name.
    pub name: DomainName,
    /// How it is run.
    pub kind: DomainKind,
    /// The kernel, or the whole unikernel.
    pub kernel: PathBuf,
    /// Initial ramdisk, for a kernel that wants one.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Network interfaces, the first one first in the guest.
    pub vifs: Vec<Vif>,
}

/// What is wrong with a [`DomainSpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No memory.
    #[error("memory_mib must be above 0")]
    NoMemory,
    /// More memory than can be counted in pages.
    #[error("memory_mib must be at most {max}, not {0}", max = DomainSpec::MAX_MEMORY_MIB)]
    TooMuchMemory(u32),
    /// No or too many virtual CPUs.
    #[error("vcpus must be 1 to {max}, not {0}", max = DomainSpec::MAX_VCPUS)]
    Vcpus(u32),
    /// No kernel is named.
    #[error("kernel must name a file")]
    NoKernel,
    /// The command line holds a zero byte or is too long for the start page.
    #[error("cmdline must be shorter than {max} bytes and hold no zero byte", max = DomainSpec::MAX_CMDLINE)]
    Cmdline,
    /// An interface's name that the kernel would refuse.
    #[error("vif {index}: {port:?} is no interface's name (1 to 15 bytes, no '/', no blank)")]
    Port {
        /// Which interface, from 0.
        index: usize,
        /// Its name.
        port: String,
    },
    /// Two interfaces with one address or one name.
    #[error("vif {second} has the address or the name of vif {first}")]
    SameVif {
        /// The earlier one, from 0.
        first: usize,
        /// The later one.
        second: usize,
    },
}

impl DomainSpec {
    /// Most memory: 4 TiB.
    pub const MAX_MEMORY_MIB: u32 = 4 << 20;
    /// Most virtual CPUs, as many as the hypervisor allows a PVH guest.
    pub const MAX_VCPUS: u32 = 128;
    /// Room for the command line and its final zero byte (`MAX_GUEST_CMDLINE`).
    pub const MAX_CMDLINE: usize = 1024;

    /// Checks all that can be checked without a hypervisor and without looking at files.
    ///
    /// # Errors
    /// The first [`SpecError`] that is found.
    pub fn validate(&self) -> Result<(), SpecError> {
        let memory = NonZeroU32::new(self.memory_mib).ok_or(SpecError::NoMemory)?;
        if memory.get() > Self::MAX_MEMORY_MIB {
            return Err(SpecError::TooMuchMemory(memory.get()));
        }
        if self.vcpus == 0 || self.vcpus > Self::MAX_VCPUS {
            return Err(SpecError::Vcpus(self.vcpus));
        }
        if self.kernel.as_os_str().is_empty() {
            return Err(SpecError::NoKernel);
        }
        if self.cmdline.len() >= Self::MAX_CMDLINE || self.cmdline.contains('\0') {
            return Err(SpecError::Cmdline);
        }
        for (index, vif) in self.vifs.iter().enumerate() {
            if !is_interface_name(&vif.port) {
                return Err(SpecError::Port { index, port: vif.port.clone() });
            }
            let same = |earlier: &Vif| earlier.mac == vif.mac || earlier.port == vif.port;
            if let Some(first) = self.vifs[..index].iter().position(same) {
                return Err(SpecError::SameVif { first, second: index });
            }
        }
        Ok(())
    }
}

/// The kernel's rule for names of interfaces.
fn is_interface_name(name: &str) -> bool {
    let size = (1..=15).contains(&name.len());
    size && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    fn spec() -> DomainSpec {
        DomainSpec {
            name: "selvedge-video-1".parse().unwrap(),
            kind: DomainKind::Pvh,
            kernel: "/var/lib/images/web.xen".into(),
            ramdisk: None,
            cmdline: "ip=192.0.2.7".into(),
            memory_mib: 32,
            vcpus: 1,
            vifs: vec![vif("00:16:3e:00:00:01", "selv-1")],
        }
    }

    fn vif(mac: &str, port: &str) -> Vif {
        Vif { mac: mac.parse().unwrap(), port: port.into() }
    }

    /// What is wrong with the specification after a change.
    fn wrong(change: impl FnOnce(&mut DomainSpec)) -> SpecError {
        let mut spec = spec();
        change(&mut spec);
        spec.validate().unwrap_err()
    }

    #[test]
    fn a_small_unikernel_is_a_good_specification() {
        assert_eq!(spec().validate(), Ok(()));
        assert_eq!(DomainSpec { vifs: Vec::new(), cmdline: String::new(), ..spec() }.validate(), Ok(()));
    }

    #[test]
    fn each_limit_is_held_on_both_sides() {
        assert_eq!(wrong(|s| s.memory_mib = 0), SpecError::NoMemory);
        let over = DomainSpec::MAX_MEMORY_MIB + 1;
        assert_eq!(wrong(|s| s.memory_mib = over), SpecError::TooMuchMemory(over));
        assert_eq!(DomainSpec { memory_mib: DomainSpec::MAX_MEMORY_MIB, ..spec() }.validate(), Ok(()));
        assert_eq!(wrong(|s| s.vcpus = 0), SpecError::Vcpus(0));
        assert_eq!(wrong(|s| s.vcpus = 129), SpecError::Vcpus(129));
        assert_eq!(DomainSpec { vcpus: 128, ..spec() }.validate(), Ok(()));
        assert_eq!(wrong(|s| s.kernel = PathBuf::new()), SpecError::NoKernel);
        assert_eq!(wrong(|s| s.cmdline = "x".repeat(1024)), SpecError::Cmdline);
        assert_eq!(wrong(|s| s.cmdline = "a\0b".into()), SpecError::Cmdline);
        assert_eq!(DomainSpec { cmdline: "x".repeat(1023), ..spec() }.validate(), Ok(()));
    }

    #[test]
    fn interfaces_have_names_that_the_kernel_takes_and_are_told_apart() {
        for port in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-letters-"] {
            let error = wrong(|s| s.vifs[0].port = port.into());
            assert_eq!(error, SpecError::Port { index: 0, port: port.into() });
        }
        let same = SpecError::SameVif { first: 0, second: 1 };
        assert_eq!(wrong(|s| s.vifs.push(vif("00:16:3e:00:00:01", "selv-2"))), same);
        assert_eq!(wrong(|s| s.vifs.push(vif("00:16:3e:00:00:02", "selv-1"))), same);
    }

    #[test]
    fn hardware_addresses() {
        let mac: Mac = "00:16:3E:aa:00:ff".parse().unwrap();
        assert_eq!(mac.octets(), [0, 0x16, 0x3e, 0xaa, 0, 0xff]);
        assert_eq!(mac.to_string(), "00:16:3e:aa:00:ff");
        for text in ["", "00:16:3e:00:00", "00:16:3e:00:00:01:02", "0:16:3e:00:00:001", "00:16:3e:00:00:+1"] {
            assert_eq!(text.parse::<Mac>(), Err(MacError::Form(text.into())));
        }
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb"] {
            assert!(matches!(text.parse::<Mac>(), Err(MacError::NotOne(_))), "{text}");
        }
    }
}
