//! What can go wrong, with operation, object and source.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

type Source = Box<dyn StdError + Send + Sync>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel or the file system refused an operation.
    #[error("cannot {operation} {object}: {}", innermost(.source.as_ref()))]
    System {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why not.
        #[source]
        source: Source,
    },
    /// The kernel's verifier refused a program.
    #[error("the kernel's verifier refused the program {program} ({source}): {why}")]
    Rejected {
        /// Name of the program.
        program: &'static str,
        /// The last words of its log, which say why.
        why: String,
        /// The system call's error.
        #[source]
        source: io::Error,
    },
    /// Pins belong on a BPF file system.
    #[error("{} is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf", .path.display())]
    NotBpffs {
        /// Where pins were to go.
        path: PathBuf,
    },
    /// The pin directory belongs to another user, who could exchange what is in it. Everybody may make
    /// directories at the top of a BPF file system.
    #[error("{} belongs to user {owner}; remove it and start again", .path.display())]
    NotOwned {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Another process works with the same pins.
    #[error("the tables under {} are in use by another process", .path.display())]
    Busy {
        /// Where the pins are.
        path: PathBuf,
    },
    /// Another process captures.
    #[error("another process captures from the tables under {}; one can at a time", .path.display())]
    Capturing {
        /// Where the pins are.
        path: PathBuf,
    },
    /// A pinned map is not what this version expects under its name.
    #[error("pinned map {map} has {what} {found}, {wanted} expected; remove the pins and start again")]
    Shape {
        /// Name of the map.
        map: &'static str,
        /// Which of its properties differs.
        what: &'static str,
        /// As pinned.
        found: u64,
        /// As expected.
        wanted: u64,
    },
    /// Pinned tables contradict themselves.
    #[error("pinned tables are damaged at {map}[{index}]: {what}; remove the pins and start again")]
    Damaged {
        /// Name of the map.
        map: &'static str,
        /// Element.
        index: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Something in the object is missing; a build error.
    #[error("the object has no {name}")]
    Missing {
        /// Name of the map or program.
        name: &'static str,
    },
    /// No such network interface.
    #[error("no network interface {interface}")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// Its frames have no Ethernet header.
    #[error("{interface} has no Ethernet frames, so replies cannot be rewritten there")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// Another XDP program sits on the interface; it is never replaced.
    #[error("{interface} already has the XDP program {name} (id {id}, tag {tag:016x}), which is not ours")]
    Foreign {
        /// Name of the interface.
        interface: String,
        /// Kernel's id of the program.
        id: u32,
        /// Its name.
        name: String,
        /// Hash of its instructions.
        tag: u64,
    },
    /// Another program sees what goes out before the one that rewrites replies does; it is left where it is.
    #[error(
        "{interface}: the program {name} (id {id}, tag {tag:016x}), which is not ours, is in front of ours on the way out"
    )]
    InFront {
        /// Name of the interface.
        interface: String,
        /// Kernel's id of the program.
        id: u32,
        /// Its name.
        name: String,
        /// Hash of its instructions.
        tag: u64,
    },
    /// Ours is attached in another mode, which cannot change without detaching.
    #[error("{interface} is attached in {found} mode, not {wanted}; detach it first")]
    OtherMode {
        /// Name of the interface.
        interface: String,
        /// Mode it is attached in.
        found: &'static str,
        /// Mode asked for.
        wanted: &'static str,
    },
    /// The program of another version answers there, and goes on until ours has something to answer.
    #[error("{interface} runs the program of another layout ({layout}), which stays until tables are published")]
    Unpublished {
        /// Name of the interface.
        interface: String,
        /// Directory of the other layout.
        layout: String,
    },
    /// Tables may only get newer.
    #[error("generation {offered} is not newer than {current}")]
    StaleGeneration {
        /// Generation in force.
        current: u64,
        /// Generation offered.
        offered: u64,
    },
    /// The tables are too small for what was to be published.
    #[error("map {map} is full: {needed} elements needed, {capacity} there ({used} in use)")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Elements in use now.
        used: u32,
        /// Elements that would be in use.
        needed: u32,
        /// Elements of the map.
        capacity: u32,
    },
    /// The program does something else behind the harness of the bench than alone.
    #[error("the bench is broken: {case} gives another result in it than alone")]
    Bench {
        /// The kind of frame.
        case: &'static str,
    },
    /// What was to be published cannot be expressed in the tables.
    #[error("cannot publish {name}: {problem}")]
    Invalid {
        /// The name it belongs to, in presentation form, or another object.
        name: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// Why something cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Broken wire form.
    #[error("its wire form is broken or longer than 255 bytes, or a label holds a zero byte")]
    Name,
    /// More names than a table holds.
    #[error("{0} names are more than a table holds ({max})", max = xdp_balancer_common::MAX_NAMES)]
    Names(usize),
    /// Twice in one table.
    #[error("the name occurs twice")]
    DuplicateName,
    /// A type twice under one name, or type 0.
    #[error("type {0} occurs twice or is no type")]
    Type(u16),
    /// More types than a name can hold.
    #[error("{0} types, at most 8 fit")]
    Types(usize),
    /// No turn, or more than a ring can hold.
    #[error("{0} turns; a ring has 1 to 65535")]
    Ring(usize),
    /// Another number of turns than clients are mapped to.
    #[error("{0} turns; a ring by client has {turns}", turns = xdp_balancer_common::CLIENT_TURNS)]
    ClientRing(usize),
    /// A turn of an answer that is not there.
    #[error("a turn of answer {0}, which does not exist")]
    Turn(u16),
    /// Rendered records too long, or too short to be records.
    #[error("an answer of {0} bytes, where none or 8 to {max} fit", max = xdp_balancer_common::ANSWER_BYTES)]
    Answer(usize),
    /// Too many additional records.
    #[error("{0} additional records, at most 254 fit")]
    Additional(u16),
    /// A name whose wildcard is not in the table.
    #[error("the wildcard below it is not in the table")]
    Wildcard,
    /// An answer that says that there is no such name, where there is one, or another answer where there is none.
    #[error("says that there is no such name where there is one, or the other way round")]
    Denied,
    /// Flags other than AA and RCODE.
    #[error("answer flags {0:#06x} other than AA and RCODE")]
    Flags(u16),
    /// No counters for this index.
    #[error("service index {0} is beyond the counters")]
    Service(u32),
    /// Too many addresses.
    #[error("{0} local addresses of one family, at most 8 fit")]
    Local(usize),
    /// More prefixes of clients that are no sign of use than the settings hold.
    #[error("{0} of them, at most 32 fit")]
    Quiet(usize),
    /// More prefixes in the lists of clients than the trie holds.
    #[error("{0} prefixes, at most {1} fit")]
    Lists(usize, u32),
    /// No secret was found under which all names differ.
    #[error("two names cannot be told apart by their hash")]
    Hash,
}

impl Error {
    /// Short fixed name: metric label, JSON code, log field.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::System { .. } => "system",
            Self::Rejected { .. } => "rejected",
            Self::NotBpffs { .. } => "not_bpffs",
            Self::NotOwned { .. } => "not_owned",
            Self::Busy { .. } => "busy",
            Self::Capturing { .. } => "capturing",
            Self::Shape { .. } => "shape",
            Self::Damaged { .. } => "damaged",
            Self::Missing { .. } => "missing",
            Self::NoInterface { .. } => "no_interface",
            Self::NotEthernet { .. } => "not_ethernet",
            Self::Foreign { .. } => "foreign",
            Self::InFront { .. } => "in_front",
            Self::OtherMode { .. } => "other_mode",
            Self::Unpublished { .. } => "unpublished",
            Self::StaleGeneration { .. } => "stale_generation",
            Self::Full { .. } => "full",
            Self::Bench { .. } => "bench",
            Self::Invalid { .. } => "invalid",
        }
    }

    /// The operating system's error number, where one is the cause.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                return Some(errno);
            }
            next = error.source();
        }
        None
    }

    /// True where rights are missing: run as root, or with CAP_BPF and CAP_NET_ADMIN.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// An error maker for one operation on one object.
    pub(crate) fn system<E: Into<Source>>(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let object = object.into();
        move |source| Self::System { operation, object, source: source.into() }
    }
}

/// The last link of a chain of errors; libraries wrap the kernel's word in their own.
fn innermost(error: &(dyn StdError + Send + Sync + 'static)) -> String {
    let mut last: &dyn StdError = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
