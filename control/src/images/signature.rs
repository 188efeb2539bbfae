//! Signatures of images, as cosign makes them: beside an image lies another one under the tag `sha256-<hex>.sig`, whose
//! layers are documents that name the image's digest, each with a signature in an annotation ("simple signing").

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

use super::layout::Store;
use super::reference::{Reference, Target};
use super::{Digest, ImageError};

/// Annotation with the signature in Base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Most bytes of a document that is signed, and of a signature's image in all.
pub(super) const LARGEST: u64 = 1 << 20;

/// What the structure of a public key (RFC 5280, SubjectPublicKeyInfo) begins with: the algorithm, then the key itself
/// to the end. For P-256 (RFC 5480) an uncompressed point, for Ed25519 (RFC 8410) 32 bytes.
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const EDWARDS: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// A public key that images have to be signed with.
#[derive(Debug, Clone)]
pub struct VerifyKey {
    path: PathBuf,
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
}

impl VerifyKey {
    /// Reads a PEM file with an ECDSA P-256 or Ed25519 public key (`cosign.pub`, `openssl pkey -pubout`).
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let text = fs::read_to_string(path).map_err(ImageError::file("read key", path))?;
        let wrong = || {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, "not a PEM file with one P-256 or Ed25519 public key");
            ImageError::file("read key", path)(source)
        };
        let body = text.split_once("-----BEGIN PUBLIC KEY-----").and_then(|(_, rest)| rest.split_once("-----END"));
        let body: String = body.ok_or_else(wrong)?.0.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| wrong())?;
        let path = path.to_owned();
        match (der.strip_prefix(P256), der.strip_prefix(EDWARDS)) {
            (Some(key), _) if key.len() == 65 => {
                Ok(Self { path, algorithm: &ECDSA_P256_SHA256_ASN1, key: key.to_vec() })
            }
            (_, Some(key)) if key.len() == 32 => Ok(Self { path, algorithm: &ED25519, key: key.to_vec() }),
            _ => Err(wrong()),
        }
    }

    fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let key = UnparsedPublicKey::new(self.algorithm, &self.key);
        STANDARD.decode(signature.trim()).is_ok_and(|signature| key.verify(message, &signature).is_ok())
    }

    /// That an image is not signed, with what was found.
    pub(super) fn unsigned(&self, name: &Reference, why: String) -> ImageError {
        ImageError::Unsigned { what: name.to_string(), key: self.path.clone(), why }
    }
}

/// Where the signatures of the image with that digest are.
pub(super) fn place(name: &Reference, digest: &Digest) -> Reference {
    Reference { target: Target::Tag(format!("sha256-{}.sig", digest.hex())), ..name.clone() }
}

impl Store {
    /// Checks that one of the signatures that the store has for `digest` is of `key`.
    pub(super) fn check_signature(&self, name: &Reference, digest: &Digest, key: &VerifyKey) -> Result<(), ImageError> {
        let place = place(name, digest);
        let manifest = self.manifest(&place.repository, &place.target)?.manifest;
        let mut why = "its signature's image has no signature in it".to_owned();
        for layer in &manifest.layers {
            let Some(signature) = layer.annotations.get(SIGNATURE) else { continue };
            let (file, _) = self.blob(&layer.digest)?;
            let mut document = Vec::new();
            let read = file.take(LARGEST).read_to_end(&mut document);
            read.map_err(ImageError::file("read", &self.blob_path(&layer.digest)))?;
            if !key.verifies(&document, signature) {
                why = "its signature is of another key, or of another document".to_owned();
            } else if signed_digest(&document).as_deref() != Some(digest.as_str()) {
                why = "what was signed is another image".to_owned();
            } else {
                return Ok(());
            }
        }
        Err(key.unsigned(name, why))
    }
}

/// The digest that a signed document names.
fn signed_digest(document: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    document.pointer("/critical/image/docker-manifest-digest")?.as_str().map(str::to_owned)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::images::Descriptor;

    /// A pair of keys of the test's own.
    pub enum Pair {
        P256(EcdsaKeyPair),
        Edwards(Ed25519KeyPair),
    }

    impl Pair {
        pub fn p256() -> Self {
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pair.as_ref(), &random);
            Self::P256(pair.unwrap())
        }

        pub fn edwards() -> Self {
            let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            Self::Edwards(Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap())
        }

        fn sign(&self, message: &[u8]) -> String {
            match self {
                Self::P256(pair) => STANDARD.encode(pair.sign(&SystemRandom::new(), message).unwrap()),
                Self::Edwards(pair) => STANDARD.encode(pair.sign(message)),
            }
        }

        /// The public half as openssl writes it.
        pub fn public(&self, file: &Path) -> VerifyKey {
            let (prefix, key) = match self {
                Self::P256(pair) => (P256, pair.public_key().as_ref()),
                Self::Edwards(pair) => (EDWARDS, pair.public_key().as_ref()),
            };
            let body = STANDARD.encode([prefix, key].concat());
            fs::write(file, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")).unwrap();
            VerifyKey::read(file).unwrap()
        }

        /// Signs `signed` and puts that beside the image of `digest`.
        pub fn put(&self, store: &Store, name: &Reference, digest: &Digest, signed: &Digest) {
            let document = serde_json::json!({ "critical": {
                "identity": { "docker-reference": name.repository.as_str() },
                "image": { "docker-manifest-digest": signed },
                "type": "cosign container image signature",
            }, "optional": null })
            .to_string();
            store.put_blob(document.as_bytes()).unwrap();
            store.put_blob(b"{}").unwrap();
            let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
            let mut layer = Descriptor::of(kind, document.as_bytes());
            layer.annotations.insert(SIGNATURE.to_owned(), self.sign(document.as_bytes()));
            let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
            let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
            let place = place(name, digest);
            store.put_manifest(&place.repository, &place.target, manifest.to_string().as_bytes()).unwrap();
        }
    }

    #[test]
    fn only_the_key_and_the_image_that_were_signed_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("images")).unwrap();
        let name: Reference = "web:1".parse().unwrap();
        let (digest, other) = (Digest::of(b"image"), Digest::of(b"other"));
        for (own, foreign) in
            [(Pair::p256(), Pair::p256()), (Pair::edwards(), Pair::edwards()), (Pair::p256(), Pair::edwards())]
        {
            let key = own.public(&dir.path().join("key"));
            let check = |signed: &Digest| store.check_signature(&name, signed, &key).map_err(|e| e.label());
            own.put(&store, &name, &digest, &digest);
            assert_eq!(check(&digest), Ok(()));
            foreign.put(&store, &name, &digest, &digest);
            assert_eq!(check(&digest), Err("unsigned"));
            own.put(&store, &name, &digest, &other);
            assert_eq!(check(&digest), Err("unsigned"));
            assert_eq!(check(&other), Err("not_found"));
        }
        let wrong = dir.path().join("wrong");
        for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----BEGIN PUBLIC KEY-----"] {
            fs::write(&wrong, text).unwrap();
            assert_eq!(VerifyKey::read(&wrong).unwrap_err().label(), "file", "{text}");
        }
    }
}
