//! What differs in a paravirtual (PV) guest: its entry, memory that the loader has mapped in part, and frames of the machine
//! (`public/xen.h`, `public/arch-x86/xen.h`, `public/elfnote.h`). An address is a place in this domain's memory here, too;
//! what is told to others are frames of the machine.

use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, Ordering};

use unikernel_boot::Boot;

use crate::hypercall::{self, CODE, Refused};
use crate::page::PAGE_SIZE;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 6                   /* XEN_ELFNOTE_GUEST_OS */
    .asciz "Xen"
    .asciz "sel"
    .long 4, 8, 5                   /* XEN_ELFNOTE_XEN_VERSION */
    .asciz "Xen"
    .asciz "xen-3.0"
    .long 4, 8, 8                   /* XEN_ELFNOTE_LOADER */
    .asciz "Xen"
    .asciz "generic"
    .long 4, 8, 3                   /* XEN_ELFNOTE_VIRT_BASE */
    .asciz "Xen"
    .quad 0
    .long 4, 8, 4                   /* XEN_ELFNOTE_PADDR_OFFSET */
    .asciz "Xen"
    .quad 0
    .long 4, 8, 1                   /* XEN_ELFNOTE_ENTRY */
    .asciz "Xen"
    .quad pv_start
    .long 4, 8, 2                   /* XEN_ELFNOTE_HYPERCALL_PAGE */
    .asciz "Xen"
    .quad {code}

    .section .text.boot, "ax"
    .code64
    .globl pv_start
pv_start:
    cld
    mov rdi, rsi                    /* the loader's start info */
    mov rsp, offset stack_top
    call {enter}
    ud2
    "#,
    code = sym CODE,
    enter = sym enter,
);

/// `struct start_info` of `public/xen.h`.
#[repr(C)]
pub struct StartInfo {
    magic: [u8; 32],
    /// Pages of this domain.
    pages: u64,
    /// Address of the shared page in the machine.
    pub shared_info: u64,
    flags: u32,
    store_frame: u64,
    store_events: u32,
    console_frame: u64,
    console_events: u32,
    page_tables: u64,
    page_table_frames: u64,
    /// Address of the list of frames: the machine's of each of this domain's.
    frames: u64,
    module_start: u64,
    module_length: u64,
    command_line: [u8; 1024],
}

/// Bits of a page table's entry: present, then with the guest's, accessed and dirty, then with writable.
const PRESENT: u64 = 1;
const READ_ONLY: u64 = 0x65;
/// The last of these, for pages that are to be written to.
pub const WRITABLE: u64 = 0x67;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bytes.
const PAGE: u64 = PAGE_SIZE as u64;
/// Entries of a page table.
const ENTRIES: usize = 512;

static INFO: AtomicPtr<StartInfo> = AtomicPtr::new(core::ptr::null_mut());

/// What the loader tells; nothing in a PVH guest.
pub fn info() -> Option<&'static StartInfo> {
    // SAFETY: set once, to a page that stays as it is.
    unsafe { INFO.load(Ordering::Relaxed).as_ref() }
}

impl StartInfo {
    fn list(&self) -> &'static [u64] {
        // SAFETY: the loader has made and mapped a list of that length, which stays.
        unsafe { core::slice::from_raw_parts(self.frames as *const u64, self.pages as usize) }
    }

    /// The machine's frame for one of this domain's.
    pub fn machine(&self, frame: u64) -> u64 {
        self.list().get(frame as usize).copied().unwrap_or_default()
    }

    /// The other way round.
    fn own(&self, machine: u64) -> Option<u64> {
        self.list().iter().position(|frame| *frame == machine).map(|frame| frame as u64)
    }

    /// Frame of the store's ring, and its event channel.
    pub fn store(&self) -> (u64, u64) {
        (self.own(self.store_frame).unwrap_or_default(), self.store_events.into())
    }

    /// Frame of the console's ring, and its event channel.
    pub fn console(&self) -> (u64, u64) {
        (self.own(self.console_frame).unwrap_or_default(), self.console_events.into())
    }

    /// Where entry `index` of a page table is, and the address of the page that it tells of.
    fn entry(&self, table: u64, index: usize) -> (*const u64, Option<u64>) {
        let at = (table as *const u64).wrapping_add(index);
        // SAFETY: page tables are mapped, for reading.
        let value = unsafe { at.read_volatile() };
        let next = (value & PRESENT != 0).then(|| self.own((value & ADDRESS) / PAGE)).flatten();
        (at, next.map(|frame| frame * PAGE))
    }

    /// Maps what the loader has not, up to 1 GiB. Pages from `free` on become tables; the first one that is left.
    fn map_all(&self, mut free: u64) -> Result<u64, Refused> {
        let none = Refused(0);
        let third = self.entry(self.page_tables, 0).1.ok_or(none)?;
        let second = self.entry(third, 0).1.ok_or(none)?;
        for (index, frames) in self.list().chunks(ENTRIES).take(ENTRIES).enumerate() {
            let (at, table) = self.entry(second, index);
            if table.is_some() {
                continue;
            }
            let page = free;
            free += PAGE;
            for number in 0..ENTRIES {
                let value = frames.get(number).map_or(0, |frame| (frame * PAGE) | WRITABLE);
                // SAFETY: the page is mapped and nobody's yet.
                unsafe { (page as *mut u64).add(number).write_volatile(value) };
            }
            let frame = self.machine(page / PAGE) * PAGE;
            hypercall::map_address(page, frame | READ_ONLY)?;
            let entry = at as u64;
            let machine = self.machine(entry / PAGE) * PAGE + entry % PAGE;
            hypercall::update_table(machine, frame | WRITABLE)?;
        }
        Ok(free)
    }
}

extern "C" fn enter(info: *mut StartInfo) -> ! {
    INFO.store(info, Ordering::Relaxed);
    let Some(info) = self::info() else { unikernel_boot::reset() };
    // Behind the loader's page tables there is its stack, of one page; then nothing.
    let free = info.page_tables + (info.page_table_frames + 1) * PAGE;
    let most = info.pages.min((ENTRIES * ENTRIES) as u64) * PAGE;
    let Ok(start) = info.map_all(free) else { hypercall::end(hypercall::End::Crash) };
    let boot = Boot::new(start as usize, most.saturating_sub(start) as usize, &info.command_line);
    crate::run(&boot)
}
