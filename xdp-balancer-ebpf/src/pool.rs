//! Reading what user space has put there. Any number of a grain is inside the pool once it is masked, so that a
//! broken table can lead to nonsense, but not out of it.

use xdp_balancer_common::{GRAIN, POOL_BYTES, ROOT_AT, Root, Verdict};

use crate::maps::POOL;

/// The pool.
#[derive(Clone, Copy)]
pub struct Base(usize);

impl Base {
    /// Finds it.
    #[inline(always)]
    pub fn get() -> Result<Self, Verdict> {
        Ok(Self(POOL.get_ptr(0).ok_or(Verdict::Broken)? as usize))
    }

    /// Where all begins.
    #[inline(always)]
    pub fn root(self) -> &'static Root {
        // SAFETY: a live map element, of which any bytes are a root.
        unsafe { &*((self.0 + ROOT_AT) as *const Root) }
    }

    /// Address of a grain.
    #[inline(always)]
    pub fn grain(self, number: u32) -> usize {
        self.byte(number as usize * GRAIN)
    }

    /// Address of a byte; what begins there may be as long as the pool's margin.
    #[inline(always)]
    pub fn byte(self, offset: usize) -> usize {
        self.0 + (offset & (POOL_BYTES - 1))
    }
}
