//! A reply while it grows: what fits, and what is cut.

use xdp_balancer_common::EDNS_PAYLOAD;

use super::TYPE_TSIG;
use super::layout::Cut;
use super::query::{CLASS_ANY, HEADER_BYTES, Opt, Query};
use super::records::{Chain, FixedRrset, RECORD_FIXED, Record, records};
use super::render::{FLAG_AA, RenderedAnswer};
use super::stats::Transport;

const FLAG_QR: u16 = 0x8000;
pub(super) const FLAG_TC: u16 = 0x0200;
const FLAG_RD: u16 = 0x0100;
/// Smallest UDP payload size, and the one without EDNS.
const PLAIN_PAYLOAD: u16 = 512;
const OPT_BYTES: usize = 11;
/// Offsets in a message that a compression pointer can reach.
const POINTER_REACH: usize = 0x4000;

#[derive(Clone, Copy)]
enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// Where a referral's question stands to the cut.
#[derive(Clone, Copy)]
pub(super) enum Referral<'a> {
    /// At or below: the delegated name begins here in the question's.
    At(usize),
    /// These aliases lead there.
    Behind(&'a Chain),
}

/// A reply while it grows. The header is written last.
pub(super) struct Reply<'q> {
    query: &'q Query<'q>,
    opt: Option<Opt<'q>>,
    pub flags: u16,
    rcode_high: u8,
    /// Of the OPT.
    options: Vec<u8>,
    counts: [u16; 3],
    bytes: Vec<u8>,
    /// Room for the whole.
    payload: usize,
}

impl<'q> Reply<'q> {
    pub(super) fn new(query: &'q Query<'q>, transport: Transport) -> Self {
        let opt = query.rest.as_ref().and_then(|rest| rest.opt);
        let payload = match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => opt.map_or(PLAIN_PAYLOAD, |opt| opt.payload.clamp(PLAIN_PAYLOAD, EDNS_PAYLOAD)),
        };
        let mut bytes = Vec::with_capacity(usize::from(PLAIN_PAYLOAD));
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend_from_slice(query.question.as_ref().map_or(&[], |question| question.bytes));
        let recursion_desired = if query.recursion_desired { FLAG_RD } else { 0 };
        Self {
            query,
            opt,
            flags: FLAG_QR | u16::from(query.opcode) << 11 | recursion_desired,
            rcode_high: 0,
            options: Vec::new(),
            counts: [0; 3],
            bytes,
            payload: usize::from(payload),
        }
    }

    /// Sets a code, of which what is above 15 goes into the OPT.
    pub(super) fn set_rcode(&mut self, rcode: u16) {
        self.flags |= rcode & 0xF;
        self.rcode_high = (rcode >> 4) as u8;
    }

    /// Sets the OPT's options; before records, which get the room that is left.
    pub(super) fn set_options(&mut self, options: Vec<u8>) {
        self.options = options;
    }

    fn fits(&self, len: usize) -> bool {
        let opt = if self.opt.is_some() { OPT_BYTES + self.options.len() } else { 0 };
        self.bytes.len() + len + opt <= self.payload
    }

    /// Adds an answer whole, or as much of it as fits.
    pub(super) fn answer(&mut self, answer: &RenderedAnswer) {
        self.flags |= answer.flags;
        if self.fits(answer.bytes.len()) {
            self.bytes.extend_from_slice(&answer.bytes);
            self.counts = [answer.ancount, answer.nscount, answer.arcount];
            return;
        }
        let mut left = records(&answer.bytes);
        for record in left.by_ref().take(usize::from(answer.ancount)) {
            self.add(&record, Section::Answer);
        }
        for record in left.by_ref().take(usize::from(answer.nscount)) {
            self.add(&record, Section::Authority);
        }
        // Kind to the client, but no part of the answer: whole RRsets as far as they fit, and TC is not for them.
        let additional: Vec<Record<'_>> = left.collect();
        for rrset in additional.chunk_by(Record::is_with) {
            let len = rrset.iter().map(Record::len).sum();
            if self.flags & FLAG_TC == 0 && self.fits(len) {
                rrset.iter().for_each(|record| self.add(record, Section::Additional));
            }
        }
    }

    /// Adds a record where it fits, or sets TC: nothing follows a record that was left out.
    fn add(&mut self, record: &Record<'_>, section: Section) {
        if self.flags & FLAG_TC != 0 || !self.fits(record.len()) {
            self.flags |= FLAG_TC;
            return;
        }
        self.counts[section as usize] += 1;
        self.bytes.extend_from_slice(record.owner);
        self.bytes.extend_from_slice(record.rest);
    }

    /// Adds a delegation: its NS, and the addresses of their servers as far as they are ours to tell. Here names that
    /// stand in the reply already are pointed to, for delegations are long and the kernel need not know them.
    pub(super) fn refer(&mut self, cut: &Cut, to: Referral<'_>) {
        let mut owner = match to {
            Referral::At(at) => pointer(HEADER_BYTES + at).map_or_else(|| cut.name.clone(), Vec::from),
            Referral::Behind(chain) => {
                // AA speaks of the alias, which is ours.
                self.flags |= FLAG_AA;
                records(&chain.bytes).for_each(|record| self.add(&record, Section::Answer));
                cut.name.clone()
            }
        };
        let mut servers = Vec::with_capacity(cut.ns.rdata.len());
        for target in &cut.ns.rdata {
            let at = self.bytes.len();
            self.add_of(&cut.ns, &owner, target, Section::Authority);
            servers.push(pointer(at + owner.len() + RECORD_FIXED));
            if owner.len() > 2
                && let Some(first) = pointer(at)
            {
                owner = first.to_vec();
            }
        }
        // Those without which the delegation cannot be followed go first.
        for needed in [true, false] {
            for glue in cut.glue.iter().filter(|glue| glue.needed == needed) {
                let written = servers.get(glue.server).copied().flatten();
                let owner = written.map_or_else(|| cut.ns.rdata[glue.server].clone(), Vec::from);
                for rrset in &glue.rrsets {
                    let len = rrset.rdata.iter().map(|rdata| owner.len() + RECORD_FIXED + rdata.len()).sum();
                    if needed || (self.flags & FLAG_TC == 0 && self.fits(len)) {
                        rrset.rdata.iter().for_each(|rdata| self.add_of(rrset, &owner, rdata, Section::Additional));
                    }
                }
            }
        }
    }

    fn add_of(&mut self, rrset: &FixedRrset, owner: &[u8], rdata: &[u8], section: Section) {
        let mut bytes = Vec::with_capacity(owner.len() + RECORD_FIXED + rdata.len());
        rrset.append(owner, rdata, &mut bytes);
        let (owner, rest) = bytes.split_at(owner.len());
        self.add(&Record { owner, rest }, section);
    }

    /// The TSIG that says that the query's key is not known, unsigned (RFC 8945, 5.2.1); none where it does not fit.
    fn bad_key(&self) -> Option<Vec<u8>> {
        const BADKEY: u16 = 17;
        let tsig = self.query.rest.as_ref()?.tsig?;
        let mut bytes = tsig.key.to_vec();
        let length = (tsig.algorithm.len() + tsig.time.len() + 8) as u16;
        for word in [TYPE_TSIG, CLASS_ANY, 0, 0, length] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(tsig.algorithm);
        bytes.extend_from_slice(tsig.time);
        for word in [0, self.query.id, BADKEY, 0] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        self.fits(bytes.len()).then_some(bytes)
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let tsig = self.bad_key();
        let words = [
            self.query.id,
            self.flags,
            u16::from(self.query.question.is_some()),
            self.counts[Section::Answer as usize],
            self.counts[Section::Authority as usize],
            self.counts[Section::Additional as usize] + u16::from(self.opt.is_some()) + u16::from(tsig.is_some()),
        ];
        for (place, word) in self.bytes.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        if let Some(opt) = self.opt {
            let dnssec_ok = if opt.dnssec_ok { 0x80 } else { 0 };
            let [high, low] = EDNS_PAYLOAD.to_be_bytes();
            self.bytes.extend_from_slice(&[0, 0, 41, high, low, self.rcode_high, 0, dnssec_ok, 0]);
            // Options of ours: some dozen bytes.
            self.bytes.extend_from_slice(&(self.options.len() as u16).to_be_bytes());
            self.bytes.extend_from_slice(&self.options);
        }
        self.bytes.extend(tsig.unwrap_or_default());
        self.bytes
    }
}

/// A compression pointer to this offset, where one can reach it.
fn pointer(at: usize) -> Option<[u8; 2]> {
    (at < POINTER_REACH).then(|| (0xC000 | at as u16).to_be_bytes())
}
