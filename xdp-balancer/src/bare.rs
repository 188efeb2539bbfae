//! Answers without records, which limits and lists give.

use xdp_balancer_common::{AnswerHead, Bytes as _, REFUSED_AT, SLIPPED_AT, UNPROVEN_AT, Verdict};

/// TC.
const TRUNCATED: u16 = 0x0200;
const REFUSED: u16 = 5;

/// Answers without records, where the program looks for them.
pub(crate) fn bare_answers() -> [(usize, [u8; size_of::<AnswerHead>()]); 3] {
    let head = |flags: u16, verdict| {
        AnswerHead { flags: flags.to_be(), verdict: verdict as u16, ..AnswerHead::default() }.to_bytes()
    };
    [
        (SLIPPED_AT, head(TRUNCATED, Verdict::Slipped)),
        (UNPROVEN_AT, head(TRUNCATED, Verdict::Unproven)),
        (REFUSED_AT, head(REFUSED, Verdict::Refused)),
    ]
}
