//! The kinds of port that instances are reached by.

/// What a technology's instances want for a port. It is made before the instance starts, where it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// A pair of virtual interfaces. After the start the instance's end is moved into its process's network
    /// namespace and configured there.
    Pair,
    /// A tap, whose other end the instance's process reads and writes itself; the instance configures its interface.
    Tap(TapUse),
    /// An interface that comes with the instance and goes with it, as a hypervisor's backend makes it; the instance
    /// configures its own end. It is joined to the bridge behind the start.
    Vif,
}

/// What of a running instance its port is joined to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortEnd {
    /// Its process: the interface of a pair is moved into its network namespace.
    Process(u32),
    /// The interface that came with it, by the name that it was made with.
    Interface(String),
}

impl From<u32> for PortEnd {
    fn from(pid: u32) -> Self {
        Self::Process(pid)
    }
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
