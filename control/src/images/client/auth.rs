//! Credentials, and what a registry that wants some says (RFC 9110, 11.6.1; the distribution project's token protocol).

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::images::ImageError;

/// What `WWW-Authenticate` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token, to be had at this place with these parameters already in it.
    Bearer {
        /// URI of the token server with its query.
        uri: String,
    },
}

impl Challenge {
    /// Reads a header; `None` for what is neither.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let fields = parameters(rest);
        let field = |name: &str| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let realm = field("realm").filter(|realm| realm.starts_with("https://") || realm.starts_with("http://"))?;
        let mut uri = realm.to_owned();
        let mut sign = if realm.contains('?') { '&' } else { '?' };
        for name in ["service", "scope"] {
            if let Some(value) = field(name) {
                uri.push_str(&format!("{sign}{name}={}", encode(value)));
                sign = '&';
            }
        }
        Some(Self::Bearer { uri })
    }
}

/// `key="value"` pairs with commas between; a value may hold commas itself.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, behind) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((key.trim().to_owned(), value.to_owned()));
        rest = behind.trim_start_matches([',', ' ']);
    }
    found
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The credentials for a registry from a file as Docker's `config.json`: `user:password` in Base64.
pub(super) fn credentials(file: &Path, registry: &str) -> Result<Option<String>, ImageError> {
    let text = fs::read(file).map_err(ImageError::file("read", file))?;
    let document: Value = serde_json::from_slice(&text).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidData, error);
        ImageError::File { operation: "read credentials from", path: file.to_owned(), source }
    })?;
    let auth = document.get("auths").and_then(|auths| auths.get(registry)).and_then(|entry| entry.get("auth"));
    Ok(auth.and_then(Value::as_str).map(str::to_owned))
}

/// The token in a token server's answer.
pub(super) fn token(answer: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(answer).ok()?;
    let token = document.get("token").or_else(|| document.get("access_token"))?;
    token.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |uri: &str| Some(Challenge::Bearer { uri: uri.to_owned() });
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a.example/t\",service=\"reg\",scope=\"repository:a/b:pull,push\"",
                bearer("https://a.example/t?service=reg&scope=repository:a/b:pull,push"),
            ),
            ("bearer realm=\"http://a/t?x=1\", scope=\"a b\"", bearer("http://a/t?x=1&scope=a%20b")),
            ("Bearer realm=\"file:///etc/passwd\"", None),
            ("Bearer", None),
            ("Digest realm=\"x\"", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_registry() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, r#"{"auths":{"reg.example:5000":{"auth":"dTpw"}}}"#).unwrap();
        assert_eq!(credentials(&file, "reg.example:5000").unwrap().as_deref(), Some("dTpw"));
        assert_eq!(credentials(&file, "other.example").unwrap(), None);
        fs::write(&file, "{").unwrap();
        assert_eq!(credentials(&file, "x").unwrap_err().label(), "file");
        assert_eq!(token(br#"{"access_token":"t"}"#).as_deref(), Some("t"));
    }
}
