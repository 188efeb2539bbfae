//! Which domain, and what it is doing.

use std::fmt;
use std::str::FromStr;

use crate::identity::Uuid;

/// The hypervisor's number of a domain. It is given anew to another domain only after a long while, but it
/// is: whoever remembers a domain over a restart remembers its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u16);

impl DomainId {
    /// The domain that Selvedge itself runs in.
    pub const DOM0: Self = Self(0);
    /// Numbers from here on have special meanings in the hypervisor's interface (`DOMID_FIRST_RESERVED`).
    const FIRST_RESERVED: u16 = 0x7FF0;

    /// A number that a domain can have; none for those with special meanings.
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        if id < Self::FIRST_RESERVED { Some(Self(id)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A domain's name: letters, digits, `-`, `_` and `.`, at most [`DomainName::MAX`] of them, the first one a
/// letter or a digit and not all of them digits. Xen's tools take a name of digits for a number, and names
/// are part of XenStore paths and of log lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

/// Why a text is no [`DomainName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("a domain's name must not be empty")]
    Empty,
    /// More than [`DomainName::MAX`] bytes.
    #[error("a domain's name has at most {max} characters, this one has {0}", max = DomainName::MAX)]
    TooLong(usize),
    /// A character that is not allowed, or not allowed first.
    #[error("a domain's name must not have {character:?} at position {position}")]
    Character {
        /// Which.
        character: char,
        /// In characters, from 1.
        position: usize,
    },
    /// Digits alone.
    #[error("a domain's name must not be a number, which would be taken for a domain's id")]
    Number,
}

impl DomainName {
    /// Most bytes of a name.
    pub const MAX: usize = 63;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX {
            return Err(NameError::TooLong(text.chars().count()));
        }
        for (at, character) in text.chars().enumerate() {
            let inner = at > 0 && matches!(character, '-' | '_' | '.');
            if !character.is_ascii_alphanumeric() && !inner {
                return Err(NameError::Character { character, position: at + 1 });
            }
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NameError::Number);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A domain that is or was there: by the hypervisor's number and, as numbers are given again, by its UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Domain {
    /// Its number.
    pub id: DomainId,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name as the store has it, for people.
    pub name: String,
}

impl Domain {
    /// Where its entries are in the store.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/local/domain/{}", self.id)
    }

    /// Where the store has the end in dom0 of its network interface with this index, from 0.
    #[must_use]
    pub fn backend(&self, index: usize) -> String {
        format!("/local/domain/0/backend/vif/{}/{index}", self.id)
    }

    /// Name of the end in dom0 of its network interface with this index, from 0. It is there once the domain is made.
    #[must_use]
    pub fn interface(&self, index: usize) -> String {
        format!("vif{}.{index}", self.id)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// Why a domain has ended (`xen/include/public/sched.h`, `SHUTDOWN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The guest has powered off.
    PowerOff,
    /// The guest wants to be started anew.
    Reboot,
    /// The guest has been put to sleep.
    Suspend,
    /// The guest, or the hypervisor for it, has found it broken.
    Crash,
    /// The guest has not told its watchdog that it goes on.
    Watchdog,
    /// The guest wants its devices anew.
    SoftReset,
}

impl End {
    /// By the hypervisor's number.
    #[must_use]
    pub const fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::PowerOff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            _ => return None,
        })
    }

    /// Short fixed name for metrics, logs and documents.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Suspend => "suspend",
            Self::Crash => "crash",
            Self::Watchdog => "watchdog",
            Self::SoftReset => "soft_reset",
        }
    }
}

/// What a domain is doing, as the hypervisor says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainState {
    /// It is there and has not been let run, or is held.
    Paused,
    /// It runs, or would as soon as it has something to do.
    Running,
    /// It has ended by its own will; its memory is still held.
    Shutdown,
    /// It has ended by a fault of its own; its memory is still held.
    Crashed,
    /// It has been destroyed, and goes as soon as nobody maps its memory.
    Dying,
}

impl DomainState {
    /// Whether it can still answer anybody.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Paused | Self::Running)
    }

    /// Short fixed name for metrics, logs and documents.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Running => "running",
            Self::Shutdown => "shutdown",
            Self::Crashed => "crashed",
            Self::Dying => "dying",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn names_that_are_taken() {
        for name in ["a", "7up", "selvedge-video-3", "web_1.edge", &"x".repeat(63)] {
            assert_eq!(name.parse::<DomainName>().expect(name).as_str(), name);
        }
    }

    #[test]
    fn names_that_are_refused() {
        let refused = |text: &str| text.parse::<DomainName>().expect_err(text);
        assert_eq!(refused(""), NameError::Empty);
        assert_eq!(refused("42"), NameError::Number);
        assert_eq!(refused(&"x".repeat(64)), NameError::TooLong(64));
        assert_eq!(refused("-a"), NameError::Character { character: '-', position: 1 });
        assert_eq!(refused("a/b"), NameError::Character { character: '/', position: 2 });
        assert_eq!(refused("straße"), NameError::Character { character: 'ß', position: 5 });
        assert_eq!(refused("a\n"), NameError::Character { character: '\n', position: 2 });
    }

    #[test]
    fn reserved_numbers_are_no_domains() {
        assert_eq!(DomainId::new(0), Some(DomainId::DOM0));
        assert_eq!(DomainId::new(0x7FEF).map(DomainId::get), Some(0x7FEF));
        // DOMID_SELF, the first of the reserved ones.
        assert_eq!(DomainId::new(0x7FF0), None);
        assert_eq!(DomainId::new(u16::MAX), None);
    }

    #[test]
    fn only_a_domain_that_can_answer_is_alive() {
        assert!(DomainState::Running.is_alive() && DomainState::Paused.is_alive());
        for ended in [DomainState::Shutdown, DomainState::Crashed, DomainState::Dying] {
            assert!(!ended.is_alive(), "{}", ended.label());
        }
    }
}
