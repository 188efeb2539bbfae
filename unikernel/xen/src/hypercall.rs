//! Calls to the hypervisor, by the page of code that it fills in, of a PV guest before that begins. Numbers and
//! structures are those of Xen's `public/xen.h`, `sched.h`, `event_channel.h`, `memory.h` and `hvm/hvm_op.h`.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use crate::page::{PAGE_SIZE, Page};
use crate::start_info;

/// This domain, where a structure asks for one.
const DOMID_SELF: u16 = 0x7ff0;

const MMU_UPDATE: u64 = 1;
const MEMORY_OP: u64 = 12;
const UPDATE_VA_MAPPING: u64 = 14;
const GRANT_TABLE_OP: u64 = 20;
const SCHED_OP: u64 = 29;
const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;

/// Leaves of CPUID at which a hypervisor may answer, and how far they are from each other.
const FIRST_LEAF: u32 = 0x4000_0000;
const LAST_LEAF: u32 = 0x4001_0000;
const LEAF_STEP: usize = 0x100;

pub static CODE: Page = Page::new();

/// A call that the hypervisor refused, with `-errno` of `public/errno.h`.
#[derive(Debug, Clone, Copy)]
pub struct Refused(pub i64);

/// Why the domain ends (`SHUTDOWN_*` of `public/sched.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Off = 0,
    /// It is to start again.
    Reboot = 1,
    /// It cannot go on.
    Crash = 3,
}

/// What a page of this domain's memory is to be (`XENMAPSPACE_*`).
#[derive(Debug, Clone, Copy)]
pub enum Space {
    /// The page that the hypervisor shares: events and time.
    SharedInfo = 0,
    /// A frame of the grant table.
    GrantTable = 1,
}

/// A value that the toolstack has set for the domain (`public/hvm/params.h`).
#[derive(Debug, Clone, Copy)]
pub enum Parameter {
    /// Frame of the store's ring.
    StoreFrame = 1,
    /// Its event channel.
    StoreEvents = 2,
    /// Frame of the console's ring.
    ConsoleFrame = 17,
    /// Its event channel.
    ConsoleEvents = 18,
}

/// Asks for the page of calls. False where the hypervisor is not Xen.
pub fn start() -> bool {
    // "XenVMMXenVMM"
    let is_xen = |leaf: &u32| {
        let said = __cpuid(*leaf);
        (said.ebx, said.ecx, said.edx) == (0x566e_6558, 0x6558_4d4d, 0x4d4d_566e)
    };
    let Some(base) = (FIRST_LEAF..LAST_LEAF).step_by(LEAF_STEP).find(is_xen) else { return false };
    let register = __cpuid(base + 2).ebx;
    let address = CODE.address() as u64;
    // SAFETY: Xen names this register; it fills the page, which nothing else uses.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") address as u32, in("edx") (address >> 32) as u32);
    }
    true
}

/// One call.
///
/// # Safety
/// What the arguments point to must be what the call expects, and live as long as it uses it.
unsafe fn call(number: u64, [first, second, third, fourth]: [u64; 4]) -> Result<u64, Refused> {
    let entry = CODE.address() as u64 + number * 32;
    let result: i64;
    // SAFETY: `start` has let the page be filled; the caller answers for the arguments. The stack is free of a red zone.
    unsafe {
        asm!("call {entry}", entry = in(reg) entry, inout("rdi") first => _, inout("rsi") second => _,
            inout("rdx") third => _, inout("r10") fourth => _,
            lateout("rax") result, out("r8") _, out("r9") _, out("rcx") _, out("r11") _);
    }
    u64::try_from(result).map_err(|_| Refused(result))
}

/// A call with a structure that it reads and writes.
fn with<T>(number: u64, operation: u64, argument: &mut T) -> Result<u64, Refused> {
    // SAFETY: each caller gives the structure of its operation, which is borrowed until the call returns.
    unsafe { call(number, [operation, &raw mut *argument as u64, 1, 0]) }
}

/// A value that the toolstack has set.
pub fn parameter(which: Parameter) -> Result<u64, Refused> {
    #[repr(C)]
    struct GetParameter {
        domain: u16,
        index: u32,
        value: u64,
    }
    const GET: u64 = 1;
    if let Some(info) = start_info::info() {
        let ((store, store_events), (console, console_events)) = (info.store(), info.console());
        return Ok(match which {
            Parameter::StoreFrame => store,
            Parameter::StoreEvents => store_events,
            Parameter::ConsoleFrame => console,
            Parameter::ConsoleEvents => console_events,
        });
    }
    let mut get = GetParameter { domain: DOMID_SELF, index: which as u32, value: 0 };
    with(HVM_OP, GET, &mut get)?;
    Ok(get.value)
}

/// Puts a page of the hypervisor's in the place of one of this domain's.
pub fn map(space: Space, index: u64, page: &Page) -> Result<(), Refused> {
    #[repr(C)]
    struct AddToPhysmap {
        domain: u16,
        size: u16,
        space: u32,
        index: u64,
        frame: u64,
    }
    const ADD_TO_PHYSMAP: u64 = 7;
    if let Some(info) = start_info::info() {
        let machine = match space {
            Space::SharedInfo => info.shared_info,
            Space::GrantTable => grant_frame()? * PAGE_SIZE as u64,
        };
        return map_address(page.address() as u64, machine | WRITABLE);
    }
    let frame = (page.address() / PAGE_SIZE) as u64;
    let mut add = AddToPhysmap { domain: DOMID_SELF, size: 0, space: space as u32, index, frame };
    with(MEMORY_OP, ADD_TO_PHYSMAP, &mut add).map(drop)
}

/// Bits of a page table's entry for a page that is to be written to: present, the guest's, accessed, dirty, writable.
pub const WRITABLE: u64 = 0x67;

/// Sets the page table's entry for an address.
pub fn map_address(address: u64, entry: u64) -> Result<(), Refused> {
    const INVALIDATE: u64 = 2;
    // SAFETY: callers map what they may, at addresses that are nobody else's.
    unsafe { call(UPDATE_VA_MAPPING, [address, entry, INVALIDATE, 0]) }.map(drop)
}

/// Sets an entry, at an address of the machine, of a page table.
pub fn update_table(machine: u64, entry: u64) -> Result<(), Refused> {
    let mut update = [machine, entry];
    // SAFETY: one update, which is borrowed until the call returns.
    unsafe { call(MMU_UPDATE, [update.as_mut_ptr() as u64, 1, 0, DOMID_SELF.into()]) }.map(drop)
}

/// The machine's frame of the grant table's first.
fn grant_frame() -> Result<u64, Refused> {
    #[repr(C)]
    struct SetupTable {
        domain: u16,
        frames: u32,
        status: i16,
        list: *mut u64,
    }
    const SETUP_TABLE: u64 = 2;
    let mut frame = 0u64;
    let mut setup = SetupTable { domain: DOMID_SELF, frames: 1, status: 0, list: &raw mut frame };
    with(GRANT_TABLE_OP, SETUP_TABLE, &mut setup)?;
    if setup.status == 0 { Ok(frame) } else { Err(Refused(setup.status.into())) }
}

/// A new event channel that domain `remote` may bind to; its port here.
pub fn allocate_channel(remote: u16) -> Result<u32, Refused> {
    #[repr(C)]
    struct AllocateUnbound {
        domain: u16,
        remote: u16,
        port: u32,
    }
    const ALLOCATE_UNBOUND: u64 = 6;
    let mut allocate = AllocateUnbound { domain: DOMID_SELF, remote, port: 0 };
    with(EVENT_CHANNEL_OP, ALLOCATE_UNBOUND, &mut allocate)?;
    Ok(allocate.port)
}

/// Wakes the other end of a channel.
pub fn notify(mut port: u32) {
    const SEND: u64 = 4;
    // A channel whose other end is gone wakes nobody, and that is all.
    let _ = with(EVENT_CHANNEL_OP, SEND, &mut port);
}

/// Sleeps until one of the ports has an event, at most until the hypervisor's time `until` in nanoseconds; 0: no limit.
pub fn poll(ports: &[u32], until: u64) {
    #[repr(C)]
    struct Poll {
        ports: *const u32,
        count: u32,
        until: u64,
    }
    const POLL: u64 = 3;
    let mut poll = Poll { ports: ports.as_ptr(), count: ports.len() as u32, until };
    // Whatever it answers, the caller looks for events and time itself.
    let _ = with(SCHED_OP, POLL, &mut poll);
}

/// Ends the domain.
pub fn end(why: End) -> ! {
    const SHUTDOWN: u64 = 2;
    let mut reason = why as u32;
    let _ = with(SCHED_OP, SHUTDOWN, &mut reason);
    unikernel_boot::reset()
}
