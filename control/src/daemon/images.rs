//! The image repository as the configuration has it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::info;

use super::StartError;
use crate::config::Images;
use crate::driver::{BoxError, FetchProgress, ImageFile, ImageSource};
use crate::images::client::{Client, Meter, Settings};
use crate::images::server::{Terms, serve};
use crate::images::{ImageError, Reference, Store};
use crate::stop::Stop;

/// How registries are talked to.
#[must_use]
pub fn registry_settings(images: &Images) -> Settings {
    Settings {
        plain_http: images.plain_http.clone(),
        auth_file: images.auth_file.clone(),
        parallel: usize::try_from(images.parallel).unwrap_or(1),
        // 1 Mbit/s is 125,000 bytes per second.
        bytes_per_second: images.bandwidth_mbit.map(|mbit| mbit * 125_000),
        verify_key: images.verify_key.clone(),
    }
}

/// Between two reports of a transfer's progress.
const REPORTS: Duration = Duration::from_secs(1);

/// This node's repository, as what starts unikernels sees it.
#[derive(Debug)]
pub(super) struct Unikernels {
    store: Arc<Store>,
    client: Client,
}

impl Unikernels {
    pub(super) fn open(images: &Images) -> Result<Self, ImageError> {
        let store = Arc::new(Store::open(&images.dir)?);
        Ok(Self { client: Client::new(Arc::clone(&store), registry_settings(images)), store })
    }

    async fn pull(&self, image: &str, tell: FetchProgress<'_>) -> Result<(), BoxError> {
        let (name, meter) = (image.parse::<Reference>()?, Meter::default());
        let mut reports = tokio::time::interval(REPORTS);
        reports.reset();
        let mut pulled = std::pin::pin!(self.client.pull(&name, &meter));
        loop {
            tokio::select! {
                done = &mut pulled => {
                    let done = done?;
                    info!(image, digest = %done.digest, "image pulled");
                    return Ok(());
                }
                _ = reports.tick() => {
                    let progress = meter.progress();
                    let mb = |bytes: u64| bytes as f64 / 1e6;
                    let have = progress.moved + progress.present;
                    tell(format!("pulling the image: {:.1} of {:.1} MB", mb(have.min(progress.total)), mb(progress.total)));
                }
            }
        }
    }
}

impl ImageSource for Unikernels {
    fn find(&self, image: &str) -> Result<Option<ImageFile>, BoxError> {
        match self.store.unikernel(&image.parse::<Reference>()?.local()) {
            Ok(found) => Ok(Some(ImageFile {
                path: found.image,
                technology: Some(found.config.vmm),
                memory_mib: found.config.memory_mib,
                arguments: found.config.arguments,
            })),
            Err(ImageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn fetch<'a>(&'a self, image: &'a str, tell: FetchProgress<'a>) -> BoxFuture<'a, Result<(), BoxError>> {
        self.pull(image, tell).boxed()
    }
}

/// Serves the repository where that is configured.
pub(super) async fn serve_images(images: &Images, mut shutdown: Stop) -> Result<(), StartError> {
    let Some(address) = images.listen else { return Ok(()) };
    let store = Arc::new(Store::open(&images.dir)?);
    let terms = Terms { push_from: images.push_from.clone(), largest_blob: images.largest_blob_mib << 20 };
    serve(address, store, terms, async move { shutdown.ordered().await }).await?;
    info!(%address, dir = %images.dir.display(), "image repository");
    Ok(())
}
