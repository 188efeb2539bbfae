//! The image repository as the configuration has it.

use std::sync::Arc;

use tracing::info;

use super::StartError;
use crate::config::Images;
use crate::images::Store;
use crate::images::client::Settings;
use crate::images::server::{Terms, serve};
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

/// Serves the repository where that is configured.
pub(super) async fn serve_images(images: &Images, mut shutdown: Stop) -> Result<(), StartError> {
    let Some(address) = images.listen else { return Ok(()) };
    let store = Arc::new(Store::open(&images.dir)?);
    let terms = Terms { push_from: images.push_from.clone(), largest_blob: images.largest_blob_mib << 20 };
    serve(address, store, terms, async move { shutdown.ordered().await }).await?;
    info!(%address, dir = %images.dir.display(), "image repository");
    Ok(())
}
