//! What is not as it was put, and pins that are put right.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use crate::error::Error;
use crate::pins::{self, Pins};
use crate::sys;

/// A kind of thing that can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// A pin of a map or link.
    Pin,
    /// The link on an interface.
    Link,
    /// The program in it.
    Program,
    /// What is answered.
    Table,
    /// Addresses, secrets and numbers beside the tables.
    Settings,
    /// An instance's counters.
    Counter,
    /// Limits, lists and what becomes of stale tables.
    Rules,
    /// What rewrites replies on the way out: a link, or a filter and the qdisc that it is in.
    Filter,
}

impl DriftKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Pin, Self::Link, Self::Program, Self::Table, Self::Settings, Self::Counter, Self::Rules, Self::Filter];

    /// Short fixed name: metric label and JSON name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Link => "link",
            Self::Program => "program",
            Self::Table => "table",
            Self::Settings => "settings",
            Self::Counter => "counter",
            Self::Rules => "rules",
            Self::Filter => "filter",
        }
    }
}

/// Something that is not as it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What kind of thing.
    pub kind: DriftKind,
    /// Which: an interface, a pin, a name.
    pub object: String,
    /// What differs.
    pub what: String,
}

impl Drift {
    pub(crate) fn new(kind: DriftKind, object: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, object: object.into(), what: what.into() }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind.label(), self.object, self.what)
    }
}

/// A drift, and what came of the repair.
pub type Mended = (Drift, Result<(), Error>);

/// Pins a map again that shall be pinned under that name.
pub(crate) fn mend_pin(pins: &Pins, name: &'static str, map: BorrowedFd<'_>) -> Result<Option<Mended>, Error> {
    mend_pin_at(pins, &pins.map(name), name.to_owned(), map)
}

/// The same for any pin, whose directory is there.
pub(crate) fn mend_pin_at(
    pins: &Pins,
    path: &Path,
    name: String,
    object: BorrowedFd<'_>,
) -> Result<Option<Mended>, Error> {
    let Some(what) = pin_drift(path, object)? else { return Ok(None) };
    let mended = pins.create().and_then(|()| pin_again(path, object));
    Ok(Some((Drift::new(DriftKind::Pin, name, what), mended)))
}

/// What is wrong with a pin of an object.
fn pin_drift(path: &Path, object: BorrowedFd<'_>) -> Result<Option<&'static str>, Error> {
    let inspect = |error| Error::system("inspect the pin", path.display().to_string())(error);
    match sys::get(path) {
        Ok(pinned) => {
            let same = sys::object_id(pinned.as_fd()).map_err(inspect)? == sys::object_id(object).map_err(inspect)?;
            Ok((!same).then_some("something else is pinned there"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some("the pin is gone")),
        Err(error) => Err(inspect(error)),
    }
}

pub(crate) fn pin_again(path: &Path, object: BorrowedFd<'_>) -> Result<(), Error> {
    pins::remove(path)?;
    sys::pin(object, path).map_err(Error::system("pin", path.display().to_string()))
}

/// The pins of maps that are missing.
pub(crate) fn missing_pins(pins: &Pins, names: &[&'static str]) -> Vec<Drift> {
    let missing = names.iter().filter(|name| !pins.map(name).exists());
    missing.map(|name| Drift::new(DriftKind::Pin, *name, "the pin is gone")).collect()
}
