//! The manifest: which devices the tender must give, in an ELF note (`mft_abi.h`, version 1).

const NAME_SIZE: usize = 68;
/// `MFT_RESERVED_FIRST`: the first entry is the bindings' own.
const RESERVED: u32 = 1 << 30;
#[cfg(feature = "storage")]
const BLOCK_BASIC: u32 = 1;
const NET_BASIC: u32 = 2;

#[cfg(feature = "storage")]
const DEVICES: [Entry; 3] = [entry(b"", RESERVED), entry(b"service", NET_BASIC), entry(b"storage", BLOCK_BASIC)];
#[cfg(not(feature = "storage"))]
const DEVICES: [Entry; 2] = [entry(b"", RESERVED), entry(b"service", NET_BASIC)];

#[repr(C)]
struct Entry {
    name: [u8; NAME_SIZE],
    kind: u32,
    properties: [u64; 2],
    backing: u64,
    attached: u64,
}

#[repr(C)]
struct Manifest {
    version: u32,
    entries: u32,
    list: [Entry; DEVICES.len()],
}

#[repr(C, align(4))]
struct Note {
    name_size: u32,
    size: u32,
    kind: u32,
    name: [u8; 8],
    padding: u32,
    manifest: Manifest,
}

const fn entry(text: &[u8], kind: u32) -> Entry {
    let mut name = [0; NAME_SIZE];
    let mut at = 0;
    while at < text.len() {
        name[at] = text[at];
        at += 1;
    }
    Entry { name, kind, properties: [0; 2], backing: 0, attached: 0 }
}

/// Without the header of three words and the padded name.
const SIZE: u32 = (core::mem::size_of::<Note>() - 20) as u32;

#[used]
#[unsafe(link_section = ".note.solo5.manifest")]
static NOTE: Note = Note {
    name_size: 6,
    size: SIZE,
    kind: 0x3154_464d,
    name: *b"Solo5\0\0\0",
    padding: 0,
    manifest: Manifest { version: 1, entries: DEVICES.len() as u32, list: DEVICES },
};
