//! From the loader's 32 bits without paging to Rust: page tables, long mode, a stack; then what the loader tells.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 8, 18                  /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .section .text.boot, "ax"
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    mov esp, offset stack_top
    mov esi, ebx                    /* the loader's start info */

    /* The first 4 GiB as they are, in pages of 2 MiB. */
    mov edi, offset page_directories
    mov eax, 0x83                   /* present, writable, large */
    mov ecx, 2048
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    loop 2b
    mov edi, offset page_pointers
    mov eax, offset page_directories
    or eax, 3
    mov ecx, 4
3:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x1000
    add edi, 8
    loop 3b
    mov eax, offset page_pointers
    or eax, 3
    mov edi, offset page_top
    mov [edi], eax

    mov cr3, edi
    mov eax, cr4
    or eax, 0x20                    /* PAE */
    mov cr4, eax
    mov ecx, 0xc0000080             /* EFER */
    rdmsr
    or eax, 0x100                   /* LME */
    wrmsr
    mov eax, cr0
    or eax, 0x80000001              /* PG, PE */
    mov cr0, eax
    lgdt [gdt_pointer]
    push 8
    mov eax, offset long_mode
    push eax
    retf

    .code64
long_mode:
    mov eax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov rsp, offset stack_top
    mov edi, esi
    call {enter}
    ud2

    .section .rodata
    .align 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff        /* 8: code, 64 bits */
    .quad 0x00cf92000000ffff        /* 16: data */
gdt_pointer:
    .word 23
    .long gdt

    .section .bss
    .align 4096
page_top:
    .skip 4096
page_pointers:
    .skip 4096
page_directories:
    .skip 4 * 4096
stack:
    .skip 256 * 1024
    .globl stack_top
stack_top:
    "#,
    enter = sym enter,
);

/// `struct hvm_start_info` of Xen's `public/arch-x86/hvm/start_info.h`, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_entries: u32,
    reserved: u32,
}

/// `struct hvm_memmap_table_entry`.
#[repr(C)]
struct MemoryEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
/// What the boot code has mapped.
const MAPPED: u64 = 1 << 32;
const LONGEST_LINE: usize = 2048;

/// What the loader tells, copied out of its memory.
pub struct Boot {
    /// First byte of memory behind the image.
    pub heap_start: usize,
    /// Its length.
    pub heap_size: usize,
    line: [u8; LONGEST_LINE],
    length: usize,
}

impl Boot {
    /// Of a loader of another kind; the command line ends at its first zero.
    #[must_use]
    pub fn new(heap_start: usize, heap_size: usize, text: &[u8]) -> Self {
        let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len()).min(LONGEST_LINE);
        let mut line = [0; LONGEST_LINE];
        line[..length].copy_from_slice(&text[..length]);
        Self { heap_start, heap_size, line, length }
    }

    /// The command line; empty where it is no text.
    pub fn command_line(&self) -> &str {
        core::str::from_utf8(&self.line[..self.length]).unwrap_or_default()
    }
}

unsafe extern "C" {
    static image_end: u8;
}

unsafe extern "Rust" {
    /// The image's own beginning.
    safe fn unikernel_main(boot: &Boot) -> !;
}

extern "C" fn enter(info: *const StartInfo) -> ! {
    // SAFETY: the loader gives the address of a structure of its own, in the memory that is mapped.
    let info = unsafe { &*info };
    if info.magic != MAGIC {
        reset();
    }
    let mut boot = Boot { heap_start: 0, heap_size: 0, line: [0; LONGEST_LINE], length: 0 };
    let line = info.command_line as *const u8;
    while !line.is_null() && boot.length < LONGEST_LINE {
        // SAFETY: the line ends in zero, and nothing behind that is read.
        let byte = unsafe { line.add(boot.length).read() };
        if byte == 0 {
            break;
        }
        boot.line[boot.length] = byte;
        boot.length += 1;
    }
    let start = (&raw const image_end) as u64;
    for number in 0..info.memory_entries as usize {
        // SAFETY: the loader says how many entries there are.
        let entry = unsafe { &*(info.memory_map as *const MemoryEntry).add(number) };
        let entry_end = entry.address.saturating_add(entry.size).min(MAPPED);
        if entry.kind == RAM && entry.address <= start && start < entry_end {
            (boot.heap_start, boot.heap_size) = (start as usize, (entry_end - start) as usize);
        }
    }
    unikernel_main(&boot)
}

/// Ends the machine: a fault that nothing handles resets it, and the monitor does not start it again.
pub fn reset() -> ! {
    let nothing = [0u8; 10];
    // SAFETY: nothing runs behind this.
    unsafe {
        core::arch::asm!("lidt [{}]", "int3", in(reg) &nothing, options(noreturn));
    }
}
