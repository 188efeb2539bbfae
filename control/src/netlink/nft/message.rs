//! Messages of nfnetlink (`linux/netfilter/nfnetlink.h`): a header, attributes whose numbers are in network byte order,
//! and batches of them.

use rtnetlink::packet_core::{
    NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator,
};

/// Bytes of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const GENERAL: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;
/// `NFPROTO_INET`: both families.
const INET: u8 = 1;

/// What a message of nf_tables is about (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
}

/// Attributes, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Nothing here is near the bound of 64 KiB.
        let len = u16::try_from(NLA_HEADER_SIZE + value.len()).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A text, with the zero behind it.
    pub fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    pub fn word(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn long(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    kind: Kind,
    flags: u16,
    attributes: Attributes,
}

impl Message {
    /// Makes or removes something, as part of a batch. What is there already is no error.
    pub fn change(kind: Kind, attributes: Attributes) -> Self {
        // A new rule goes behind the others.
        let flags = match kind {
            Kind::NewTable | Kind::NewChain => NLM_F_CREATE,
            Kind::NewRule => NLM_F_CREATE | NLM_F_APPEND,
            _ => 0,
        };
        Self { kind, flags, attributes }
    }

    /// Asks for one thing.
    pub fn get(kind: Kind, attributes: Attributes) -> Self {
        Self { kind, flags: NLM_F_ACK, attributes }
    }

    /// Asks for all of a kind.
    pub fn list(kind: Kind, attributes: Attributes) -> Self {
        Self { kind, flags: NLM_F_DUMP, attributes }
    }

    /// As the kernel takes it.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.emit_into(&mut out, 0);
        out
    }

    fn emit_into(&self, out: &mut Vec<u8>, more: u16) {
        header(out, SUBSYSTEM << 8 | self.kind as u16, self.flags | more, (INET, 0), &self.attributes.0);
    }
}

/// A transaction. Its last message is acknowledged when all of it holds; an error of any is told.
pub(super) fn batch(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    header(&mut out, BATCH_BEGIN, 0, (0, SUBSYSTEM), &[]);
    for (place, message) in messages.iter().enumerate() {
        message.emit_into(&mut out, if place + 1 == messages.len() { NLM_F_ACK } else { 0 });
    }
    header(&mut out, BATCH_END, 0, (0, SUBSYSTEM), &[]);
    out
}

/// `general` is family and resource of `struct nfgenmsg`.
fn header(out: &mut Vec<u8>, kind: u16, flags: u16, general: (u8, u16), attributes: &[u8]) {
    // A message is smaller than what the socket takes.
    let len = u32::try_from(HEADER + GENERAL + attributes.len()).unwrap_or(u32::MAX);
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port: the socket asks one thing at a time, and the kernel knows its port.
    out.extend([0; 8]);
    out.extend([general.0, 0]);
    out.extend(general.1.to_be_bytes());
    out.extend(attributes);
}

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// What was asked for.
    Object(Attributes),
    /// The outcome of a request: 0, or an errno.
    Outcome(i32),
    /// The end of a list, or something that nobody asked for.
    Other,
}

/// The messages in what the socket gave.
pub(super) fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(len) = word(bytes, 0).map(|len| len as usize).filter(|len| (HEADER..=bytes.len()).contains(len)) {
        let (message, rest) = bytes.split_at(len);
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let reply = match kind {
            NLMSG_ERROR => Reply::Outcome(word(message, HEADER).map_or(0, |code| -code.cast_signed())),
            kind if kind >> 8 == SUBSYSTEM && len >= HEADER + GENERAL => {
                Reply::Object(Attributes(message[HEADER + GENERAL..].to_vec()))
            }
            _ => Reply::Other,
        };
        replies.push(reply);
        bytes = rest.get(len.next_multiple_of(4) - len..).unwrap_or_default();
    }
    replies
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reading.
impl Attributes {
    /// The first of that kind.
    fn find(&self, kind: u16) -> Option<Vec<u8>> {
        NlasIterator::new(self.0.as_slice()).flatten().find(|nla| nla.kind() == kind).map(|nla| nla.value().to_vec())
    }

    pub fn get_bytes(&self, kind: u16) -> Option<Vec<u8>> {
        self.find(kind)
    }

    pub fn get_text(&self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        Some(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(&bytes)).into_owned())
    }

    pub fn get_word(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn get_long(&self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub fn get_nested(&self, kind: u16) -> Option<Self> {
        self.find(kind).map(Self)
    }

    /// All of a list's elements.
    pub fn elements(&self, kind: u16) -> Vec<Self> {
        let all = NlasIterator::new(self.0.as_slice()).flatten().filter(|nla| nla.kind() == kind);
        all.map(|nla| Self(nla.value().to_vec())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_written() {
        let inner = Attributes::default().long(2, 1 << 40).text(3, "odd");
        let all = Attributes::default().text(1, "selvedge").word(2, 6).nested(4, &inner).nested(4, &inner);
        assert_eq!(all.get_text(1).as_deref(), Some("selvedge"));
        assert_eq!((all.get_word(2), all.get_word(1), all.get_word(9)), (Some(6), None, None));
        assert_eq!(all.get_nested(4).and_then(|inner| inner.get_long(2)), Some(1 << 40));
        assert_eq!(all.elements(4), [inner.clone(), inner]);
    }

    #[test]
    fn a_batch_is_framed_and_its_last_message_acknowledged() {
        let table = Message::change(Kind::NewTable, Attributes::default().text(1, "t"));
        let bytes = batch(&[table.clone(), table]);
        let mut kinds = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some(len) = word(rest, 0) {
            let number = |at| u16::from_ne_bytes([rest[at], rest[at + 1]]);
            kinds.push((number(4), number(6) & NLM_F_ACK != 0));
            rest = &rest[len as usize..];
        }
        assert_eq!(kinds, [(0x10, false), (0xa00, false), (0xa00, true), (0x11, false)]);
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let whole = Message::list(Kind::GetRule, Attributes::default().text(1, "t")).emit();
        assert_eq!(replies(&whole), [Reply::Object(Attributes::default().text(1, "t"))]);
        for len in 0..whole.len() {
            assert_eq!(replies(&whole[..len]), []);
        }
    }
}
