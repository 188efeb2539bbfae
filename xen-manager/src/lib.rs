//! Xen domains as Selvedge speaks of them: names, specifications, states, errors.
//!
//! **This crate manages nothing yet.** It makes no hypercall, opens no XenStore connection and starts no
//! domain; it fixes the words that its work will be done in, and checks what can be checked without a
//! hypervisor. What is to come, each piece behind its own module here:
//!
//! 1. the hypercalls that create, build, unpause and destroy a domain (PV and PVH), through `privcmd`;
//! 2. XenStore: a domain's entries and its devices' negotiation, as transactions, waited for by watches;
//! 3. the domain's network interface up to the port that the daemon moves to its bridge;
//! 4. the console's ring, for a guest's first words when it does not come up;
//! 5. adoption: the domains of this installation are found again after a restart.
//!
//! A driver of `control` will use it then. This crate knows nothing of services, instances or tables, and
//! depends on nothing of this workspace.

mod domain;
mod error;
mod spec;

pub use domain::{DomainId, DomainName, DomainState, NameError};
pub use error::{Error, Operation};
pub use spec::{DomainKind, DomainSpec, Mac, MacError, SpecError, Vif};
