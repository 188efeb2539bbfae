//! What a server says of itself: TXT of class CH (RFC 4892).

use super::TYPE_TXT;
use super::records::{QUESTION_OWNER, RECORD_FIXED};
use super::render::RenderedAnswer;

/// CLASS of it.
pub(super) const CLASS_CH: u16 = 3;
/// What we are. No version: it would help attackers more than operators.
const SOFTWARE: &str = "selvedge";

/// The answer to a question of class CH; `None` where there is nothing to say.
pub(super) fn answer(name: &[u8], qtype: u16, identity: &str) -> Option<RenderedAnswer> {
    let text = match name.to_ascii_lowercase().as_slice() {
        b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => identity,
        b"\x07version\x06server\0" | b"\x07version\x04bind\0" => SOFTWARE,
        _ => return None,
    };
    // A character-string has one byte for its length, and none says nothing.
    let length = u8::try_from(text.len()).ok().filter(|length| *length > 0 && qtype == TYPE_TXT)?;
    let mut bytes = Vec::with_capacity(QUESTION_OWNER.len() + RECORD_FIXED + 1 + text.len());
    bytes.extend_from_slice(&QUESTION_OWNER);
    for word in [TYPE_TXT, CLASS_CH, 0, 0, u16::from(length) + 1] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.push(length);
    bytes.extend_from_slice(text.as_bytes());
    Some(RenderedAnswer { ancount: 1, bytes, ..RenderedAnswer::default() })
}
