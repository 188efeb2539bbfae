//! Names of images: `[registry/]repository[:tag|@digest]`, by the grammar of the OCI distribution specification.

use std::fmt;
use std::str::FromStr;

use super::{Digest, ImageError};
use crate::model::split_registry;

/// Longest repository name, as most registries have it.
const LONGEST_REPOSITORY: usize = 255;
/// Longest tag of the specification.
const LONGEST_TAG: usize = 128;

/// A repository's name: lower-case components that slashes part. Cannot leave a directory: no component is empty or
/// begins with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

impl Repository {
    /// # Errors
    /// [`ImageError::Reference`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text.len() > LONGEST_REPOSITORY {
            return Err(wrong(text, "the repository's name is longer than 255 characters"));
        }
        if !text.split('/').all(is_component) {
            let why = "a repository's name has parts of a-z and 0-9 with single '.', '_' or '-' between, parted by '/'";
            return Err(wrong(text, why));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    let mut separators = separators;
    alphanumeric(*first)
        && alphanumeric(*last)
        && separators.all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// What of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// What bears this tag now.
    Tag(String),
    /// This very content.
    Digest(Digest),
}

impl Target {
    /// A tag or a digest.
    ///
    /// # Errors
    /// [`ImageError::Reference`] or [`ImageError::Digest`].
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text.contains(':') {
            return Digest::parse(text).map(Self::Digest);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if begins && text.len() <= LONGEST_TAG && text.bytes().all(allowed) {
            Ok(Self::Tag(text.to_owned()))
        } else {
            Err(wrong(text, "a tag has at most 128 of A-Z, a-z, 0-9, '_', '.' and '-', and begins with none of '.-'"))
        }
    }

    /// As a path of the protocol has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

/// The name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `host[:port]` of the registry; `None` for this node's own repository.
    pub registry: Option<String>,
    /// The repository.
    pub repository: Repository,
    /// Tag or digest; the tag `latest` where the name has neither.
    pub target: Target,
}

impl Reference {
    /// The same image without its registry: its name in this node's repository.
    #[must_use]
    pub fn local(&self) -> Self {
        Self { registry: None, ..self.clone() }
    }

    /// The name under which the index of the store has it.
    pub(super) fn index_name(&self) -> String {
        index_name(&self.repository, &self.target)
    }
}

/// `repository:tag` or `repository@digest`.
pub(super) fn index_name(repository: &Repository, target: &Target) -> String {
    match target {
        Target::Tag(tag) => format!("{repository}:{tag}"),
        Target::Digest(digest) => format!("{repository}@{digest}"),
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let (registry, rest) = split_registry(text);
        let registry = registry.map(|registry| sound_registry(registry, text)).transpose()?;
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (rest, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) => (name, Target::parse(tag)?),
            None => (name, Target::Tag("latest".to_owned())),
        };
        // With both, the digest says more.
        let target = digest.map_or(tag, Target::Digest);
        Ok(Self { registry, repository: Repository::parse(name)?, target })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.index_name())
    }
}

fn sound_registry(first: &str, whole: &str) -> Result<String, ImageError> {
    let (host, port) = match first.rsplit_once(':') {
        // An IPv6 address in brackets without a port ends in one.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (first, None),
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let sound = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let inside = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
        }),
    };
    if !sound || port.is_some_and(|p| p.parse::<u16>().is_err()) {
        return Err(wrong(whole, "the registry is no host name or address with an optional port"));
    }
    Ok(first.to_owned())
}

fn wrong(text: &str, why: &'static str) -> ImageError {
    ImageError::Reference { text: text.to_owned(), why }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn names_are_read_as_engines_read_them() {
        let digest = Digest::of(b"x");
        for (text, registry, repository, target) in [
            ("nginx", None, "nginx", "latest"),
            ("library/nginx:1.28", None, "library/nginx", "1.28"),
            ("localhost/web", Some("localhost"), "web", "latest"),
            ("127.0.0.1:5000/uni/web:1", Some("127.0.0.1:5000"), "uni/web", "1"),
            ("[::1]:5000/web:1", Some("[::1]:5000"), "web", "1"),
            ("reg.example/a/b__c.d--e:V_1", Some("reg.example"), "a/b__c.d--e", "V_1"),
            (&format!("reg.example/web:1@{digest}"), Some("reg.example"), "web", digest.as_str()),
        ] {
            let read: Reference = text.parse().unwrap();
            assert_eq!(read.registry.as_deref(), registry, "{text}");
            assert_eq!((read.repository.as_str(), read.target.as_str()), (repository, target), "{text}");
            assert_eq!(read.to_string().parse::<Reference>().unwrap(), read, "{text}");
        }
    }

    #[test]
    fn what_could_leave_its_place_is_refused() {
        for text in [
            "",
            "/etc/passwd",
            "a/../b",
            "../a",
            "a//b",
            "a/.b",
            "A",
            "a:",
            "a:.x",
            "a:x/y",
            "a b",
            "a%2e",
            "web@sha256:00",
            "reg.example:99999/web",
            "[::z]:1/web",
            &"a/".repeat(200),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
