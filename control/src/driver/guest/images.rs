//! A guest's image: found by file or by name, checked, fetched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image::{self, ImageError};
use super::source::{ImageFile, ImageSource};
use crate::driver::{BoxError, DriverError, FetchProgress, InstanceSpec, Result};
use crate::model::{Technology, split_registry};

/// Where a technology's images come from.
#[derive(Debug)]
pub(in crate::driver) struct Images {
    /// The technology that is to run them.
    technology: Technology,
    /// Whether they must be ELF files.
    wants_elf: bool,
    /// What has images by name, if anything.
    pub source: Option<Arc<dyn ImageSource>>,
}

impl Images {
    /// By file alone, until there is a source.
    pub fn new(technology: Technology, wants_elf: bool) -> Self {
        Self { technology, wants_elf, source: None }
    }

    fn failed<E: Into<BoxError>>(
        &self,
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(E) -> DriverError {
        DriverError::failed(self.technology.label(), operation, object)
    }

    /// The image's file.
    fn find(&self, spec: &InstanceSpec) -> Result<ImageFile> {
        let InstanceSpec { image, resources, .. } = spec;
        if image.starts_with('/') {
            return Ok(ImageFile::at(image.into()));
        }
        let label = self.technology.label();
        let find = |images: &Arc<dyn ImageSource>| images.find(image).map_err(self.failed("find image", image));
        let missing = || DriverError::NoImage { technology: label, image: image.clone() };
        let found =
            self.source.as_ref().and_then(|images| find(images).transpose()).unwrap_or_else(|| Err(missing()))?;
        let ImageFile { technology, memory_mib, .. } = &found;
        if let Some(built) = technology.as_ref().filter(|built| *built != label) {
            return Err(self.failed("use image", image)(format!("it was built for {built}")));
        }
        if resources.memory_mib < *memory_mib {
            return Err(self.failed("use image", image)(format!("it needs {memory_mib} MiB of memory or more")));
        }
        Ok(found)
    }

    /// The image's file, and that it and the guest's other files could be used.
    pub fn check(&self, spec: &InstanceSpec) -> Result<ImageFile> {
        let found = self.find(spec)?;
        let others = spec.guest.files().map(|file| (file, PathBuf::from(file), false));
        for (name, file, wants_elf) in std::iter::once((&spec.image, found.path.clone(), self.wants_elf)).chain(others)
        {
            self.check_file(name, &file, wants_elf)?;
        }
        Ok(found)
    }

    fn check_file(&self, name: &str, file: &Path, wants_elf: bool) -> Result<()> {
        match image::check(file, wants_elf) {
            Ok(()) => Ok(()),
            Err(ImageError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(DriverError::NoImage { technology: self.technology.label(), image: name.to_owned() })
            }
            Err(error) => Err(self.failed("check image", name)(error)),
        }
    }

    /// Sees to it that the image is on this node.
    pub async fn fetch(&self, spec: &InstanceSpec, progress: FetchProgress<'_>) -> Result<()> {
        match (self.check(spec), &self.source) {
            // With the registry away, an image that is there is as good as ever.
            (Err(DriverError::NoImage { image, .. }), Some(images)) if split_registry(&image).0.is_some() => {
                let fetched = images.fetch(&image, progress).await;
                let technology = self.technology.label();
                fetched.map_err(|source| DriverError::NotFetched { technology, image, attempts: 1, source })?;
                self.check(spec).map(drop)
            }
            (found, _) => found.map(drop),
        }
    }

    /// Bytes of the image's file.
    pub fn bytes(&self, spec: &InstanceSpec) -> Result<Option<u64>> {
        let found = self.find(spec)?;
        let size = std::fs::metadata(&found.path).map(|found| Some(found.len()));
        size.map_err(self.failed("look at image", &spec.image))
    }
}
