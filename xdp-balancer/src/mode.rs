//! How interfaces run the program.

use crate::sys;

/// How an interface is to run the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver; where it cannot, in the network stack, with a warning; on a veth pair in the network stack, for
    /// what its driver sends back reaches the other end only if that runs a program too.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack, slower.
    Generic,
}

/// How an interface runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl AttachedMode {
    /// Short fixed name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// For the kernel.
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Native => sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => sys::XDP_FLAGS_SKB_MODE,
        }
    }
}
