//! What the program in the kernel would do with a frame: from its pins alone, and without a trace.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use xdp_balancer::frames::FrameBuilder;

use super::DatapathError;

/// The program on the live tables.
pub struct Explainer(xdp_balancer::Explainer);

/// What it did with a frame.
pub use xdp_balancer::Explained as Ran;

/// A frame with this datagram from a client; `None` where the two ends are not of one family, or it is too long. Built
/// by code that shares nothing with the program that is asked about it.
pub fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let possible = from.is_ipv4() == to.is_ipv4() && payload.len() <= LONGEST_PAYLOAD;
    possible.then(|| FrameBuilder::new(from, to).payload(payload).build())
}

/// With a UDP and an IPv4 header before it, as long as their lengths can say.
const LONGEST_PAYLOAD: usize = u16::MAX as usize - 28;

impl Explainer {
    /// Opens what is pinned there.
    ///
    /// # Errors
    /// [`DatapathError`] where nothing is, or not by this version, or without the right to.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        Ok(Self(xdp_balancer::Explainer::open(pin_dir)?))
    }

    /// Addresses that queries are answered for; none where all are.
    #[must_use]
    pub fn local(&self) -> Vec<IpAddr> {
        self.0.local()
    }

    /// Runs a frame of 14 to about 3,500 bytes.
    ///
    /// # Errors
    /// [`DatapathError`] where the kernel refuses.
    pub fn run(&self, frame: &[u8]) -> Result<Ran, DatapathError> {
        Ok(self.0.run(frame)?)
    }
}
