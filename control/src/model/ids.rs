//! Identifiers: newtypes whose form is checked where they are made.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 1 to `max` bytes long.
    #[error("must be 1 to {max} characters, has {len}")]
    Length {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Holds another character than `a-z`, `0-9` and inner `-`.
    #[error("may hold a-z, 0-9 and '-' (not first or last) only, has {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
}

fn check_label(text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() || text.len() > max {
        return Err(IdError::Length { len: text.len(), max });
    }
    let bad = |(i, c): (usize, char)| {
        let inner = i != 0 && i != text.len() - 1;
        (!(c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && inner))).then_some(c)
    };
    match text.char_indices().find_map(bad) {
        Some(found) => Err(IdError::Character { found }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Longest form in bytes.
            pub const MAX: usize = $max;

            /// Checks the form.
            ///
            /// # Errors
            /// [`IdError`] where the text is too long or holds a character that is not allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check_label(&text, $max)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "maxLength": $max, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

text_id!(
    /// A service's name in configuration, API and metrics.
    ServiceName,
    40
);
text_id!(
    /// A node's name.
    NodeName,
    63
);
text_id!(
    /// One instance on this node: 8 hex digits, so that names derived from it (`sv` + id) stay within
    /// the kernel's 15 bytes for interfaces.
    InstanceId,
    8
);
text_id!(
    /// This installation's mark of ownership: 12 hex digits, made once and kept in the store. Only
    /// objects that bear it are ever changed or removed.
    OwnerId,
    12
);

impl InstanceId {
    /// From a random or counted number.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self(format!("{number:08x}"))
    }

    /// The host's end of its network interface.
    #[must_use]
    pub fn interface(&self) -> String {
        format!("sv{}", self.0)
    }
}

impl OwnerId {
    /// From a random number; the upper 16 bits are not used.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(format!("{:012x}", number & 0xffff_ffff_ffff))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn forms_are_checked() {
        assert!(ServiceName::new("video-1").is_ok());
        assert_eq!(ServiceName::new("Video"), Err(IdError::Character { found: 'V' }));
        assert_eq!(ServiceName::new("-a"), Err(IdError::Character { found: '-' }));
        assert_eq!(ServiceName::new(""), Err(IdError::Length { len: 0, max: 40 }));
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert!(InstanceId::from_number(u32::MAX).interface().len() <= 15);
        assert_eq!(InstanceId::new(InstanceId::from_number(7).as_str()).unwrap(), InstanceId::from_number(7));
    }
}
