//! Manifests and indexes, as OCI and Docker write them: what they refer to, and the little else that is needed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, ImageError};

/// Largest manifest that is taken (the specification's own bound).
pub const LARGEST_MANIFEST: u64 = 4 << 20;

/// An image of OCI's.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of OCI's: the same image for several platforms, or referrers.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image of Docker's.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A list of Docker's.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What is taken from registries.
pub const KINDS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// One reference to content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Kind of an artifact that is no container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Whatever else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Elsewhere that it can be had; such layers are not kept in registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// Whether it is a list of manifests.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [OCI_INDEX, DOCKER_LIST].contains(&self.media_type.as_str())
    }

    /// A descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor of content that is known by digest and size.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (annotations, urls) = (BTreeMap::new(), Vec::new());
        Self { media_type: media_type.to_owned(), digest, size, artifact_type: None, annotations, urls }
    }
}

/// A manifest or an index: the union of what the four kinds hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Which kind it is; old OCI ones do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// An image's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// An image's layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    /// An index's manifests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
    /// What this says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Whatever else is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads one; `what` is how an error names it.
    ///
    /// # Errors
    /// [`ImageError::Manifest`], [`ImageError::TooLarge`].
    pub fn read(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return Err(ImageError::TooLarge { what: what.to_owned(), most: LARGEST_MANIFEST });
        }
        let wrong = |why: String| ImageError::Manifest { what: what.to_owned(), why };
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        if manifest.schema_version != 2 {
            return Err(wrong(format!("schemaVersion {}, not 2", manifest.schema_version)));
        }
        let is_index = manifest.media_type.as_deref().is_some_and(|t| [OCI_INDEX, DOCKER_LIST].contains(&t));
        if !is_index && manifest.config.is_none() && manifest.manifests.is_empty() {
            return Err(wrong("it has neither config nor manifests".to_owned()));
        }
        Ok(manifest)
    }

    /// Which kind it is, also where it does not say.
    #[must_use]
    pub fn kind(&self) -> &str {
        let of_shape = if self.config.is_some() { OCI_MANIFEST } else { OCI_INDEX };
        self.media_type.as_deref().unwrap_or(of_shape)
    }

    /// Kind of artifact: said by itself or by its configuration.
    #[must_use]
    pub fn artifact(&self) -> Option<&str> {
        self.artifact_type.as_deref().or_else(|| self.config.as_ref().map(|c| c.media_type.as_str()))
    }

    /// Blobs that belong to it and have to be there: configuration and layers that are kept in registries.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(self.layers.iter().filter(|layer| layer.urls.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn kinds_are_told_by_word_and_by_shape() {
        let digest = Digest::of(b"x");
        let config = format!(r#"{{"mediaType":"c","digest":"{digest}","size":1}}"#);
        let read = |text: &str| Manifest::read(text.as_bytes(), "test");
        let image = read(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{config}]}}"#)).unwrap();
        assert_eq!((image.kind(), image.artifact(), image.blobs().count()), (OCI_MANIFEST, Some("c"), 2));
        let index = read(&format!(r#"{{"schemaVersion":2,"manifests":[{config}]}}"#)).unwrap();
        assert_eq!((index.kind(), index.blobs().count()), (OCI_INDEX, 0));
        let docker = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{config},"layers":[]}}"#);
        assert_eq!(read(&docker).unwrap().kind(), DOCKER_MANIFEST);
        for wrong in ["", "{}", r#"{"schemaVersion":1,"config":{}}"#, r#"{"schemaVersion":2}"#, "[]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let foreign = format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{{"digest":"{digest}","size":1,"urls":["http://x"]}}]}}"#
        );
        assert_eq!(read(&foreign).unwrap().blobs().count(), 1);
    }
}
