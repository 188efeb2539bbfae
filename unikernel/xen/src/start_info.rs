//! What the loader tells a paravirtual (PV) guest (`struct start_info` of `public/xen.h`): above all, which frames of the
//! machine its own are. A PVH guest is told nothing of this.

use core::sync::atomic::{AtomicPtr, Ordering};

/// `struct start_info` of `public/xen.h`.
#[repr(C)]
pub struct StartInfo {
    magic: [u8; 32],
    /// Pages of this domain.
    pub pages: u64,
    /// Address of the shared page in the machine.
    pub shared_info: u64,
    flags: u32,
    store_frame: u64,
    store_events: u32,
    console_frame: u64,
    console_events: u32,
    pub page_tables: u64,
    pub page_table_frames: u64,
    /// Address of the list of frames: the machine's of each of this domain's.
    frames: u64,
    module_start: u64,
    module_length: u64,
    pub command_line: [u8; 1024],
}

static INFO: AtomicPtr<StartInfo> = AtomicPtr::new(core::ptr::null_mut());

/// Takes what the loader tells, first of all.
pub fn set(info: *mut StartInfo) {
    INFO.store(info, Ordering::Relaxed);
}

/// What the loader tells; nothing in a PVH guest.
pub fn info() -> Option<&'static StartInfo> {
    // SAFETY: set once, to a page that stays as it is.
    unsafe { INFO.load(Ordering::Relaxed).as_ref() }
}

impl StartInfo {
    /// The machine's frames of this domain's.
    pub fn list(&self) -> &'static [u64] {
        // SAFETY: the loader has made and mapped a list of that length, which stays.
        unsafe { core::slice::from_raw_parts(self.frames as *const u64, self.pages as usize) }
    }

    /// The machine's frame for one of this domain's.
    pub fn machine(&self, frame: u64) -> u64 {
        self.list().get(frame as usize).copied().unwrap_or_default()
    }

    /// The other way round.
    pub fn own(&self, machine: u64) -> Option<u64> {
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
}
