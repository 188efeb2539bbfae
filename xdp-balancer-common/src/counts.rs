//! Counters; all per CPU with one writer each, summed by the reader. And the connections that are open.

/// Counts of one service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCount {
    /// Well-formed queries for a name of the service, whoever answers them.
    pub queries: u64,
    /// Of these, answered by the program.
    pub answered: u64,
    /// Of these, from clients that are no sign of use; see [`QuietPrefix`](crate::QuietPrefix).
    pub quiet: u64,
    /// A word that other versions know nothing of.
    #[cfg(feature = "other-layout")]
    pub more: u64,
}

/// Counts of one instance, taken at the host's end of its interface. Only unicast IP packets that
/// are not neighbour discovery count, so a silent instance stands still.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Packets towards the instance.
    pub packets_to: u64,
    /// Bytes of frames towards the instance.
    pub bytes_to: u64,
    /// Packets from the instance.
    pub packets_from: u64,
    /// Bytes of frames from the instance.
    pub bytes_from: u64,
    /// TCP connections opened towards the instance (SYN without ACK).
    pub connections: u64,
    /// Packets towards the instance from those that are no sign of use.
    pub quiet_to: u64,
}

/// Names a TCP connection of an instance.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionKey {
    /// Index of the host's end of the instance's interface.
    pub interface: u32,
    /// Ports of client and instance, network order.
    pub ports: [u16; 2],
    /// The client's address as it stands in packets; IPv4 as IPv6 maps it.
    pub client: [u32; 4],
}

/// What is known of a connection that is open.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// When it was accepted, nanoseconds on the monotonic clock.
    pub opened_ns: u64,
    /// Whether the client and the instance have closed their halves; each written in one direction only, so that
    /// neither overwrites the other's.
    pub closed: [u32; 2],
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for ServiceCount {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for FlowCount {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for ConnectionKey {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Connection {}
