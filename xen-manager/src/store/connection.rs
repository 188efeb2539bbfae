//! The one connection to the store: a task that owns the socket, so that whoever drops a request breaks nothing.
//!
//! It connects when something is asked, and again while there are watches. Watches outlive the connection: they are set
//! anew, and as the store tells of each watch once when it is set, nothing is missed meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::refusal::{Errno, Nonsense};
use super::wire::{self, Message, Request};

/// Time between attempts to connect: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Unreachable(io::Error),
    Lost,
    Refused(Errno),
    Nonsense(Nonsense),
}

/// What was answered, and on which connection.
#[derive(Debug)]
pub(super) struct Answered {
    pub payload: Vec<u8>,
    pub epoch: u64,
}

/// Where an answer goes; none where nobody waits for it.
pub(super) type Answer = oneshot::Sender<Result<Answered, Failure>>;

/// What the task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Send a request. One of a transaction belongs to the connection on which that has begun.
    Ask { request: Request, transaction: Option<(u64, u32)>, payload: Vec<u8>, answer: Option<Answer> },
    /// Tell of changes below a path for as long as the receiver is there.
    Watch { path: String, changes: watch::Sender<u64> },
}

/// Which connection there is, once the store has answered on it; each has its own number, 0 is none.
pub(super) type Epoch = watch::Receiver<u64>;

/// Starts the task. It ends when nobody can order anything any more.
pub(super) fn spawn(socket: PathBuf) -> (mpsc::UnboundedSender<Order>, Epoch) {
    let (sender, orders) = mpsc::unbounded_channel();
    let (epoch, epochs) = watch::channel(0);
    let task = Task { socket, orders, epoch, last_epoch: 0, watches: BTreeMap::new(), last_token: 0 };
    tokio::spawn(task.run());
    (sender, epochs)
}

/// One watch that somebody holds.
#[derive(Debug)]
struct Watched {
    path: String,
    changes: watch::Sender<u64>,
}

struct Task {
    socket: PathBuf,
    orders: mpsc::UnboundedReceiver<Order>,
    epoch: watch::Sender<u64>,
    last_epoch: u64,
    /// By token.
    watches: BTreeMap<u64, Watched>,
    last_token: u64,
}

impl Task {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            // With nothing to watch there is no hurry to connect.
            let first = if self.watches.is_empty() {
                match self.orders.recv().await {
                    Some(order) => Some(order),
                    None => return,
                }
            } else {
                None
            };
            match connect(&self.socket).await {
                Ok(mut live) => {
                    self.last_epoch += 1;
                    for (token, watched) in &self.watches {
                        live.watch(*token, &watched.path);
                    }
                    if let Some(order) = first {
                        self.obey(order, &mut live);
                    }
                    let goes_on = self.serve(&mut live).await;
                    let answered = self.epoch.send_replace(0) != 0;
                    live.lose();
                    if !goes_on {
                        return;
                    }
                    if answered {
                        pause = PAUSES.0;
                    } else if !self.watches.is_empty()
                        && !self.wait(&mut pause, &io::ErrorKind::ConnectionReset.into()).await
                    {
                        return;
                    }
                }
                Err(error) => {
                    if let Some(order) = first {
                        self.refuse(order, &error);
                        continue;
                    }
                    tracing::debug!(socket = %self.socket.display(), %error, "XenStore is out of reach");
                    if !self.wait(&mut pause, &error).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits before the next attempt, longer each time; what is asked meanwhile is refused. `false` where nobody is left
    /// to ask.
    async fn wait(&mut self, pause: &mut Duration, error: &io::Error) -> bool {
        let end = tokio::time::Instant::now() + *pause;
        *pause = (*pause * 2).min(PAUSES.1);
        loop {
            match tokio::time::timeout_at(end, self.orders.recv()).await {
                Ok(Some(order)) => self.refuse(order, error),
                Ok(None) => return false,
                Err(_) => {
                    self.watches.retain(|_, watched| !watched.changes.is_closed());
                    return true;
                }
            }
        }
    }

    /// Answers an order without a connection. A watch is kept for the next one.
    fn refuse(&mut self, order: Order, error: &io::Error) {
        match order {
            Order::Ask { answer, transaction, .. } => {
                let failure = if transaction.is_some() { Failure::Lost } else { Failure::Unreachable(again(error)) };
                tell(answer, Err(failure));
            }
            Order::Watch { path, changes } => {
                self.last_token += 1;
                self.watches.insert(self.last_token, Watched { path, changes });
            }
        }
    }

    /// Sends and receives until the connection ends, then `true`; `false` where nobody is left to ask.
    async fn serve(&mut self, live: &mut Live) -> bool {
        loop {
            let Live { reader, writer, input, output, .. } = live;
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, live),
                    None => return false,
                },
                written = writer.write(output), if !output.is_empty() => match written {
                    Ok(count) if count > 0 => drop(output.drain(..count)),
                    _ => return true,
                },
                read = reader.read_buf(input) => {
                    if !matches!(read, Ok(count) if count > 0) {
                        return true;
                    }
                    if let Err(nonsense) = self.take(live) {
                        tracing::warn!(socket = %self.socket.display(), error = %nonsense, "XenStore's connection is given up");
                        return true;
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Order, live: &mut Live) {
        match order {
            Order::Ask { transaction: Some((epoch, _)), answer, .. } if epoch != self.last_epoch => {
                tell(answer, Err(Failure::Lost));
            }
            Order::Ask { request, transaction, payload, answer } => {
                live.ask(request, transaction.map_or(0, |(_, id)| id), &payload, answer);
            }
            Order::Watch { path, changes } => {
                self.last_token += 1;
                live.watch(self.last_token, &path);
                self.watches.insert(self.last_token, Watched { path, changes });
            }
        }
    }

    /// Takes all messages that have come in full.
    fn take(&mut self, live: &mut Live) -> Result<(), Nonsense> {
        while let Some((message, length)) = wire::decode(&live.input)? {
            live.input.drain(..length);
            // Not before: a store that is ending takes connections for a moment, and answers none.
            self.epoch.send_if_modified(|epoch| std::mem::replace(epoch, self.last_epoch) != self.last_epoch);
            match message {
                Message::Event { token } => self.changed(&token, live),
                Message::Refusal { id, errno } => {
                    let (request, answer) = live.pending.remove(&id).ok_or(Nonsense::Unasked)?;
                    if request == Request::Watch {
                        // Nobody waits for this answer, and whoever holds the watch would wait in vain.
                        tracing::warn!(socket = %self.socket.display(), %errno, "XenStore refuses a watch");
                    }
                    tell(answer, Err(Failure::Refused(errno)));
                }
                Message::Reply { kind, id, payload } => {
                    let (request, answer) = live.pending.remove(&id).ok_or(Nonsense::Unasked)?;
                    if request as u32 != kind {
                        tell(answer, Err(Failure::Nonsense(Nonsense::Unasked)));
                        return Err(Nonsense::Unasked);
                    }
                    tell(answer, Ok(Answered { payload, epoch: self.last_epoch }));
                }
            }
        }
        Ok(())
    }

    /// Tells who holds the watch; one that nobody holds any more is taken back.
    fn changed(&mut self, token: &[u8], live: &mut Live) {
        let token = std::str::from_utf8(token).ok().and_then(|text| text.parse::<u64>().ok());
        let Some((token, watched)) = token.and_then(|token| self.watches.get(&token).map(|watched| (token, watched)))
        else {
            // Of a watch that was just taken back.
            return;
        };
        if watched.changes.is_closed() {
            live.ask(Request::Unwatch, 0, &wire::join(&[&watched.path, &token.to_string()]), None);
            self.watches.remove(&token);
        } else {
            watched.changes.send_modify(|count| *count += 1);
        }
    }
}

/// A connection with what is under way on it.
struct Live {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    input: Vec<u8>,
    output: Vec<u8>,
    pending: HashMap<u32, (Request, Option<Answer>)>,
    last_id: u32,
}

impl Live {
    fn ask(&mut self, request: Request, transaction: u32, payload: &[u8], answer: Option<Answer>) {
        self.last_id = self.last_id.wrapping_add(1);
        self.output.extend(wire::encode(request, self.last_id, transaction, payload));
        self.pending.insert(self.last_id, (request, answer));
    }

    fn watch(&mut self, token: u64, path: &str) {
        self.ask(Request::Watch, 0, &wire::join(&[path, &token.to_string()]), None);
    }

    /// Tells all who wait that no answer will come.
    fn lose(&mut self) {
        for (_, (_, answer)) in self.pending.drain() {
            tell(answer, Err(Failure::Lost));
        }
    }
}

async fn connect(socket: &Path) -> io::Result<Live> {
    let (reader, writer) = UnixStream::connect(socket).await?.into_split();
    Ok(Live { reader, writer, input: Vec::new(), output: Vec::new(), pending: HashMap::new(), last_id: 0 })
}

/// Who asked may have gone meanwhile.
fn tell(answer: Option<Answer>, what: Result<Answered, Failure>) {
    if let Some(answer) = answer {
        let _ = answer.send(what);
    }
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
