//! Pages that are shared with the hypervisor or another domain. Memory is where it is: an address is physical as well.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use crate::start_info;

/// Bytes.
pub const PAGE_SIZE: usize = 4096;

/// A page of this image's own memory.
#[repr(C, align(4096))]
pub struct Page(UnsafeCell<[u8; PAGE_SIZE]>);

// SAFETY: there is one processor and no interrupt; what is in it is only read and written through `Shared`.
unsafe impl Sync for Page {}

impl Page {
    /// All zero.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; PAGE_SIZE]))
    }

    /// Where it is.
    pub fn address(&self) -> usize {
        self.0.get() as usize
    }

    /// For reading and writing.
    pub fn shared(&'static self) -> Shared {
        Shared(NonNull::from(self).cast())
    }
}

/// A page to which another writes as well: only volatile accesses.
#[derive(Clone, Copy)]
pub struct Shared(NonNull<u8>);

impl Shared {
    /// A page of the heap, which is never given back; zeroed. Nothing where there is no memory left.
    pub fn allocate() -> Option<Self> {
        let layout = Layout::from_size_align(PAGE_SIZE, PAGE_SIZE).ok()?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) }).map(Self)
    }

    /// The page of that frame, which the toolstack has made and nothing else here uses.
    pub fn at_frame(frame: u64) -> Option<Self> {
        NonNull::new((frame as usize * PAGE_SIZE) as *mut u8).map(Self)
    }

    /// Its frame, as other domains know it.
    pub fn frame(self) -> u32 {
        let own = (self.0.as_ptr() as usize / PAGE_SIZE) as u64;
        start_info::info().map_or(own, |info| info.machine(own)) as u32
    }

    /// Pointer to a value at `offset`, which is kept within the page.
    fn at<T>(self, offset: usize) -> *mut T {
        let offset = offset.min(PAGE_SIZE - size_of::<T>());
        // SAFETY: within the page.
        unsafe { self.0.as_ptr().add(offset).cast() }
    }

    /// A number at `offset`.
    pub fn read<T: Copy>(self, offset: usize) -> T {
        // SAFETY: within the page; callers read numbers, which have no wrong values, at offsets that fit their size.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Sets a number at `offset`.
    pub fn write<T: Copy>(self, offset: usize, value: T) {
        // SAFETY: as for `read`.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    /// Copies what is at `offset`; what would be behind the page is left out.
    pub fn copy_to(self, offset: usize, out: &mut [u8]) {
        let length = out.len().min(PAGE_SIZE.saturating_sub(offset));
        // SAFETY: within the page; a writer on the other side may make the bytes wrong and nothing else.
        unsafe { self.0.as_ptr().add(offset.min(PAGE_SIZE)).copy_to_nonoverlapping(out.as_mut_ptr(), length) };
    }

    /// The page's first bytes, to fill while no other reads them.
    ///
    /// # Safety
    /// No other reference to them may be there, and the other side must not have been given them.
    pub unsafe fn bytes(self, length: usize) -> &'static mut [u8] {
        // SAFETY: within the page, which is never given back; the caller answers for the rest.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_ptr(), length.min(PAGE_SIZE)) }
    }
}

/// Keeps the accesses before it before those behind it, as another processor sees them.
pub fn barrier() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
