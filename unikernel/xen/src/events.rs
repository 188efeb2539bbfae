//! The page that the hypervisor shares (`struct shared_info` of `public/xen.h`): pending events and the time. Events are
//! looked for, and slept for; no interrupt is ever taken.

use core::sync::atomic::{AtomicU64, Ordering};

use unikernel_boot::cycles;

use crate::hypercall::{self, Refused, Space};
use crate::page::{Page, Shared, barrier};

/// Offsets in the page: processor 0's time, all ports' pending bits and masks.
const TIME: usize = 32;
const PENDING: usize = 2048;
const MASK: usize = 2560;
/// Words of 64 ports.
const WORDS: usize = 64;

static INFO: Page = Page::new();

/// Gets the page. No event interrupts from here on.
pub fn start() -> Result<(), Refused> {
    hypercall::map(Space::SharedInfo, 0, &INFO)?;
    for word in 0..WORDS {
        info().write(MASK + word * 8, u64::MAX);
    }
    Ok(())
}

fn info() -> Shared {
    INFO.shared()
}

/// Takes the pending event of a port away; what it told of is to be looked for behind this.
pub fn take(port: u32) {
    let word = (port as usize / 64).min(WORDS - 1);
    let address = INFO.address() + PENDING + word * 8;
    // SAFETY: the page stays where it is, and the hypervisor changes the word by atomic accesses as well.
    let pending = unsafe { AtomicU64::from_ptr(address as *mut u64) };
    pending.fetch_and(!(1 << (port % 64)), Ordering::SeqCst);
}

/// The hypervisor's time in nanoseconds (`struct vcpu_time_info`): what it was when the page was last written, and the
/// cycles since then.
pub fn now() -> u64 {
    let at = info();
    loop {
        let version = at.read::<u32>(TIME);
        barrier();
        let (stamp, then) = (at.read::<u64>(TIME + 8), at.read::<u64>(TIME + 16));
        let (factor, shift) = (at.read::<u32>(TIME + 24), at.read::<i8>(TIME + 28));
        let passed = cycles().saturating_sub(stamp);
        barrier();
        // Odd: it is being written.
        if version & 1 == 0 && version == at.read::<u32>(TIME) {
            let shifted = if shift < 0 { passed >> -shift } else { passed << shift };
            return then + ((u128::from(shifted) * u128::from(factor)) >> 32) as u64;
        }
    }
}
