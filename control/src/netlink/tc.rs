//! Traffic control messages: the token bucket (`net/sched/sch_tbf.c`), and the redirect of what an interface receives
//! to another one's output, which is how the way in is shaped. `netlink-packet-route` has no options of the former;
//! their layout is that of `linux/pkt_sched.h`.

use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};
use rtnetlink::packet_core::{DefaultNla, Nla, NlasIterator};

use crate::model::Shaping;

/// Place of our redirect in an interface's list of filters: behind the one that counts an instance's packets.
pub(super) const REDIRECT_PRIORITY: u16 = 0x5e20;
/// Where the filters for what is received hang.
const INGRESS_HOOK: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

const TBF: &str = "tbf";
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `struct tc_tbf_qopt`: rate and peak rate of 12 bytes each, limit, buffer, mtu.
const QOPT_BYTES: usize = 36;
const LINKLAYER_ETHERNET: u8 = 1;
/// The kernel's unit of time here, in nanoseconds (`PSCHED_SHIFT`).
const TICK_NS: u64 = 64;
/// `ETH_P_ALL` in network byte order, as the header holds it.
const ALL_PROTOCOLS: u16 = 3u16.to_be();

/// A queueing discipline at the root of an interface, or its place for filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Qdisc {
    pub index: u32,
    pub kind: String,
    pub handle: TcHandle,
    pub parent: TcHandle,
    /// Of a token bucket.
    pub bucket: Option<Bucket>,
    /// Bytes that wait.
    pub backlog: u32,
}

/// A token bucket's parameters as the kernel tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub rate_bps: u64,
    pub burst_bytes: u64,
    pub limit_bytes: u32,
}

impl Qdisc {
    /// What is needed of the kernel's message.
    pub fn parse(message: &TcMessage) -> Self {
        let mut qdisc = Self {
            index: message.header.index.cast_unsigned(),
            kind: String::new(),
            handle: message.header.handle,
            parent: message.header.parent,
            bucket: None,
            backlog: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => qdisc.kind.clone_from(kind),
                TcAttribute::Options(options) => qdisc.bucket = options.iter().find_map(bucket),
                TcAttribute::Stats(stats) => qdisc.backlog = stats.backlog,
                _ => {}
            }
        }
        if qdisc.kind != TBF {
            qdisc.bucket = None;
        }
        qdisc
    }

    pub fn is_root(&self) -> bool {
        self.parent == TcHandle::ROOT
    }

    /// A token bucket with `handle`, which is its owner's mark.
    pub fn is_bucket_of(&self, handle: TcHandle) -> bool {
        self.is_root() && self.kind == TBF && self.handle == handle
    }

    /// The kernel's own, which anybody may replace.
    pub fn is_default(&self) -> bool {
        self.handle == TcHandle::UNSPEC
    }

    /// Whether filters for what is received can hang here.
    pub fn takes_ingress(&self) -> bool {
        self.parent == TcHandle::INGRESS && matches!(self.kind.as_str(), "clsact" | "ingress")
    }
}

impl Bucket {
    /// Whether this is what `shaping` asks for, with so long a queue. The kernel keeps the burst as time in ticks, so that it comes back
    /// rounded.
    pub fn is(self, shaping: Shaping, limit_bytes: u32) -> bool {
        let slack = u64::from(shaping.burst_bytes) / 100 + 16;
        self.rate_bps == shaping.rate_bps / 8 * 8
            && self.limit_bytes == limit_bytes
            && self.burst_bytes.abs_diff(u64::from(shaping.burst_bytes)) <= slack
    }

    /// As it has to be asked for to be had again.
    pub fn shaping(self) -> Shaping {
        Shaping { rate_bps: self.rate_bps, burst_bytes: u32::try_from(self.burst_bytes).unwrap_or(u32::MAX) }
    }
}

/// A token bucket at the root of an interface. `limit_bytes` is what may wait.
pub(super) fn bucket_message(index: u32, handle: TcHandle, shaping: Shaping, limit_bytes: u32) -> TcMessage {
    let bytes_per_s = shaping.rate_bps / 8;
    let mut parms = [0; QOPT_BYTES];
    parms[1] = LINKLAYER_ETHERNET;
    parms[8..12].copy_from_slice(&u32::try_from(bytes_per_s).unwrap_or(u32::MAX).to_ne_bytes());
    parms[24..28].copy_from_slice(&limit_bytes.to_ne_bytes());
    let ticks = u64::from(shaping.burst_bytes).saturating_mul(1_000_000_000) / bytes_per_s.max(1) / TICK_NS;
    parms[28..32].copy_from_slice(&u32::try_from(ticks).unwrap_or(u32::MAX).to_ne_bytes());
    let nla = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
    let mut options = vec![nla(TCA_TBF_PARMS, &parms), nla(TCA_TBF_BURST, &shaping.burst_bytes.to_ne_bytes())];
    if u32::try_from(bytes_per_s).is_err() {
        options.push(nla(TCA_TBF_RATE64, &bytes_per_s.to_ne_bytes()));
    }
    let mut message = root(index, handle);
    message.attributes = vec![TcAttribute::Kind(TBF.to_owned()), TcAttribute::Options(options)];
    message
}

/// Names what is at the root of an interface with that handle.
pub(super) fn root(index: u32, handle: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.header.handle = handle;
    message
}

/// The place for filters.
pub(super) fn clsact(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// Names our redirect among an interface's filters.
pub(super) fn redirect_place(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = INGRESS_HOOK;
    message.header.info = u32::from(TcHandle { major: REDIRECT_PRIORITY, minor: ALL_PROTOCOLS });
    message.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.to_owned()));
    message
}

/// Sends all that an interface receives through the output of another, as
/// `tc filter add … ingress protocol all u32 match u32 0 0 action mirred egress redirect dev …`.
pub(super) fn redirect_message(index: u32, to: u32) -> TcMessage {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut mirror = TcMirror::default();
    mirror.generic = TcActionGeneric::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let options = [TcFilterU32Option::Selector(selector), TcFilterU32Option::Action(vec![action])];
    let mut message = redirect_place(index);
    message.attributes.push(TcAttribute::Options(options.map(TcOption::U32).to_vec()));
    message
}

/// Where our redirect leads, if this filter is it.
pub(super) fn redirect_target(message: &TcMessage) -> Option<u32> {
    if message.header.parent != INGRESS_HOOK || TcHandle::from(message.header.info).major != REDIRECT_PRIORITY {
        return None;
    }
    let options = message.attributes.iter().find_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options?.iter().find_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => actions.iter().find_map(mirrored_to),
        _ => None,
    })
}

fn mirrored_to(action: &TcAction) -> Option<u32> {
    action.attributes.iter().find_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
            _ => None,
        }),
        _ => None,
    })
}

/// A token bucket's parameters out of `TCA_OPTIONS`, which is handed on unparsed.
fn bucket(option: &TcOption) -> Option<Bucket> {
    let TcOption::Other(raw) = option else { return None };
    if raw.kind() & 0x3fff != TCA_OPTIONS {
        return None;
    }
    let mut bytes = vec![0; raw.value_len()];
    raw.emit_value(&mut bytes);
    let mut found = None;
    let mut rate64 = None;
    for nla in NlasIterator::new(&bytes).flatten() {
        let value = nla.value();
        let word = |at: usize| Some(u32::from_ne_bytes(value.get(at..at + 4)?.try_into().ok()?));
        match nla.kind() {
            TCA_TBF_PARMS => found = Some((word(8)?, word(24)?, word(28)?)),
            TCA_TBF_RATE64 => rate64 = value.try_into().ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    let (rate, limit_bytes, ticks) = found?;
    let bytes_per_s = rate64.unwrap_or_else(|| u64::from(rate));
    let burst = u128::from(ticks) * u128::from(TICK_NS) * u128::from(bytes_per_s) / 1_000_000_000;
    Some(Bucket {
        rate_bps: bytes_per_s.saturating_mul(8),
        burst_bytes: u64::try_from(burst).unwrap_or(u64::MAX),
        limit_bytes,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use rtnetlink::packet_core::{Emitable, Parseable};

    use super::*;

    const HANDLE: TcHandle = TcHandle { major: 0x5abc, minor: 0 };

    /// As the kernel would send it back.
    fn read_back(message: &TcMessage) -> TcMessage {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        TcMessage::parse(bytes.as_slice()).unwrap()
    }

    #[test]
    fn buckets_are_read_as_written() {
        for rate_bps in [1_000_000, 10_000_000, 200_000_000, 40_000_000_000] {
            let shaping = Shaping::with_default_burst(rate_bps);
            let qdisc = Qdisc::parse(&read_back(&bucket_message(7, HANDLE, shaping, shaping.queue_bytes())));
            assert!(qdisc.is_bucket_of(HANDLE) && !qdisc.is_default(), "{qdisc:?}");
            assert_eq!(qdisc.index, 7);
            let bucket = qdisc.bucket.unwrap();
            let limit = shaping.queue_bytes();
            assert!(bucket.is(shaping, limit) && !bucket.is(shaping, limit + 1), "{bucket:?} {shaping:?}");
            assert!(!bucket.is(Shaping { rate_bps: rate_bps * 2, ..shaping }, limit));
            assert!(!bucket.is(Shaping { burst_bytes: shaping.burst_bytes * 2, ..shaping }, limit));
        }
    }

    #[test]
    fn redirects_are_read_as_written() {
        let message = read_back(&redirect_message(3, 44));
        assert_eq!(redirect_target(&message), Some(44));
        let mut others = message;
        others.header.info = u32::from(TcHandle { major: 1, minor: ALL_PROTOCOLS });
        assert_eq!(redirect_target(&others), None);
    }
}
