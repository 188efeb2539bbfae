//! The console: a 16550 at its usual place, as monitors emulate it; it never is busy.

const PORT: u16 = 0x3f8;

/// Writes a text.
pub fn print(text: &str) {
    for byte in text.bytes() {
        out(PORT, byte);
    }
}

/// Writes a byte to a port.
pub fn out(port: u16, byte: u8) {
    // SAFETY: the ports that are used here are devices that no memory depends on.
    unsafe { core::arch::asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack)) }
}
