//! XenStore's messages as bytes (`xen/include/public/io/xs_wire.h`): a header of four little-endian words (type, request,
//! transaction, length), then at most 4096 bytes. Pure; nothing here is sent or awaited.

use super::refusal::{Errno, Nonsense};

/// Bytes of a header.
pub(super) const HEADER: usize = 16;
/// Most bytes after it (`XENSTORE_PAYLOAD_MAX`).
pub(super) const MOST: usize = 4096;

/// What is asked, or said. The numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Request {
    /// The names below an entry.
    Directory = 1,
    /// An entry's value.
    Read = 2,
    /// Who may do what with an entry.
    GetPermissions = 3,
    /// Tell of changes below a path.
    Watch = 4,
    /// Tell no more.
    Unwatch = 5,
    /// Begin a transaction.
    TransactionStart = 6,
    /// Commit or give it up.
    TransactionEnd = 7,
    /// Where a domain's entries are.
    GetDomainPath = 10,
    /// Give an entry a value; made with its parents where it is not there.
    Write = 11,
    /// Make an entry with its parents.
    Make = 12,
    /// Remove an entry with all below it.
    Remove = 13,
    /// Say who may do what with an entry.
    SetPermissions = 14,
    /// Some of the names below an entry, of which there are too many for one message.
    DirectoryPart = 22,
}

impl Request {
    /// Short fixed name for logs and messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Directory | Self::DirectoryPart => "list",
            Self::Read => "read",
            Self::GetPermissions => "get permissions of",
            Self::Watch => "watch",
            Self::Unwatch => "unwatch",
            Self::TransactionStart => "begin a transaction at",
            Self::TransactionEnd => "end a transaction at",
            Self::GetDomainPath => "find the path of",
            Self::Write => "write",
            Self::Make => "make",
            Self::Remove => "remove",
            Self::SetPermissions => "set permissions of",
        }
    }
}

const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// A message of ours.
pub(super) fn encode(request: Request, id: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    for word in [request as u32, id, transaction, length] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// A message of the store's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The answer to a request.
    Reply {
        /// Type of the request.
        kind: u32,
        /// Its number.
        id: u32,
        /// What is answered.
        payload: Vec<u8>,
    },
    /// A request was refused.
    Refusal {
        /// Its number.
        id: u32,
        /// Why.
        errno: Errno,
    },
    /// Something below a watched path has changed.
    Event {
        /// What was given when the watch was set.
        token: Vec<u8>,
    },
}

/// The first message of `bytes` and how many they are; `None` where it is not there in full.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, Nonsense> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&header[4 * at..4 * at + 4]);
        u32::from_le_bytes(word)
    };
    let (kind, id, length) = (word(0), word(1), word(3) as usize);
    // Looked at before the payload has come: a wrong length would be waited for without end.
    if length > MOST {
        return Err(Nonsense::Length(length));
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let message = match kind {
        ERROR => Message::Refusal { id, errno: Errno::of(strings(payload)?.first().copied().unwrap_or_default())? },
        WATCH_EVENT => match strings(payload)?.as_slice() {
            [_path, token, ..] => Message::Event { token: token.to_vec() },
            _ => return Err(Nonsense::Event),
        },
        _ => Message::Reply { kind, id, payload: payload.to_vec() },
    };
    Ok(Some((message, HEADER + length)))
}

/// The strings of a payload, each of which ends with a zero byte.
pub(super) fn strings(payload: &[u8]) -> Result<Vec<&[u8]>, Nonsense> {
    match payload.split_last() {
        None => Ok(Vec::new()),
        Some((0, before)) => Ok(before.split(|byte| *byte == 0).collect()),
        Some(_) => Err(Nonsense::String),
    }
}

/// Such strings where they are text.
pub(super) fn texts(payload: &[u8]) -> Result<Vec<String>, Nonsense> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Nonsense::String);
    strings(payload)?.into_iter().map(text).collect()
}

/// A payload of strings.
pub(super) fn join(parts: &[&str]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for part in parts {
        payload.extend_from_slice(part.as_bytes());
        payload.push(0);
    }
    payload
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn raw(kind: u32, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = encode(Request::Read, id, 0, payload);
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn the_form_is_the_protocols() {
        let bytes = encode(Request::Read, 7, 3, b"/local\0");
        assert_eq!(bytes, b"\x02\0\0\0\x07\0\0\0\x03\0\0\0\x07\0\0\0/local\0");
        assert_eq!(raw(11, 7, b"OK\0")[..4], (Request::Write as u32).to_le_bytes());
    }

    #[test]
    fn each_kind_of_message_is_read() {
        let whole = |bytes: &[u8]| decode(bytes).unwrap().unwrap().0;
        assert_eq!(whole(&raw(2, 9, b"x\0y")), Message::Reply { kind: 2, id: 9, payload: b"x\0y".to_vec() });
        assert_eq!(whole(&raw(16, 9, b"ENOENT\0")), Message::Refusal { id: 9, errno: Errno::NoEntry });
        assert_eq!(whole(&raw(15, 0, b"@releaseDomain\x0042\0")), Message::Event { token: b"42".to_vec() });
    }

    #[test]
    fn nonsense_is_told_by_kind() {
        assert_eq!(decode(&raw(15, 0, b"/only/a/path\0")), Err(Nonsense::Event));
        assert_eq!(decode(&raw(16, 0, b"ENOENT")), Err(Nonsense::String));
        assert_eq!(decode(&raw(16, 0, b"")), Err(Nonsense::Error));
        assert_eq!(decode(&raw(16, 0, b"\xff\0")), Err(Nonsense::Error));
        let mut long = raw(2, 0, b"");
        long[12..16].copy_from_slice(&4097u32.to_le_bytes());
        assert_eq!(decode(&long), Err(Nonsense::Length(4097)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(id: u32, payload in prop::collection::vec(any::<u8>(), 0..=MOST), more in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = encode(Request::Write, id, 1, &payload);
            let length = bytes.len();
            bytes.extend(more);
            prop_assert_eq!(decode(&bytes).unwrap(), Some((Message::Reply { kind: 11, id, payload }, length)));
        }

        #[test]
        fn a_truncated_message_is_waited_for(kind in 0u32..30, payload in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..216) {
            let bytes = raw(kind, 1, &payload);
            if cut < bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]).unwrap(), None);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_read_beyond(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            if let Ok(Some((_, length))) = decode(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn nor_do_broken_payloads(kind in prop::sample::select(vec![1u32, 2, 3, 6, 15, 16, 22]), payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&raw(kind, 1, &payload));
            let _ = texts(&payload);
        }

        #[test]
        fn strings_come_back(parts in prop::collection::vec("[a-z0-9/]{1,12}", 0..6)) {
            let borrowed: Vec<&str> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(texts(&join(&borrowed)).unwrap(), parts);
        }
    }
}
