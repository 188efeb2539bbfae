//! EDNS options that mean something here: cookies (RFC 7873, RFC 9018) and the client subnet (RFC 7871).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdp_balancer_common::{
    CLIENT_COOKIE, CLIENT_PREFIX_V4, CLIENT_PREFIX_V6, COOKIE_OPTION, CookieSecret, SERVER_COOKIE, server_cookie,
};

use super::context::Context;

const SUBNET_OPTION: u16 = 8;
/// Lengths that a server cookie may have; ours has one of them.
const SERVER_COOKIES: std::ops::RangeInclusive<usize> = 8..=32;
/// Seconds that a server cookie of ours is good for (RFC 9018, 4.3).
const COOKIE_AGE_S: u32 = 3600;
/// Seconds that its time may be ahead of ours.
const COOKIE_AHEAD_S: u32 = 300;

/// An option breaks its own rules: FORMERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the options of a query say that we listen to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options<'a> {
    pub cookie: Option<Cookie<'a>>,
    pub subnet: Option<Subnet<'a>>,
}

impl<'a> Options<'a> {
    /// Reads well-formed options. Where one of a kind is there more than once the first counts (RFC 7873, 5.2);
    /// those of other kinds are ignored (RFC 6891, 6.1.2).
    pub(super) fn read(data: &'a [u8], context: &Context<'_>) -> Result<Self, Malformed> {
        let mut options = Self::default();
        for (code, data) in each(data) {
            if code == COOKIE_OPTION && options.cookie.is_none() && context.policy.cookies.is_some() {
                options.cookie = Some(Cookie::read(data)?);
            } else if code == SUBNET_OPTION && options.subnet.is_none() && context.is_believed() {
                options.subnet = Some(Subnet::read(data)?);
            }
        }
        Ok(options)
    }

    /// The options of the reply. `by_client`: its answer was chosen by the client's address.
    pub(super) fn reply(&self, context: &Context<'_>, by_client: bool) -> Vec<u8> {
        let mut reply = Vec::new();
        if let (Some(cookie), Some(secret)) = (self.cookie, context.policy.cookies) {
            let server = made(secret, cookie.client, context.time, context.client);
            append(&mut reply, COOKIE_OPTION, &[&cookie.client[..], &server].concat());
        }
        if let Some(subnet) = self.subnet {
            append(&mut reply, SUBNET_OPTION, &subnet.reply(by_client));
        }
        reply
    }
}

/// Code and data of each option, as long as they are whole.
fn each(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = data.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let (option, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
        data = rest;
        Some((u16::from_be_bytes([a, b]), option))
    })
}

fn append(options: &mut Vec<u8>, code: u16, data: &[u8]) {
    options.extend_from_slice(&code.to_be_bytes());
    // Data of ours: some dozen bytes.
    options.extend_from_slice(&(data.len() as u16).to_be_bytes());
    options.extend_from_slice(data);
}

/// A cookie option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie<'a> {
    client: [u8; CLIENT_COOKIE],
    /// Empty where the client has none yet.
    server: &'a [u8],
}

impl<'a> Cookie<'a> {
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let (client, server) = data.split_first_chunk().ok_or(Malformed)?;
        let sound = server.is_empty() || SERVER_COOKIES.contains(&server.len());
        if sound { Ok(Self { client: *client, server }) } else { Err(Malformed) }
    }

    /// Whether it bears a server cookie of ours.
    pub(super) fn is_ours(&self, context: &Context<'_>) -> bool {
        context.policy.cookies.is_some() && !self.server.is_empty() && !self.is_bad(context)
    }

    /// Whether it bears a server cookie that is not one of ours, or not one any more (RFC 9018, 4.3).
    pub(super) fn is_bad(&self, context: &Context<'_>) -> bool {
        let Some(secret) = context.policy.cookies else { return false };
        let (Some(head), Some(time)) = (self.server.get(..4), self.server.get(4..8)) else {
            return !self.server.is_empty();
        };
        let time = time.iter().fold(0, |time, byte| time << 8 | u32::from(*byte));
        // Arithmetic of serial numbers (RFC 1982): what is older than half a circle is ahead.
        let age = context.time.wrapping_sub(time);
        let fresh = age <= COOKIE_AGE_S || age.wrapping_neg() <= COOKIE_AHEAD_S;
        !(fresh && head == [1, 0, 0, 0] && self.server == made(secret, self.client, time, context.client))
    }
}

/// The server cookie for a client.
fn made(secret: CookieSecret, client: [u8; CLIENT_COOKIE], time: u32, address: IpAddr) -> [u8; SERVER_COOKIE] {
    let mut octets = [0; 16];
    let v4 = match address.to_canonical() {
        IpAddr::V4(address) => {
            octets[..4].copy_from_slice(&address.octets());
            true
        }
        IpAddr::V6(address) => {
            octets = address.octets();
            false
        }
    };
    let [a, b, c, d, e, f, g, h, rest @ ..] = octets;
    let words = [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)];
    let [head, hash] = server_cookie(secret, u64::from_ne_bytes(client), time, words, v4).map(u64::to_ne_bytes);
    let mut cookie = [0; SERVER_COOKIE];
    cookie[..8].copy_from_slice(&head);
    cookie[8..].copy_from_slice(&hash);
    cookie
}

/// A client subnet option of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet<'a> {
    /// The whole option, which the reply repeats but for the scope.
    data: &'a [u8],
    source: u8,
    /// Padded with zeros; `None` for family 0, by which a client says nothing of itself.
    address: Option<IpAddr>,
}

impl<'a> Subnet<'a> {
    /// RFC 7871, section 6: an address of just so many bytes as the prefix takes, nothing behind the prefix, scope 0.
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let ([family_high, family, source, scope], address) = data.split_first_chunk().ok_or(Malformed)?;
        let bits = match (family_high, family) {
            (0, 0) => 0,
            (0, 1) => 32,
            (0, 2) => 128,
            _ => return Err(Malformed),
        };
        if *scope != 0 || *source > bits || address.len() != usize::from(source.div_ceil(8)) {
            return Err(Malformed);
        }
        let unused = (8 - source % 8) % 8;
        if address.last().is_some_and(|last| last.trailing_zeros() < unused.into()) {
            return Err(Malformed);
        }
        let mut octets = [0; 16];
        octets[..address.len()].copy_from_slice(address);
        let [a, b, c, d, ..] = octets;
        let address = match family {
            0 => None,
            1 => Some(Ipv4Addr::new(a, b, c, d).into()),
            _ => Some(Ipv6Addr::from(octets).into()),
        };
        Ok(Self { data, source: *source, address })
    }

    /// The address to choose by; `None` where the client says nothing of itself.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address.filter(|_| self.source > 0)
    }

    /// The option with the scope of the answer: the bits that it was chosen by. That may be more than the query had
    /// (RFC 7871, 7.2.1: asked with more the answer may be another).
    fn reply(&self, by_client: bool) -> Vec<u8> {
        let scope = match self.address() {
            Some(IpAddr::V4(_)) if by_client => CLIENT_PREFIX_V4,
            Some(IpAddr::V6(_)) if by_client => CLIENT_PREFIX_V6,
            _ => 0,
        };
        let mut reply = self.data.to_vec();
        if let Some(place) = reply.get_mut(3) {
            *place = scope;
        }
        reply
    }
}
