//! One table of nf_tables, through a netlink socket of its own: the chains and rules that send new connections for one
//! address to another. Only what is needed of `linux/netfilter/nf_tables.h`; what the rules are for is
//! [`forward`](super::forward)'s.
//!
//! A batch is one transaction: all of it holds from one moment on, or none. The table is owned by the socket where the
//! kernel has that (6.9 and newer), so that nobody else changes it, and stays when the socket is closed.

mod message;
mod rule;

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::error::{NetError, Result};
use message::{Attributes, Kind, Message, Reply, batch, replies};
pub(super) use rule::{Protocol, Redirect, SeenRule};

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

/// The chain that the base chains jump to.
const LATE: &str = "late";
/// Base chains with their hooks (`NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`): for clients elsewhere and on the node.
const BASE: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];
/// `NF_IP_PRI_NAT_DST`.
const PRIORITY: i32 = -100;
/// Comment of the rule that leads from a base chain to the others.
const JUMP: &str = "to late";
/// `NFT_TABLE_F_PERSIST`, alone on a table that lost its owner, and with `NFT_TABLE_F_OWNER`.
const PERSIST: u32 = 0x4;
const OWNED: u32 = PERSIST | 0x2;
/// A batch is one packet of the socket, so this bounds it: more than ten thousand rules.
const BATCH_BYTES: usize = 8 << 20;

/// The table as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    flags: u32,
    chains: Vec<String>,
    rules: Vec<SeenRule>,
}

impl Table {
    /// Whether chains and jumps are as we make them.
    pub fn is_whole(&self) -> bool {
        let mut chains: Vec<&str> = self.chains.iter().map(String::as_str).collect();
        chains.sort_unstable();
        let jumps = |chain: &str| {
            let rules: Vec<&SeenRule> = self.rules.iter().filter(|rule| rule.chain == chain).collect();
            matches!(rules[..], [only] if only.comment == JUMP)
        };
        chains == [LATE, BASE[1].0, BASE[0].0] && BASE.iter().all(|(chain, _)| jumps(chain))
    }

    /// One with chains and jumps as we make them, and these rules.
    #[cfg(test)]
    pub fn whole(mut rules: Vec<SeenRule>) -> Self {
        let jump = |(chain, _): &(&str, u32)| SeenRule {
            chain: (*chain).to_owned(),
            handle: 1,
            comment: JUMP.to_owned(),
            connections: 0,
        };
        rules.extend(BASE.iter().map(jump));
        let chains = BASE.iter().map(|(name, _)| *name).chain([LATE]).map(str::to_owned).collect();
        Self { flags: OWNED, chains, rules }
    }

    /// Whether it could have an owner and has none: it outlived its daemon.
    pub const fn is_orphan(&self) -> bool {
        self.flags & OWNED == PERSIST
    }

    /// The rules that send connections elsewhere.
    pub fn redirects(&self) -> impl Iterator<Item = &SeenRule> {
        self.rules.iter().filter(|rule| rule.chain == LATE)
    }
}

/// What is to be done to the table, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Remove it.
    Remove,
    /// Make it; the one that is there goes.
    Make { replaces: bool, add: Vec<Redirect> },
    /// Change rules of the one that is there, by handle where they go; take it over where it has no owner.
    Alter { own: bool, add: Vec<Redirect>, remove: Vec<u64> },
}

/// The socket, and the table that it is for.
#[derive(Debug)]
pub(super) struct Nft {
    table: String,
    /// Held for a request and its answers, which the kernel gives before the call returns.
    socket: Mutex<io::Result<Socket>>,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace. That it cannot be opened is told by the first use.
    pub fn open(table: String) -> Self {
        Self { table, socket: Mutex::new(open()) }
    }

    /// The table; `None` where it is not there.
    ///
    /// # Errors
    /// [`NetError::Refused`], also where the kernel has no nf_tables.
    pub fn read(&self) -> Result<Option<Table>> {
        let refused = |source| self.refused("read", source);
        let named = Attributes::default().text(TABLE_NAME, &self.table);
        let found = match self.ask(&Message::get(Kind::GetTable, named).emit()) {
            Ok(found) => found,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(refused(error)),
        };
        // Older kernels list those of all tables.
        let list = |kind, key| {
            let all = self.ask(&Message::list(kind, Attributes::default().text(key, &self.table)).emit());
            let ours = |one: &Attributes| one.get_text(key).as_deref() == Some(self.table.as_str());
            all.map(|all| all.into_iter().filter(ours).collect::<Vec<_>>()).map_err(refused)
        };
        Ok(Some(Table {
            flags: found.iter().find_map(|table| table.get_word(TABLE_FLAGS)).unwrap_or(0),
            chains: list(Kind::GetChain, CHAIN_TABLE)?.iter().filter_map(|c| c.get_text(CHAIN_NAME)).collect(),
            rules: list(Kind::GetRule, rule::TABLE)?.iter().filter_map(rule::seen).collect(),
        }))
    }

    /// Does it.
    ///
    /// # Errors
    /// [`NetError::Refused`]; nothing was changed then.
    pub fn apply(&self, change: &Change) -> Result<()> {
        let outcome = match change {
            Change::Remove => self.ask(&batch(&[self.removal()])),
            Change::Make { replaces, add } => {
                let owned = self.ask(&batch(&self.making(OWNED, *replaces, add)));
                owned.or_else(|error| match error.raw_os_error() {
                    // The kernel does not know owners of tables, or not that they stay.
                    Some(libc::EOPNOTSUPP | libc::EINVAL) => self.ask(&batch(&self.making(0, *replaces, add))),
                    _ => Err(error),
                })
            }
            Change::Alter { own, add, remove } => {
                let mut messages: Vec<Message> = own.then(|| self.table(OWNED)).into_iter().collect();
                messages.extend(remove.iter().map(|handle| rule::remove(&self.table, LATE, *handle)));
                messages.extend(add.iter().map(|redirect| redirect.rule(&self.table, LATE)));
                self.ask(&batch(&messages))
            }
        };
        outcome.map(drop).map_err(|source| self.refused("change", source))
    }

    fn refused(&self, operation: &'static str, source: io::Error) -> NetError {
        NetError::Refused { operation, object: format!("table {} of nf_tables", self.table), source }
    }

    fn removal(&self) -> Message {
        Message::change(Kind::DelTable, Attributes::default().text(TABLE_NAME, &self.table))
    }

    fn table(&self, flags: u32) -> Message {
        let named = Attributes::default().text(TABLE_NAME, &self.table);
        Message::change(Kind::NewTable, named.word(TABLE_FLAGS, flags))
    }

    /// The messages that make table, chains and rules.
    fn making(&self, flags: u32, replaces: bool, add: &[Redirect]) -> Vec<Message> {
        let named = |name: &str| Attributes::default().text(CHAIN_TABLE, &self.table).text(CHAIN_NAME, name);
        let mut messages: Vec<Message> = replaces.then(|| self.removal()).into_iter().collect();
        messages.extend([self.table(flags), Message::change(Kind::NewChain, named(LATE))]);
        for (name, hook) in BASE {
            let hook = Attributes::default().word(HOOK_NUMBER, hook).word(HOOK_PRIORITY, PRIORITY.cast_unsigned());
            let chain = named(name).nested(CHAIN_HOOK, &hook).text(CHAIN_TYPE, "nat");
            messages.extend([Message::change(Kind::NewChain, chain), rule::jump(&self.table, name, LATE, JUMP)]);
        }
        messages.extend(add.iter().map(|redirect| redirect.rule(&self.table, LATE)));
        messages
    }

    /// Sends it; what the kernel gives back, or the first error that it tells.
    fn ask(&self, request: &[u8]) -> io::Result<Vec<Attributes>> {
        let mut opened = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_err() {
            // What was missing may have been loaded meanwhile.
            *opened = open();
        }
        let socket = match &*opened {
            Ok(socket) => socket,
            Err(error) => return Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))),
        };
        socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
        let (mut objects, mut outcome) = (Vec::new(), Ok(()));
        loop {
            let bytes = match socket.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for reply in replies(&bytes) {
                match reply {
                    Reply::Object(attributes) => objects.push(attributes),
                    Reply::Outcome(0) | Reply::Other => {}
                    Reply::Outcome(errno) => outcome = outcome.and(Err(io::Error::from_raw_os_error(errno))),
                }
            }
        }
        outcome.map(|()| objects)
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    setsockopt(&socket.as_fd(), sockopt::SndBufForce, &BATCH_BYTES)?;
    Ok(socket)
}
