//! Interrupts: they end a sleep and do nothing else. The local APIC's timer and the network device's line are all
//! that there is.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use crate::serial::out;

const LOCAL_APIC: usize = 0xfee0_0000;
const IO_APIC: usize = 0xfec0_0000;
/// Vectors: above those of the processor's own faults.
const TIMER: u8 = 32;
const DEVICE: u8 = 33;
const SPURIOUS: u8 = 255;

/// Registers of the local APIC.
const SPURIOUS_VECTOR: usize = 0xf0;
const TIMER_VECTOR: usize = 0x320;
const TIMER_COUNT: usize = 0x380;
const TIMER_LEFT: usize = 0x390;
const TIMER_DIVISOR: usize = 0x3e0;

/// Longest time that the timer counts, in nanoseconds: it counts at 1 GHz in QEMU, KVM and Firecracker.
const LONGEST: i64 = 4_000_000_000;

fn write(base: usize, register: usize, value: u32) {
    // SAFETY: both APICs are mapped, and their registers are no memory.
    unsafe { ((base + register) as *mut u32).write_volatile(value) }
}

/// What is left of the timer's count.
pub fn timer_left() -> u32 {
    // SAFETY: as for `write`.
    unsafe { ((LOCAL_APIC + TIMER_LEFT) as *const u32).read_volatile() }
}

/// Starts the timer at a count; 0 stops it.
pub fn start_timer(count: u32) {
    write(LOCAL_APIC, TIMER_COUNT, count);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u16,
    selector: u16,
    kind: u16,
    middle: u16,
    high: u32,
    reserved: u32,
}

struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: there is one processor, and the table is written before interrupts are on.
unsafe impl Sync for Table {}

static TABLE: Table =
    Table(UnsafeCell::new([Gate { low: 0, selector: 0, kind: 0, middle: 0, high: 0, reserved: 0 }; 256]));

/// Says that the interrupt was taken. The sleeper looks for its cause itself.
#[unsafe(naked)]
extern "C" fn taken() {
    naked_asm!("push rax", "mov eax, 0xfee000b0", "mov dword ptr [rax], 0", "pop rax", "iretq");
}

#[unsafe(naked)]
extern "C" fn spurious() {
    naked_asm!("iretq");
}

/// Makes interrupts reach this processor. They are off until [`sleep`].
pub fn start() {
    let gate = |handler: extern "C" fn()| {
        let address = handler as usize as u64;
        Gate {
            low: address as u16,
            selector: 8,
            // Present, interrupt gate.
            kind: 0x8e00,
            middle: (address >> 16) as u16,
            high: (address >> 32) as u32,
            reserved: 0,
        }
    };
    // SAFETY: nobody else has a reference to the table, and interrupts are off.
    let table = unsafe { &mut *TABLE.0.get() };
    table[usize::from(TIMER)] = gate(taken);
    table[usize::from(DEVICE)] = gate(taken);
    table[usize::from(SPURIOUS)] = gate(spurious);
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer { limit: 4095, base: TABLE.0.get() as u64 };
    // SAFETY: the table stays, and its gates lead to handlers that restore what they use.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
    // The old controllers, where there are any, stay silent.
    out(0x21, 0xff);
    out(0xa1, 0xff);
    write(LOCAL_APIC, SPURIOUS_VECTOR, 0x100 | u32::from(SPURIOUS));
    // Undivided.
    write(LOCAL_APIC, TIMER_DIVISOR, 0b1011);
    write(LOCAL_APIC, TIMER_VECTOR, u32::from(TIMER));
}

/// Lets the line `number` of the I/O APIC wake this processor, by its edge.
pub fn enable_line(number: u32) {
    let entry = 0x10 + 2 * number;
    for (register, value) in [(entry + 1, 0), (entry, u32::from(DEVICE))] {
        write(IO_APIC, 0, register);
        write(IO_APIC, 0x10, value);
    }
}

/// Sleeps until an interrupt comes, at most so long.
pub fn sleep(nanoseconds: Option<i64>) {
    let count = nanoseconds.unwrap_or(LONGEST).clamp(1, LONGEST);
    start_timer(count as u32);
    // SAFETY: the handlers keep all registers. An interrupt that came before is taken behind `hlt`, for `sti` holds
    // it back for one instruction.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}
