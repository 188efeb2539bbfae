//! The kinds of port that instances are reached by.

/// What a technology's instances want for a port. It is made before the instance starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// A pair of virtual interfaces. After the start the instance's end is moved into its process's network
    /// namespace and configured there.
    Pair,
    /// A tap, whose other end the instance's process reads and writes itself; the instance configures its interface.
    Tap(TapUse),
}

/// How a process gets at its tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapUse {
    /// It inherits the open descriptor. The tap goes by itself when nobody has it open any more.
    Descriptor,
    /// It opens the tap by name, as this user. The tap stays until it is removed.
    Name {
        /// Numerical user id.
        user: u32,
    },
}
