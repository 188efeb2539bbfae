//! Unikernels as OCI artifacts: a configuration that says how to run it, and one layer, the image file.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{Store, unique};
use super::manifest::{Descriptor, LARGEST_MANIFEST, Manifest, OCI_MANIFEST};
use super::reference::Reference;
use super::{Digest, ImageError};

/// Artifact type of a unikernel.
pub const UNIKERNEL: &str = "application/vnd.selvedge.unikernel.v1";
/// Media type of its configuration.
pub const UNIKERNEL_CONFIG: &str = "application/vnd.selvedge.unikernel.config.v1+json";
/// Media type of its image.
pub const UNIKERNEL_IMAGE: &str = "application/vnd.selvedge.unikernel.image.v1";
/// Annotation with a file's name, for people.
const TITLE: &str = "org.opencontainers.image.title";

/// How a unikernel is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnikernelConfig {
    /// What it was built for: `spt`, `hvt`, `qemu-microvm`, `qemu-pc`, `firecracker` or `xen`.
    pub vmm: String,
    /// Least memory in MiB that it runs with.
    pub memory_mib: u64,
    /// Its command line with `{ip}`, `{prefix}`, `{mask}` and `{gw}` to be filled in; `None` for the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
}

/// A unikernel of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unikernel {
    /// How it is run.
    pub config: UnikernelConfig,
    /// The image file. It does not change: its name is its digest.
    pub image: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Store {
    /// Takes a unikernel's file into the store under `name`. Gives the manifest's digest.
    ///
    /// # Errors
    /// [`ImageError`]; a file that could not be taken whole leaves nothing.
    pub fn put_unikernel(&self, name: &Reference, file: &Path, config: &UnikernelConfig) -> Result<Digest, ImageError> {
        let mut source = File::open(file).map_err(ImageError::file("open", file))?;
        let (digest, size) = self.put_file(&mut source, file)?;
        let mut layer = Descriptor::new(UNIKERNEL_IMAGE, digest, size);
        let title = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        layer.annotations.insert(TITLE.to_owned(), title);
        let wrong = |e: serde_json::Error| ImageError::Manifest { what: name.to_string(), why: e.to_string() };
        let text = serde_json::to_vec(config).map_err(wrong)?;
        self.put_blob(&text)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: Some(UNIKERNEL.to_owned()),
            config: Some(Descriptor::of(UNIKERNEL_CONFIG, &text)),
            layers: vec![layer],
            manifests: Vec::new(),
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(wrong)?;
        Ok(self.put_manifest(&name.repository, &name.target, &bytes)?.descriptor.digest)
    }

    /// The unikernel of that name.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::NotUnikernel`] also where its file is not as long as it should be.
    pub fn unikernel(&self, name: &Reference) -> Result<Unikernel, ImageError> {
        let stored = self.manifest(&name.repository, &name.target)?;
        let not = |why: String| ImageError::NotUnikernel { what: name.to_string(), why };
        let manifest = stored.manifest;
        if manifest.artifact() != Some(UNIKERNEL) {
            return Err(not(format!("its artifact type is {}", manifest.artifact().unwrap_or("not said"))));
        }
        let (Some(config), [layer]) = (&manifest.config, manifest.layers.as_slice()) else {
            return Err(not("it has not one configuration and one layer".to_owned()));
        };
        let (file, _) = self.blob(&config.digest)?;
        let mut text = Vec::new();
        let read = file.take(LARGEST_MANIFEST).read_to_end(&mut text);
        read.map_err(ImageError::file("read", &self.blob_path(&config.digest)))?;
        let config = serde_json::from_slice(&text).map_err(|e| not(format!("its configuration: {e}")))?;
        let (_, size) = self.blob(&layer.digest)?;
        if size != layer.size {
            return Err(not(format!("its file has {size} bytes, not {}", layer.size)));
        }
        Ok(Unikernel { config, image: self.blob_path(&layer.digest), digest: layer.digest.clone(), size })
    }

    fn put_file(&self, source: &mut File, path: &Path) -> Result<(Digest, u64), ImageError> {
        let mut hasher = super::digest::Hasher::default();
        let mut ingest = self.ingest(&format!("put-{}", unique()?))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    ingest.discard();
                    return Err(ImageError::file("read", path)(error));
                }
            };
            hasher.update(&buffer[..read]);
            ingest.write(&buffer[..read])?;
        }
        let digest = hasher.finish();
        let size = self.commit(ingest, &digest)?;
        Ok((digest, size))
    }
}
