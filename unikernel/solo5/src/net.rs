//! Solo5's network device as smoltcp wants it: one frame at a time, each a call.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::abi;

/// Longest frame: Ethernet header and 1500 bytes.
const FRAME: usize = 1514;

/// The device with room for one frame each way.
pub struct Net {
    handle: u64,
    mac: [u8; 6],
    mtu: usize,
    incoming: [u8; FRAME],
    outgoing: [u8; FRAME],
}

impl Net {
    /// The device that the manifest names.
    pub fn acquire() -> Option<Self> {
        let (handle, info) = abi::acquire_net()?;
        let mtu = info.mtu.min(FRAME - 14);
        Some(Self { handle, mac: info.mac, mtu, incoming: [0; FRAME], outgoing: [0; FRAME] })
    }

    /// Hardware address.
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

/// A frame that came.
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame that goes.
pub struct Sent<'a> {
    handle: u64,
    room: &'a mut [u8; FRAME],
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let frame = &mut self.room[..length];
        let result = f(frame);
        abi::send(self.handle, frame);
        result
    }
}

impl Device for Net {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let length = abi::receive(self.handle, &mut self.incoming)?;
        let frame = self.incoming.get(..length)?;
        Some((Received(frame), Sent { handle: self.handle, room: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent { handle: self.handle, room: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        // smoltcp counts the Ethernet header in.
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}
