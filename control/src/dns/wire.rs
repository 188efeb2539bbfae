//! Domain names in wire form.

use super::error::IndexError;
use crate::model::parse_domain;
pub(super) use crate::model::suffixes;

/// The wildcard below a name.
pub(super) fn wildcard_of(name: &[u8]) -> Vec<u8> {
    [b"\x01*", name].concat()
}

/// Whether a name begins with the label `*`.
pub(super) fn is_wildcard(name: &[u8]) -> bool {
    name.starts_with(b"\x01*")
}

/// Reads a fully qualified name to its wire form. Not by hickory, to which `\DDD` is octal.
pub(super) fn name_as_written(what: &'static str, text: &str) -> Result<Vec<u8>, IndexError> {
    parse_domain(text.as_bytes(), None).map_err(|source| IndexError::Name { what, name: text.to_owned(), source })
}

/// Reads a fully qualified name to its wire form, lower case.
pub(super) fn name_bytes(what: &'static str, text: &str) -> Result<Vec<u8>, IndexError> {
    let mut wire = name_as_written(what, text)?;
    // Length bytes are below every letter.
    wire.make_ascii_lowercase();
    Ok(wire)
}
