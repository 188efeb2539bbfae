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

/// One network interface of a domain. Its end in this domain is an interface that [`Domain::interface`] names.
///
/// [`Domain::interface`]: crate::Domain::interface
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vif {
    /// Its address inside the guest.
    pub mac: Mac,
}

/// A domain's share of the processors, as the credit schedulers understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduling {
    /// Share relative to other domains; 256 where nothing is said.
    pub weight: u16,
    /// Most that it may use, in percent of one processor; 0 is as much as there is.
    pub cap: u32,
    /// Processors that it may run on; empty for all.
    pub processors: Vec<u32>,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self { weight: 256, cap: 0, processors: Vec::new() }
    }
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
    /// What its memory may be raised to while it runs, in MiB. A guest without a balloon driver has to have no more
    /// than `memory_mib`.
    pub max_memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// What their number may be raised to while it runs.
    pub max_vcpus: u32,
    /// Its share of the processors.
    pub scheduling: Scheduling,
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
    /// A line break in what is a line of `xl`'s configuration.
    #[error("{0} must hold no control character")]
    Control(&'static str),
    /// No share at all.
    #[error("weight must be above 0")]
    Weight,
    /// Fewer at most than at the beginning.
    #[error("{0} must not be less than at the beginning")]
    Maximum(&'static str),
    /// Two interfaces with one address.
    #[error("vif {second} has the address of vif {first}")]
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
        if self.max_memory_mib < self.memory_mib {
            return Err(SpecError::Maximum("max_memory_mib"));
        }
        if self.max_memory_mib > Self::MAX_MEMORY_MIB {
            return Err(SpecError::TooMuchMemory(self.max_memory_mib));
        }
        if self.max_vcpus < self.vcpus {
            return Err(SpecError::Maximum("max_vcpus"));
        }
        if self.max_vcpus > Self::MAX_VCPUS {
            return Err(SpecError::Vcpus(self.max_vcpus));
        }
        if self.scheduling.weight == 0 {
            return Err(SpecError::Weight);
        }
        if self.cmdline.len() >= Self::MAX_CMDLINE || self.cmdline.contains('\0') {
            return Err(SpecError::Cmdline);
        }
        let paths = [Some(("kernel", &self.kernel)), self.ramdisk.as_ref().map(|ramdisk| ("ramdisk", ramdisk))];
        for (what, path) in paths.into_iter().flatten() {
            // What is no text cannot be written into a configuration either.
            if path.to_str().is_none_or(|path| path.contains(char::is_control)) {
                return Err(SpecError::Control(what));
            }
        }
        if self.cmdline.contains(char::is_control) {
            return Err(SpecError::Control("cmdline"));
        }
        for (index, vif) in self.vifs.iter().enumerate() {
            if let Some(first) = self.vifs[..index].iter().position(|earlier| earlier.mac == vif.mac) {
                return Err(SpecError::SameVif { first, second: index });
            }
        }
        Ok(())
    }
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
            max_memory_mib: 32,
            vcpus: 1,
            max_vcpus: 1,
            scheduling: Scheduling::default(),
            vifs: vec![vif("00:16:3e:00:00:01")],
        }
    }

    fn vif(mac: &str) -> Vif {
        Vif { mac: mac.parse().unwrap() }
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
        let most = DomainSpec::MAX_MEMORY_MIB;
        assert_eq!(DomainSpec { memory_mib: most, max_memory_mib: most, ..spec() }.validate(), Ok(()));
        assert_eq!(wrong(|s| s.max_memory_mib = over), SpecError::TooMuchMemory(over));
        assert_eq!(wrong(|s| s.max_memory_mib = 31), SpecError::Maximum("max_memory_mib"));
        assert_eq!(wrong(|s| s.vcpus = 0), SpecError::Vcpus(0));
        assert_eq!(wrong(|s| s.vcpus = 129), SpecError::Vcpus(129));
        assert_eq!(DomainSpec { vcpus: 128, max_vcpus: 128, ..spec() }.validate(), Ok(()));
        assert_eq!(wrong(|s| s.max_vcpus = 129), SpecError::Vcpus(129));
        assert_eq!(wrong(|s| s.max_vcpus = 0), SpecError::Maximum("max_vcpus"));
        assert_eq!(wrong(|s| s.scheduling.weight = 0), SpecError::Weight);
        assert_eq!(wrong(|s| s.kernel = PathBuf::new()), SpecError::NoKernel);
        assert_eq!(wrong(|s| s.cmdline = "x".repeat(1024)), SpecError::Cmdline);
        assert_eq!(wrong(|s| s.cmdline = "a\0b".into()), SpecError::Cmdline);
        assert_eq!(DomainSpec { cmdline: "x".repeat(1023), ..spec() }.validate(), Ok(()));
        assert_eq!(wrong(|s| s.cmdline = "a\nb".into()), SpecError::Control("cmdline"));
        assert_eq!(wrong(|s| s.kernel = "/a\nb".into()), SpecError::Control("kernel"));
        assert_eq!(wrong(|s| s.ramdisk = Some("/a\tb".into())), SpecError::Control("ramdisk"));
    }

    #[test]
    fn interfaces_are_told_apart() {
        let same = SpecError::SameVif { first: 0, second: 1 };
        assert_eq!(wrong(|s| s.vifs.push(vif("00:16:3e:00:00:01"))), same);
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
