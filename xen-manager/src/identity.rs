//! Whose a domain is. The hypervisor keeps a UUID for each domain from the moment it is made; ours begin with their
//! owner's number. So a domain is told as ours without a file or an entry that could be missing, even where whoever made
//! it was killed halfway.

use std::fmt;
use std::str::FromStr;

/// Who owns domains: a number of 48 bits that one installation keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(u64);

impl Owner {
    /// An owner's number; none above 48 bits.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number < 1 << 48 { Some(Self(number)) } else { None }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// A domain's UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

/// A text that is no [`Uuid`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no UUID")]
pub struct UuidError(String);

impl Uuid {
    /// That of a new domain of `owner`: version 8 of RFC 9562, whose first 48 bits are free to use. `random` fills the
    /// rest. Tools that make a UUID at random say version 4, so none of theirs is taken for ours.
    #[must_use]
    pub fn of(owner: Owner, random: [u8; 16]) -> Self {
        let mut bytes = random;
        bytes[..6].copy_from_slice(&owner.0.to_be_bytes()[2..]);
        bytes[6] = 0x80 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// The bytes, first one first.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whose domain it is; `None` for what was made by others.
    #[must_use]
    pub fn owner(self) -> Option<Owner> {
        let ours = self.0[6] >> 4 == 8 && self.0[8] >> 6 == 2;
        let mut number = [0; 8];
        number[2..].copy_from_slice(&self.0[..6]);
        ours.then(|| Owner(u64::from_be_bytes(number)))
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        let wrong = || UuidError(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
            return Err(wrong());
        }
        let digits = groups.concat();
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            // `from_str_radix` would take a sign.
            let pair = digits.get(2 * at..2 * at + 2).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_owner_is_read_from_the_uuid() {
        let owner = Owner::new(0x00c0_ffee).unwrap();
        let uuid = Uuid::of(owner, [0xff; 16]);
        assert_eq!(uuid.to_string(), "000000c0-ffee-8fff-bfff-ffffffffffff");
        assert_eq!(uuid.owner(), Some(owner));
        assert_eq!(Owner::new(1 << 48), None);
    }

    #[test]
    fn others_uuids_have_no_owner() {
        for text in ["00000000-0000-0000-0000-000000000000", "000000c0-ffee-4fff-bfff-ffffffffffff"] {
            assert_eq!(text.parse::<Uuid>().unwrap().owner(), None, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_uuid() {
        for text in ["", "0", "000000c0-ffee-8fff-bfff-fffffffffff", "000000c0-ffee-8fff-bfff-ffffffffff+f"] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_one_comes_back(number in 0u64..1 << 48, random: [u8; 16]) {
            let owner = Owner::new(number).unwrap();
            let uuid = Uuid::of(owner, random);
            prop_assert_eq!(uuid.owner(), Some(owner));
            prop_assert_eq!(uuid.to_string().parse::<Uuid>().unwrap(), uuid);
        }
    }
}
