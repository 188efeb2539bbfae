//! The client's side, as far as a stub resolver needs it: one question out, its addresses back.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::DecodeError;
use xdp_balancer_common::EDNS_PAYLOAD;

/// A name that can be asked for.
#[derive(Debug, Clone)]
pub struct Question {
    query: Query,
    /// The message, identifier zero.
    bytes: Vec<u8>,
}

/// A text that is no domain name.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} is not a domain name: {source}")]
pub struct QuestionError {
    /// The text.
    pub name: String,
    /// What is wrong with it.
    pub source: ProtoError,
}

impl QuestionError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        "name"
    }
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Addresses of the asked type, in the reply's order.
    pub list: Vec<IpAddr>,
    /// TC: not all of them; ask over TCP.
    pub truncated: bool,
}

/// Why a message is no usable reply.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// It answers something else; the true reply may still come.
    #[error("the reply is to another question")]
    Foreign,
    /// It cannot be parsed.
    #[error("the reply is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The server says no.
    #[error("the server answers {name}")]
    Code {
        /// RCODE.
        code: u16,
        /// Its name.
        name: String,
    },
    /// There is no address of this type.
    #[error("the name has no address of this type")]
    NoAddress,
}

impl ReplyError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Foreign => "foreign_reply",
            Self::Malformed(_) => "malformed_reply",
            Self::Code { code: 2, .. } => "servfail",
            Self::Code { code: 3, .. } => "nxdomain",
            Self::Code { code: 5, .. } => "refused",
            Self::Code { .. } => "rcode",
            Self::NoAddress => "no_address",
        }
    }
}

impl Question {
    /// A question of type [`TYPE_A`](super::TYPE_A) or [`TYPE_AAAA`](super::TYPE_AAAA) as stub
    /// resolvers ask it: RD, EDNS with a payload size of 1232. A final dot may be left out.
    ///
    /// # Errors
    /// [`QuestionError`] where `name` is no domain name.
    pub fn new(name: &str, qtype: u16) -> Result<Self, QuestionError> {
        Self::encode(name, qtype).map_err(|source| QuestionError { name: name.to_owned(), source })
    }

    fn encode(name: &str, qtype: u16) -> Result<Self, ProtoError> {
        let mut name = Name::from_ascii(name)?;
        name.set_fqdn(true);
        let query = Query::query(name, RecordType::from(qtype));
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_PAYLOAD);
        message.set_edns(edns);
        Ok(Self { query, bytes: message.to_vec()? })
    }

    /// The query with an identifier.
    #[must_use]
    pub fn bytes(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    /// Reads the reply to the query with this identifier.
    ///
    /// # Errors
    /// [`ReplyError`]; after [`ReplyError::Foreign`] wait on.
    pub fn read(&self, id: u16, reply: &[u8]) -> Result<Addresses, ReplyError> {
        if reply.get(..2) != Some(&id.to_be_bytes()) {
            return Err(ReplyError::Foreign);
        }
        let reply = Message::from_vec(reply)?;
        if reply.metadata.message_type != MessageType::Response || reply.queries != [self.query.clone()] {
            return Err(ReplyError::Foreign);
        }
        let code = reply.metadata.response_code;
        if code != ResponseCode::NoError {
            return Err(ReplyError::Code { code: code.into(), name: code.to_string() });
        }
        let kind = self.query.query_type();
        let address = |data: &RData| match data {
            RData::A(a) if kind == RecordType::A => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) if kind == RecordType::AAAA => Some(IpAddr::V6(a.0)),
            _ => None,
        };
        let list: Vec<IpAddr> = reply.answers.iter().filter_map(|record| address(&record.data)).collect();
        let truncated = reply.metadata.truncation;
        if list.is_empty() && !truncated { Err(ReplyError::NoAddress) } else { Ok(Addresses { list, truncated }) }
    }
}
