//! Pages that another domain may use: the grant table, version 1 (`public/grant_table.h`), its first frame. What is
//! granted stays granted.

use crate::hypercall::{self, Refused, Space};
use crate::page::{PAGE_SIZE, Page, Shared, barrier};

/// Bytes of an entry: flags, domain, frame.
const ENTRY: usize = 8;
/// The first entries are the toolstack's.
const RESERVED: u32 = 8;
const PERMIT: u16 = 1;
const READ_ONLY: u16 = 4;

static TABLE: Page = Page::new();

/// What the other side may do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    Write,
    /// Read.
    Read,
}

/// Entries for one domain.
pub struct Grants {
    domain: u16,
    next: u32,
}

impl Grants {
    /// The table, for grants to `domain`.
    pub fn start(domain: u16) -> Result<Self, Refused> {
        hypercall::map(Space::GrantTable, 0, &TABLE)?;
        Ok(Self { domain, next: RESERVED })
    }

    /// Grants a page; its reference. Nothing where the table is full.
    pub fn grant(&mut self, page: Shared, access: Access) -> Option<u32> {
        let reference = self.next;
        let at = reference as usize * ENTRY;
        if at >= PAGE_SIZE {
            return None;
        }
        self.next += 1;
        let table = TABLE.shared();
        table.write(at + 2, self.domain);
        table.write(at + 4, page.frame());
        barrier();
        let flags = if access == Access::Read { PERMIT | READ_ONLY } else { PERMIT };
        table.write(at, flags);
        Some(reference)
    }
}
