//! Content digests as OCI writes them: `sha256:` and 64 hex digits.

use std::fmt;
use std::fmt::Write as _;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::ImageError;

const ALGORITHM: &str = "sha256:";

/// The digest of a blob or manifest. SHA-256 alone, which is what registries and engines use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// A digest as it is written; lower-case hex digits as the specification wants them.
    ///
    /// # Errors
    /// [`ImageError::Digest`].
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let digits = |hex: &str| hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match text.strip_prefix(ALGORITHM) {
            Some(hex) if hex.len() == 64 && digits(hex) => Ok(Self(text.to_owned())),
            _ => Err(ImageError::Digest { text: text.to_owned() }),
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whole, with the algorithm.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits: the blob's file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[ALGORITHM.len()..]
    }

    /// Enough of it for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..ALGORITHM.len() + 12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A digest that grows with what is written.
pub(super) struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let mut text = ALGORITHM.to_owned();
        for byte in self.0.finish().as_ref() {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Digest(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn only_whole_lower_case_sha256_is_taken() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Digest::parse(empty).unwrap(), Digest::of(b""));
        let upper = empty.to_uppercase();
        for wrong in [&empty[..70], &upper, "sha512:00", "", "sha256:../../../../etc/passwd", &format!("{empty}0")] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
