//! XenStore over its daemon's socket: entries, transactions, watches.
//!
//! A [`Store`] is one connection that is made when it is needed and made again when it is lost; what was under way then
//! fails as [`StoreError::Lost`], for nobody knows whether it was done. A [`Watch`] outlives the connection.
//! The protocol is Xen's `docs/misc/xenstore.txt`.

mod connection;
mod error;
mod refusal;
mod wire;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use connection::{Answered, Epoch, Failure, Order};
pub use error::{PathError, StoreError};
pub use refusal::{Errno, Nonsense};
pub use wire::Request;

use crate::domain::DomainId;

/// Longest path of the protocol (`XENSTORE_ABS_PATH_MAX`).
pub const MAX_PATH: usize = 3072;
/// Attempts at what changes of others can spoil.
const ATTEMPTS: u32 = 16;
/// Most bytes of the names below one entry; more than this are no answer but a fault.
const MOST_NAMES: usize = 16 << 20;

/// What the store's calls give.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What a guest may do with an entry, beside what dom0 may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

/// A change of an entry, one of several that are made together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Give it a value.
    Write {
        /// Which entry.
        path: String,
        /// Its value.
        value: Vec<u8>,
        /// Who may do what with it but dom0; `None` leaves what it inherits.
        access: Option<(DomainId, Access)>,
    },
    /// Remove it with all below it; one that is not there is a success.
    Remove {
        /// Which entry.
        path: String,
    },
}

/// The entries, as they are or as a transaction sees them.
#[derive(Debug, Clone)]
pub struct Entries {
    socket: Arc<Path>,
    orders: mpsc::UnboundedSender<Order>,
    epoch: Epoch,
    deadline: Duration,
    /// Connection and number of the transaction.
    transaction: Option<(u64, u32)>,
}

impl Entries {
    /// An entry's value.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::is_no_entry`] where there is none.
    pub async fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.ask(Request::Read, path, &[]).await
    }

    /// An entry's value as text without blanks around it, as most values are; `None` where there is no entry.
    ///
    /// # Errors
    /// [`StoreError`]; what is no text is [`StoreError::Nonsense`].
    pub async fn read_text(&self, path: &str) -> Result<Option<String>> {
        let bytes = match self.read(path).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_no_entry() => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8(bytes).map_err(|_| nonsense(Request::Read, path, Nonsense::String))?;
        Ok(Some(text.trim_matches(['\0', ' ', '\n']).to_owned()))
    }

    /// The names below an entry, in no order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>> {
        match self.ask(Request::Directory, path, &[]).await {
            Ok(payload) => wire::texts(&payload).map_err(|source| nonsense(Request::Directory, path, source)),
            Err(StoreError::Refused { errno: Errno::TooBig, .. }) => self.list_in_parts(path).await,
            Err(error) => Err(error),
        }
    }

    /// Such names where they do not fit into one message. Each part says which state of the entry it is of; where that
    /// has changed in between, all is read anew.
    async fn list_in_parts(&self, path: &str) -> Result<Vec<String>> {
        for _ in 0..ATTEMPTS {
            if let Some(names) = self.list_once(path).await? {
                return Ok(names);
            }
        }
        Err(StoreError::Contended { path: path.to_owned(), attempts: ATTEMPTS })
    }

    /// All parts; `None` where they are of different states.
    async fn list_once(&self, path: &str) -> Result<Option<Vec<String>>> {
        let broken = |source| nonsense(Request::DirectoryPart, path, source);
        let (mut state, mut bytes) = (None, Vec::new());
        while bytes.len() <= MOST_NAMES {
            let offset = bytes.len().to_string();
            let payload = self.ask(Request::DirectoryPart, path, &join(&[&offset])).await?;
            let end = payload.iter().position(|byte| *byte == 0).ok_or_else(|| broken(Nonsense::Content))?;
            let (of, part) = (&payload[..end], &payload[end + 1..]);
            if state.get_or_insert_with(|| of.to_vec()) != of {
                return Ok(None);
            }
            match part {
                // An empty name is the end.
                [0] | [.., 0, 0] => {
                    bytes.extend_from_slice(&part[..part.len() - 1]);
                    return wire::texts(&bytes).map(Some).map_err(broken);
                }
                [.., 0] => bytes.extend_from_slice(part),
                _ => return Err(broken(Nonsense::Content)),
            }
        }
        Err(broken(Nonsense::Length(bytes.len())))
    }

    /// Gives an entry a value; it is made with its parents where it is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write(&self, path: &str, value: &[u8]) -> Result<()> {
        self.ask(Request::Write, path, value).await.map(drop)
    }

    /// Makes an entry, with its parents, where it is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make(&self, path: &str) -> Result<()> {
        self.ask(Request::Make, path, &[]).await.map(drop)
    }

    /// Removes an entry with all below it. The store takes one that is not there for removed, unless its parent is not
    /// there either.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.ask(Request::Remove, path, &[]).await.map(drop)
    }

    /// Makes an entry dom0's, with what `domain` may do with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn allow(&self, path: &str, domain: DomainId, access: Access) -> Result<()> {
        let letter = match access {
            Access::Read => 'r',
            Access::Write => 'b',
        };
        // The first one is the owner, with what all others may: nothing.
        let words = join(&["n0", &format!("{letter}{domain}")]);
        self.ask(Request::SetPermissions, path, &words).await.map(drop)
    }

    /// Who may do what with an entry, in the protocol's words (`n0`, `r5`): the owner first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn permissions(&self, path: &str) -> Result<Vec<String>> {
        let payload = self.ask(Request::GetPermissions, path, &[]).await?;
        wire::texts(&payload).map_err(|source| nonsense(Request::GetPermissions, path, source))
    }

    /// Sends a request about a path and awaits its answer.
    async fn ask(&self, request: Request, path: &str, more: &[u8]) -> Result<Vec<u8>> {
        check(path)?;
        let mut payload = join(&[path]);
        payload.extend_from_slice(more);
        self.send(request, path, payload).await.map(|answered| answered.payload)
    }

    async fn send(&self, request: Request, path: &str, payload: Vec<u8>) -> Result<Answered> {
        let path = || path.to_owned();
        if payload.len() > wire::MOST {
            return Err(StoreError::TooLong { request, path: path(), bytes: payload.len() });
        }
        let (answer, answered) = oneshot::channel();
        let order = Order::Ask { request, transaction: self.transaction, payload, answer: Some(answer) };
        // The task ends with the runtime only.
        self.orders.send(order).map_err(|_| StoreError::Lost { request, path: path() })?;
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(Ok(Ok(answered))) => Ok(answered),
            Ok(Ok(Err(failure))) => Err(match failure {
                Failure::Unreachable(source) => StoreError::Unreachable { socket: self.socket.to_path_buf(), source },
                Failure::Lost => StoreError::Lost { request, path: path() },
                Failure::Refused(errno) => StoreError::Refused { request, path: path(), errno },
                Failure::Nonsense(source) => StoreError::Nonsense { request, path: path(), source },
            }),
            Ok(Err(_)) => Err(StoreError::Lost { request, path: path() }),
            Err(_) => Err(StoreError::Deadline { request, path: path(), after: self.deadline }),
        }
    }
}

/// The store. A copy is another handle to the same connection.
#[derive(Debug, Clone)]
pub struct Store(Entries);

impl Store {
    /// Where Xen's daemons listen: `XENSTORED_PATH` of the environment as for Xen's own tools, else
    /// `/run/xenstored/socket`.
    #[must_use]
    pub fn default_socket() -> PathBuf {
        std::env::var_os("XENSTORED_PATH").map_or_else(|| PathBuf::from("/run/xenstored/socket"), PathBuf::from)
    }

    /// A handle to the store at `socket`, whose requests fail when they are not answered within `deadline`. Nothing is
    /// connected yet. Must be called in a Tokio runtime.
    #[must_use]
    pub fn new(socket: PathBuf, deadline: Duration) -> Self {
        let (orders, epoch) = connection::spawn(socket.clone());
        Self(Entries { socket: socket.into(), orders, epoch, deadline, transaction: None })
    }

    /// Which connection there is, by a number of its own; 0 while there is none. Lost and made again it has another.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<u64> {
        self.0.epoch.clone()
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(&self) -> Result<Transaction> {
        let request = Request::TransactionStart;
        let Answered { payload, epoch } = self.0.send(request, "/", join(&[""])).await?;
        let number = wire::texts(&payload).ok().and_then(|texts| texts.first()?.parse().ok());
        let number: u32 =
            number.filter(|number| *number != 0).ok_or_else(|| nonsense(request, "/", Nonsense::Content))?;
        Ok(Transaction { entries: Entries { transaction: Some((epoch, number)), ..self.0.clone() }, open: true })
    }

    /// Makes all changes or none, and again while others change the same entries.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has been changed then, but that is not known after [`StoreError::Lost`] and
    /// [`StoreError::Deadline`].
    pub async fn commit(&self, changes: &[Change]) -> Result<()> {
        let Some(first) = changes.first() else { return Ok(()) };
        for _ in 0..ATTEMPTS {
            match self.attempt(changes).await {
                Ok(true) => return Ok(()),
                Ok(false) | Err(StoreError::Refused { errno: Errno::Broken, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (Change::Write { path, .. } | Change::Remove { path }) = first;
        Err(StoreError::Contended { path: path.clone(), attempts: ATTEMPTS })
    }

    /// Makes all changes once; `false` after a conflict.
    async fn attempt(&self, changes: &[Change]) -> Result<bool> {
        let transaction = self.begin().await?;
        for change in changes {
            transaction.make_change(change).await?;
        }
        transaction.commit().await
    }

    /// Watches an entry with all below it, or one of the store's own signs, as `@releaseDomain`.
    ///
    /// # Errors
    /// [`StoreError::Path`].
    pub fn watch(&self, path: &str) -> Result<Watch> {
        check(path)?;
        let (changes, changed) = watch::channel(0);
        // Without a task no change will be told; requests say why.
        let _ = self.0.orders.send(Order::Watch { path: path.to_owned(), changes });
        Ok(Watch(changed))
    }
}

impl Deref for Store {
    type Target = Entries;

    fn deref(&self) -> &Entries {
        &self.0
    }
}

/// The entries as one sees them who changes several at once. Given up when it is dropped.
#[derive(Debug)]
pub struct Transaction {
    entries: Entries,
    open: bool,
}

impl Transaction {
    /// Makes all changes known at once; `false` where others have changed meanwhile what was read or written here, and
    /// nothing has been changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn commit(mut self) -> Result<bool> {
        self.open = false;
        match self.entries.send(Request::TransactionEnd, "/", join(&["T"])).await {
            Ok(_) => Ok(true),
            Err(StoreError::Refused { errno: Errno::Conflict, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives it up, and waits until the store knows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn abort(mut self) -> Result<()> {
        self.open = false;
        self.entries.send(Request::TransactionEnd, "/", join(&["F"])).await.map(drop)
    }

    async fn make_change(&self, change: &Change) -> Result<()> {
        match change {
            Change::Write { path, value, access } => {
                self.write(path, value).await?;
                match access {
                    Some((domain, access)) => self.allow(path, *domain, *access).await,
                    None => Ok(()),
                }
            }
            Change::Remove { path } => match self.remove(path).await {
                Err(error) if error.is_no_entry() => Ok(()),
                done => done,
            },
        }
    }
}

impl Deref for Transaction {
    type Target = Entries;

    fn deref(&self) -> &Entries {
        &self.entries
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            let (request, payload) = (Request::TransactionEnd, join(&["F"]));
            let order = Order::Ask { request, transaction: self.entries.transaction, payload, answer: None };
            // Without a task there is no transaction either.
            let _ = self.entries.orders.send(order);
        }
    }
}

/// Tells that something may have changed below a path. It does not say what: whoever is told looks, and several
/// changes may be told at once. Each watch tells once when it is set, and once more when a lost connection is back.
/// Dropped, it is taken back at the next change.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<u64>);

impl Watch {
    /// Waits for the next change since the last call. Safe to drop. Never ready once the runtime goes down.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn join(parts: &[&str]) -> Vec<u8> {
    wire::join(parts)
}

fn nonsense(request: Request, path: &str, source: Nonsense) -> StoreError {
    StoreError::Nonsense { request, path: path.to_owned(), source }
}

/// Whether the store would take a path, and take it for one.
fn check(path: &str) -> Result<()> {
    let wrong = |source| Err(StoreError::Path { path: path.to_owned(), source });
    if path.len() > MAX_PATH {
        return wrong(PathError::TooLong);
    }
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@')) {
        return wrong(PathError::Character);
    }
    if path.is_empty() || (path.len() > 1 && path.ends_with('/')) || path.contains("//") {
        return wrong(PathError::EmptyPart);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
