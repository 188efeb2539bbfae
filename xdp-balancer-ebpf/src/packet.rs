//! Access to the frame's bytes, in the few forms that the kernel's verifier can follow.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::Verdict;

/// First byte of the frame and the first one behind it. Valid until the frame is resized.
#[derive(Clone, Copy)]
pub struct Frame {
    /// Address of the first byte.
    pub data: usize,
    /// Address behind the last byte.
    pub end: usize,
}

impl Frame {
    /// The frame as it is now.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self { data: ctx.data(), end: ctx.data_end() }
    }

    /// Bytes in the frame.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.end - self.data
    }

    /// The same value, at most `MASK`, of which the verifier knows nothing else: it does not follow differences of
    /// addresses. So ways that differ only in this value are walked once.
    #[inline(always)]
    pub fn blurred<const MASK: usize>(self, value: usize) -> usize {
        let mut address = value;
        // Bounded before as well: nothing else may be added to an address.
        // SAFETY: a bitwise and, and an addition.
        unsafe {
            asm!(
                "{0} &= {2}",
                "{0} += {1}",
                inout(reg) address,
                in(reg) self.data,
                const MASK,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        (address - self.data) & MASK
    }

    /// A cursor that stands `offset` bytes into the frame.
    #[inline(always)]
    pub fn cursor(self, offset: usize) -> Cursor {
        Cursor { at: self.data + offset, end: self.end }
    }
}

/// A position in the frame: each step forward checks the bounds once.
#[derive(Clone, Copy)]
pub struct Cursor {
    /// Address of the next byte.
    pub at: usize,
    /// Address behind the frame.
    pub end: usize,
}

impl Cursor {
    /// Steps over `N` bytes and returns their address.
    #[inline(always)]
    pub fn take<const N: usize>(&mut self) -> Result<usize, Verdict> {
        let at = self.at;
        if at + N > self.end {
            return Err(Verdict::ShortFrame);
        }
        self.at = at + N;
        Ok(at)
    }

    /// [`take`](Self::take) for loops: the compared address is hidden from the compiler, which would
    /// otherwise compare the loop's own counter with arithmetic on the end that the verifier forbids, or make the
    /// address anew for each use, unchecked.
    #[inline(always)]
    pub fn step<const N: usize>(&mut self) -> Result<usize, Verdict> {
        let (at, next): (usize, usize);
        // SAFETY: a copy and an addition.
        unsafe {
            asm!(
                "{1} = {0}",
                "{1} += {2}",
                inout(reg) self.at => at,
                out(reg) next,
                const N,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        if next > self.end {
            return Err(Verdict::ShortFrame);
        }
        self.at = next;
        Ok(at)
    }

    /// Steps over the next eight bytes and returns them.
    #[inline(always)]
    pub fn chunk(&mut self) -> Option<u64> {
        let at = self.step::<8>().ok()?;
        // SAFETY: stepped over above.
        Some(unsafe { load::<u64>(at) })
    }

    /// The next four bytes and zeros, for the end of a frame, where eight would leave it. Enough for names: four bytes
    /// of type and class follow one, so a name ends within them. A way of its own that does not go on, because one that
    /// did would double the verifier's at each chunk.
    #[inline(always)]
    pub fn last_chunk(&self) -> Option<u64> {
        if self.at + 4 > self.end {
            return None;
        }
        // SAFETY: four bytes are inside the frame.
        let half = unsafe { load::<u32>(self.at) };
        Some(if cfg!(target_endian = "little") { u64::from(half) } else { u64::from(half) << 32 })
    }
}

/// Bytes of [`Cursor::last_chunk`] that are not made up.
pub const LAST_CHUNK: usize = 4;

/// Reads a value at any alignment.
///
/// A plain dereference on purpose: `read_unaligned` becomes one load per byte on this target, while
/// BPF loads of packet and map memory need no alignment.
///
/// # Safety
/// `at` points to `size_of::<T>()` readable bytes.
#[inline(always)]
pub unsafe fn load<T: Copy>(at: usize) -> T {
    // SAFETY: as above; the BPF machine has no alignment requirement for these loads.
    unsafe { *(at as *const T) }
}

/// Writes a value at any alignment; see [`load`].
///
/// # Safety
/// `at` points to `size_of::<T>()` writable bytes.
#[inline(always)]
pub unsafe fn store<T: Copy>(at: usize, value: T) {
    // SAFETY: as above.
    unsafe { *(at as *mut T) = value };
}

/// A chunk without its first `n` (1–8) bytes, and zeros behind.
#[inline(always)]
pub fn shift_down(chunk: u64, n: u32) -> u64 {
    if cfg!(target_endian = "little") { chunk >> ((n * 8) & 63) } else { chunk << ((n * 8) & 63) }
}

/// The same value, of which the compiler knows nothing. Keeps it from dropping a bounds check that
/// it can prove and the verifier cannot, and from replacing a pointer difference by a loop counter,
/// which would make the verifier walk the rest of the program once per round.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // An instruction it has to be: the kernel takes no second line of the source for one address.
    // SAFETY: a move of a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// The same value, at most `MASK`, as one of its own: what is learned of it by comparing says nothing of the
/// other. The verifier would otherwise walk the rest of the program once for each outcome of a loop.
#[inline(always)]
pub fn unlinked<const MASK: usize>(value: usize) -> usize {
    let mut value = value;
    // SAFETY: a bitwise and.
    unsafe { asm!("{0} &= {1}", inout(reg) value, const MASK, options(pure, nomem, nostack, preserves_flags)) };
    value
}
