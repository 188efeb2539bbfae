//! What the kernel would do with a frame, and why: the program itself is run on the live tables. Needs root, and
//! neither the daemon nor its lock; the daemon is only asked what it says to a query that the kernel leaves to it.

mod ask;
mod frame;
pub mod hex;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde::Serialize;

use crate::datapath::DatapathError;
use crate::datapath::explain::{self, Explainer, Ran};
use crate::dns::client::QuestionError;
use crate::dns::present::{self, Decoded};
use crate::model::in_full;

pub use crate::dns::present::type_code;
pub use ask::Asked;
pub(crate) use frame::Datagram;
use hex::HexError;

/// Where queries come from unless told otherwise; addresses for documentation (RFC 5737, RFC 3849).
const CLIENTS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// And from which port.
const CLIENT_PORT: u16 = 40000;
/// The identifier of the query.
const QUERY_ID: u16 = 0x5e1f;

/// What shall be explained.
#[derive(Debug, Clone)]
pub struct Request {
    /// A name, a frame in hexadecimal digits, or `@FILE`.
    pub subject: String,
    /// The client that asks for the name.
    pub client: Option<IpAddr>,
    /// The address that it asks; the first of ours of the client's family where none is given.
    pub server: Option<IpAddr>,
    /// The type that it asks for.
    pub qtype: u16,
    /// Whether the query has an OPT.
    pub edns: bool,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The tables cannot be run.
    #[error("{}", in_full(.0))]
    Kernel(#[from] DatapathError),
    /// The frame cannot be read.
    #[error("{0}")]
    Frame(#[from] HexError),
    /// The name is none.
    #[error("{0}")]
    Name(#[from] QuestionError),
    /// Nobody answers over that family.
    #[error("no address of this node is an {family} one, as {client} is; name another --client or a --server")]
    NoServer {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The client.
        client: IpAddr,
    },
    /// Client and server cannot talk.
    #[error("{client} and {server} are not of one family")]
    Families {
        /// The client.
        client: IpAddr,
        /// The server.
        server: IpAddr,
    },
}

impl ExplainError {
    /// Short fixed name: JSON's code.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Kernel(_) => "kernel",
            Self::Frame(error) => error.label(),
            Self::Name(error) => error.label(),
            Self::NoServer { .. } => "no_server",
            Self::Families { .. } => "families",
        }
    }
}

/// What the kernel does with a frame, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Generation of the tables.
    pub generation: u64,
    /// The verdict's label.
    pub verdict: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// `answered`, `passed`, or the number of another XDP action.
    pub action: String,
    /// The frame, in hexadecimal digits.
    pub frame: String,
    /// The query in it, where it is one.
    pub query: Option<Message>,
    /// What goes back out, in hexadecimal digits.
    pub reply_frame: Option<String>,
    /// The reply in it.
    pub reply: Option<Message>,
    /// What the daemon says to a query that the kernel leaves to it.
    pub daemon: Option<Asked>,
}

/// A DNS message: what it says, or why it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// What it says.
    pub decoded: Option<Decoded>,
    /// Why that cannot be told.
    pub problem: Option<String>,
}

impl Explanation {
    /// Whether the kernel answers.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.reply_frame.is_some()
    }
}

/// Runs the program on the tables that are pinned there.
///
/// # Errors
/// [`ExplainError`] where there are none, or what was asked for is no frame.
pub async fn explain(pin_dir: &Path, request: &Request) -> Result<Explanation, ExplainError> {
    let explainer = Explainer::open(pin_dir)?;
    let frame = frame_of(request, &explainer.local())?;
    let ran = explainer.run(&frame)?;
    let mut explanation = account(&frame, &ran);
    if let Some(datagram) = Datagram::find(&frame).filter(|_| !explanation.is_answered()) {
        explanation.daemon = ask::daemon(&datagram).await;
    }
    Ok(explanation)
}

/// The frame that is meant. `local` are the addresses that the kernel answers for.
fn frame_of(request: &Request, local: &[IpAddr]) -> Result<Vec<u8>, ExplainError> {
    if let Some(frame) = hex::frame(&request.subject)? {
        return Ok(frame);
    }
    let first = |v4: bool| local.iter().copied().find(|address| address.is_ipv4() == v4);
    let (client, server) = match (request.client, request.server) {
        (Some(client), Some(server)) => (client, Some(server)),
        (Some(client), None) => (client, first(client.is_ipv4())),
        (None, server) => {
            let server = server.or_else(|| local.first().copied());
            let client = if server.is_some_and(|s| s.is_ipv6()) { CLIENTS.1.into() } else { CLIENTS.0.into() };
            (client, server)
        }
    };
    let family = if client.is_ipv4() { "IPv4" } else { "IPv6" };
    let server = server.ok_or(ExplainError::NoServer { family, client })?;
    let query = present::query(QUERY_ID, &request.subject, request.qtype, request.edns)?;
    let frame = explain::frame(SocketAddr::new(client, CLIENT_PORT), SocketAddr::new(server, frame::DNS_PORT), &query);
    frame.ok_or(ExplainError::Families { client, server })
}

/// What was done, in words.
fn account(frame: &[u8], ran: &Ran) -> Explanation {
    let reply = ran.is_answered().then_some(ran.frame.as_slice());
    Explanation {
        generation: ran.generation,
        verdict: ran.verdict.label(),
        meaning: ran.verdict.meaning().trim(),
        action: ran.action_label(),
        frame: hex::digits(frame),
        query: Datagram::find(frame).filter(|d| d.to.port() == frame::DNS_PORT).map(|d| message(&d)),
        reply_frame: reply.map(hex::digits),
        reply: reply.and_then(Datagram::find).map(|d| message(&d)),
        daemon: None,
    }
}

fn message(datagram: &Datagram<'_>) -> Message {
    let (decoded, problem) = match present::decode(datagram.payload) {
        Ok(decoded) => (Some(decoded), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Message { from: datagram.from, to: datagram.to, decoded, problem }
}
