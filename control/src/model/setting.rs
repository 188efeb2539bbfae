//! Settings of the whole node that were changed, and what it takes to change them back.

use serde::{Deserialize, Serialize};

/// A kernel setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Path under `/proc/sys`.
    pub path: String,
    /// Before.
    pub before: String,
    /// Now.
    pub after: String,
}
