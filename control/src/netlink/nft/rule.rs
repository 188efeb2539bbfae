//! A rule: the expressions that it is made of, and what is read back of it.

use std::net::IpAddr;

use super::message::{Attributes, Kind, Message};

/// Attribute that names a rule's table.
pub(super) const TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
/// The first register of 16 bytes, which an address of either family fits.
const REGISTER: u32 = 1;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const DESTINATION_PORT: u32 = 2;
const TCP_FLAGS: u32 = 13;
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;
const NAT_DESTINATION: u32 = 1;
/// `NFT_JUMP`.
const JUMP: i32 = -3;
/// Type of a comment among a rule's user data, as `nft` writes and shows it.
const COMMENT: u8 = 0;

/// What a service is spoken to over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A rule as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SeenRule {
    pub chain: String,
    pub handle: u64,
    /// Our words for it; empty where it has none.
    pub comment: String,
    /// Connections that it took.
    pub connections: u64,
}

/// New connections for an address and port go to another address. Both are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Redirect {
    pub from: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub to: IpAddr,
}

impl Redirect {
    /// Words that no other one has.
    pub fn comment(&self) -> String {
        format!("{} {} {} to {}", self.from, self.protocol.label(), self.port, self.to)
    }

    /// The rule. Only a connection's first packet comes here, and of a TCP connection that is one with SYN: one that was
    /// open before the kernel kept track of connections is left alone.
    pub(super) fn rule(&self, table: &str, chain: &str) -> Message {
        // Place of the destination address in the header.
        let (family, place) = if self.from.is_ipv4() { (2, 16) } else { (10, 24) };
        let from = octets(self.from);
        let len = u32::try_from(from.len()).unwrap_or(16);
        let mut expressions = vec![
            meta(META_NFPROTO),
            equal(&[family]),
            meta(META_L4PROTO),
            equal(&[self.protocol.number()]),
            payload(NETWORK, place, len),
            equal(&from),
            payload(TRANSPORT, DESTINATION_PORT, 2),
            equal(&self.port.to_be_bytes()),
        ];
        if self.protocol == Protocol::Tcp {
            expressions.extend([payload(TRANSPORT, TCP_FLAGS, 1), masked(FIN_SYN_RST_ACK), equal(&[SYN])]);
        }
        let target = Attributes::default().word(1, REGISTER).nested(2, &value(&octets(self.to)));
        let nat = Attributes::default().word(1, NAT_DESTINATION).word(2, family.into()).word(3, REGISTER);
        expressions.extend([
            expression("counter", &Attributes::default()),
            expression("immediate", &target),
            expression("nat", &nat),
        ]);
        rule(table, chain, &self.comment(), &expressions)
    }
}

/// A rule that goes on in `target`.
pub(super) fn jump(table: &str, chain: &str, target: &str, comment: &str) -> Message {
    let verdict = Attributes::default().word(1, JUMP.cast_unsigned()).text(2, target);
    let data = Attributes::default().nested(DATA_VERDICT, &verdict);
    // Register 0 is the verdict.
    let jump = expression("immediate", &Attributes::default().word(1, 0).nested(2, &data));
    rule(table, chain, comment, &[jump])
}

/// Removes a rule.
pub(super) fn remove(table: &str, chain: &str, handle: u64) -> Message {
    let place = Attributes::default().text(TABLE, table).text(RULE_CHAIN, chain);
    Message::change(Kind::DelRule, place.long(RULE_HANDLE, handle))
}

/// What is needed of a rule of the kernel's.
pub(super) fn seen(rule: &Attributes) -> Option<SeenRule> {
    let data = rule.get_bytes(RULE_USERDATA).unwrap_or_default();
    let comment = match data.as_slice() {
        [COMMENT, len, text @ ..] => text.get(..usize::from(*len)).and_then(|text| text.strip_suffix(&[0])),
        _ => None,
    };
    let expressions = rule.get_nested(RULE_EXPRESSIONS).unwrap_or_default().elements(LIST_ELEMENT);
    let counter = expressions.iter().find(|e| e.get_text(EXPRESSION_NAME).as_deref() == Some("counter"));
    let counted = counter.and_then(|e| e.get_nested(EXPRESSION_DATA)?.get_long(COUNTER_PACKETS));
    Some(SeenRule {
        chain: rule.get_text(RULE_CHAIN)?,
        handle: rule.get_long(RULE_HANDLE)?,
        comment: String::from_utf8_lossy(comment.unwrap_or_default()).into_owned(),
        connections: counted.unwrap_or(0),
    })
}

fn rule(table: &str, chain: &str, comment: &str, expressions: &[Attributes]) -> Message {
    let list = expressions.iter().fold(Attributes::default(), |list, one| list.nested(LIST_ELEMENT, one));
    // The longest has two IPv6 addresses, which is far below 256 bytes.
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let data = [&[COMMENT, len], comment.as_bytes(), &[0]].concat();
    let place = Attributes::default().text(TABLE, table).text(RULE_CHAIN, chain);
    Message::change(Kind::NewRule, place.nested(RULE_EXPRESSIONS, &list).bytes(RULE_USERDATA, &data))
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::default().text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, data)
}

/// Something about the packet into the register.
fn meta(key: u32) -> Attributes {
    expression("meta", &Attributes::default().word(1, REGISTER).word(2, key))
}

/// Bytes of a header into the register.
fn payload(base: u32, offset: u32, len: u32) -> Attributes {
    expression("payload", &Attributes::default().word(1, REGISTER).word(2, base).word(3, offset).word(4, len))
}

/// Bits of the register's first byte.
fn masked(mask: u8) -> Attributes {
    let data = Attributes::default().word(1, REGISTER).word(2, REGISTER).word(3, 1);
    expression("bitwise", &data.nested(4, &value(&[mask])).nested(5, &value(&[0])))
}

/// Goes on where the register is this.
fn equal(to: &[u8]) -> Attributes {
    // Operator 0 is "equal".
    expression("cmp", &Attributes::default().word(1, REGISTER).word(2, 0).nested(3, &value(to)))
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(DATA_VALUE, bytes)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
