//! Numbers that the processor gives.

use core::arch::x86_64::{__cpuid, _rdtsc};

/// The cycle counter.
#[must_use]
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has it.
    unsafe { _rdtsc() }
}

/// A number that nobody can guess: the processor's own, where it has some, and the cycle counter.
#[must_use]
pub fn random() -> u64 {
    let mut number = 0u64;
    // CPUID.1:ECX.RDRAND
    if __cpuid(1).ecx & 1 << 30 != 0 {
        // SAFETY: the processor has just said that it can. A number that did not come leaves the counter alone.
        unsafe { core::arch::asm!("rdrand {}", out(reg) number, options(nomem, nostack)) };
    }
    number ^ cycles().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
