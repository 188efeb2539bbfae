//! What differs in a paravirtual (PV) guest: its entry, memory that the loader has mapped in part, and frames of the machine
//! (`public/xen.h`, `public/arch-x86/xen.h`, `public/elfnote.h`). An address is a place in this domain's memory here, too;
//! what is told to others are frames of the machine.

use core::arch::global_asm;

use unikernel_boot::Boot;

use crate::hypercall::{self, CODE, Refused, WRITABLE};
use crate::page::PAGE_SIZE;
use crate::start_info::{self, StartInfo};

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

/// Bits of a page table's entry: present, then with the guest's, accessed and dirty.
const PRESENT: u64 = 1;
const READ_ONLY: u64 = 0x65;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bytes.
const PAGE: u64 = PAGE_SIZE as u64;
/// Entries of a page table.
const ENTRIES: usize = 512;

impl StartInfo {
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
    start_info::set(info);
    let Some(info) = start_info::info() else { unikernel_boot::reset() };
    // Behind the loader's page tables there is its stack, of one page; then nothing.
    let free = info.page_tables + (info.page_table_frames + 1) * PAGE;
    let most = info.pages.min((ENTRIES * ENTRIES) as u64) * PAGE;
    let Ok(start) = info.map_all(free) else { hypercall::end(hypercall::End::Crash) };
    let boot = Boot::new(start as usize, most.saturating_sub(start) as usize, &info.command_line);
    crate::run(&boot)
}
