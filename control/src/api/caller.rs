//! Who is at the other end: the kernel says it of a Unix socket, a certificate or a token over TCP.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};
use ring::digest::{SHA256, digest};
use tokio::net::UnixStream;

/// More than any file of tokens has.
const LARGEST_TOKENS: u64 = 1 << 20;
/// Fewest characters of a token: 128 bits in hex.
const SHORTEST_TOKEN: usize = 32;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing.
    Nothing,
    /// Look.
    Read,
    /// And order.
    Write,
}

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// For logs and orders.
    pub name: String,
    /// What they may do.
    pub right: Right,
}

/// Who of this machine may do what.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub group: Option<String>,
    pub others_read: bool,
}

impl Local {
    /// Whoever is connected, as the kernel says; with nothing allowed where it does not.
    pub fn caller(&self, stream: &UnixStream) -> Caller {
        let Ok(peer) = stream.peer_cred() else {
            return Caller { name: "somebody".to_owned(), right: Right::Nothing };
        };
        let user = User::from_uid(Uid::from_raw(peer.uid())).ok().flatten();
        let own = peer.uid() == 0 || peer.uid() == geteuid().as_raw();
        let right = if own || self.in_group(user.as_ref(), Gid::from_raw(peer.gid())) {
            Right::Write
        } else if self.others_read {
            Right::Read
        } else {
            Right::Nothing
        };
        Caller { name: user.map_or_else(|| format!("uid {}", peer.uid()), |user| user.name), right }
    }

    /// Whether the process's own group or one that the user is listed in is the one that may write.
    fn in_group(&self, user: Option<&User>, own: Gid) -> bool {
        let group = self.group.as_deref().and_then(|name| Group::from_name(name).ok().flatten());
        let Some(group) = group else { return false };
        if group.gid == own {
            return true;
        }
        let listed = user.and_then(|user| {
            let name = std::ffi::CString::new(user.name.as_str()).ok()?;
            getgrouplist(&name, user.gid).ok()
        });
        listed.is_some_and(|groups| groups.contains(&group.gid))
    }
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Everybody may read it.
    #[error("everybody on this machine may read it; run chmod 600 on it")]
    Exposed,
    /// A line is not what it shall be.
    #[error(
        "line {line}: {what}; write NAME read|write TOKEN, with a TOKEN of at least 32 characters (openssl rand -hex 32)"
    )]
    Line {
        /// Which.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// Tokens, known by their digests: nothing here tells one, and looking one up takes as long for each.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens(BTreeMap<Vec<u8>, Caller>);

impl Tokens {
    /// Reads `NAME read|write TOKEN` lines; empty ones and those that begin with `#` are left out.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let file = File::open(path)?;
        if file.metadata()?.mode() & 0o007 != 0 {
            return Err(TokenError::Exposed);
        }
        let mut text = String::new();
        file.take(LARGEST_TOKENS).read_to_string(&mut text)?;
        let mut tokens = BTreeMap::new();
        for (line, fields) in (1..).zip(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>())) {
            let wrong = |what| TokenError::Line { line, what };
            match fields.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [name, right, token] => {
                    let right = match *right {
                        "read" => Right::Read,
                        "write" => Right::Write,
                        _ => return Err(wrong("the second word is neither read nor write")),
                    };
                    if token.len() < SHORTEST_TOKEN {
                        return Err(wrong("the token is too short"));
                    }
                    let caller = Caller { name: (*name).to_owned(), right };
                    if tokens.insert(Self::key(token), caller).is_some() {
                        return Err(wrong("the token is there twice"));
                    }
                }
                _ => return Err(wrong("is not three words")),
            }
        }
        Ok(Self(tokens))
    }

    /// Whose token it is.
    pub fn caller(&self, token: &str) -> Option<&Caller> {
        self.0.get(&Self::key(token))
    }

    fn key(token: &str) -> Vec<u8> {
        digest(&SHA256, token.as_bytes()).as_ref().to_vec()
    }
}

/// A certificate's name: the first sixteen digits of its SHA-256, as `openssl x509 -fingerprint -sha256` begins.
pub(super) fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("certificate {hex}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn load(text: &str, mode: u32) -> Result<Tokens, TokenError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Tokens::load(&path)
    }

    #[test]
    fn tokens_are_known_by_their_whole_text() {
        let (one, two) = ("a".repeat(32), "b".repeat(40));
        let tokens = load(&format!("# who\n\nci read {one}\nadmin  write\t{two}\n"), 0o600).unwrap();
        assert_eq!(tokens.caller(&one).map(|c| (c.name.as_str(), c.right)), Some(("ci", Right::Read)));
        assert_eq!(tokens.caller(&two).map(|c| c.right), Some(Right::Write));
        assert_eq!(tokens.caller(&one[1..]), None);
        for wrong in ["ci read", "ci own aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ci read short"] {
            assert!(matches!(load(wrong, 0o600), Err(TokenError::Line { line: 1, .. })), "{wrong}");
        }
        assert!(matches!(load(&format!("a read {one}\nb read {one}"), 0o600), Err(TokenError::Line { line: 2, .. })));
        assert!(matches!(load("", 0o604), Err(TokenError::Exposed)));
    }
}
