//! An image that the engine lacks, from the registry that its name begins with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::engine::{Engine, LABEL, status};
use crate::driver::{BoxError, DriverError, FetchProgress, Result};

/// Attempts before the start fails; the service's own back-off takes over then.
const ATTEMPTS: u32 = 4;
/// Wait before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest silence of the engine while it pulls.
const STALL: Duration = Duration::from_secs(120);
/// Between two reports of progress.
const REPORTS: Duration = Duration::from_secs(1);

/// Pulls `image`; what came of a broken attempt is the engine's to keep.
pub(super) async fn pull(engine: &Engine, image: &str, tell: FetchProgress<'_>) -> Result<()> {
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        tracing::info!(image, attempt, "pulling image");
        let source = match pull_once(engine, image, tell).await? {
            Ok(()) => {
                tracing::info!(image, "image pulled");
                return Ok(());
            }
            Err(source) => source,
        };
        tracing::warn!(image, attempt, error = %source, "image not pulled");
        if attempt == ATTEMPTS {
            let image = image.to_owned();
            return Err(DriverError::NotFetched { technology: LABEL, image, attempts: ATTEMPTS, source });
        }
        tell(format!("attempt {attempt} of {ATTEMPTS} failed: {source}"));
        tokio::time::sleep(pause).await;
        (attempt, pause) = (attempt + 1, pause * 2);
    }
}

/// One attempt: the outer error is the engine's absence, the inner one may pass.
async fn pull_once(engine: &Engine, image: &str, tell: FetchProgress<'_>) -> Result<std::result::Result<(), BoxError>> {
    // Without a tag or digest the engine would take all tags there are.
    let last = image.rsplit('/').next().unwrap_or(image);
    let tag = if last.contains([':', '@']) { "" } else { "latest" };
    let options = CreateImageOptionsBuilder::new().from_image(image).tag(tag).build();
    let client = engine.client().await?;
    let mut messages = client.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    let mut told = Instant::now();
    loop {
        match timeout(STALL, messages.next()).await {
            Ok(None) => return Ok(Ok(())),
            Ok(Some(Ok(message))) => {
                layers.note(&message);
                if told.elapsed() >= REPORTS {
                    told = Instant::now();
                    tell(layers.text());
                }
            }
            // The engine answers, but has not got it.
            Ok(Some(Err(error))) if status(&error).is_some() || is_of_pull(&error) => return Ok(Err(error.into())),
            Ok(Some(Err(error))) => return Err(engine.failed("pull image", image, error)),
            Err(_) => return Ok(Err(format!("the engine said nothing for {STALL:?}").into())),
        }
    }
}

/// A failure that came as a message of the stream, which has no status, or an engine that itself waits for the registry.
const fn is_of_pull(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error::{DockerStreamError, RequestTimeoutError};
    matches!(error, DockerStreamError { .. } | RequestTimeoutError)
}

/// What has come of each layer, and how much it is.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, (i64, i64)>);

impl Layers {
    fn note(&mut self, message: &CreateImageInfo) {
        let detail = message.progress_detail.as_ref();
        if let (Some(id), Some(current), Some(total)) =
            (&message.id, detail.and_then(|d| d.current), detail.and_then(|d| d.total))
        {
            let layer = self.0.entry(id.clone()).or_default();
            // Unpacking counts from zero again.
            *layer = (layer.0.max(current), total);
        }
    }

    fn text(&self) -> String {
        let (current, total) = self.0.values().fold((0, 0), |(c, t), layer| (c + layer.0, t + layer.1));
        let mb = |bytes: i64| format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10);
        format!("pulling the image: {} of {} MB", mb(current), mb(total))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn progress_sums_the_layers() {
        let message = |id: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        for (id, current) in [("a", 100_000), ("b", 2_000_000), ("a", 300_000), ("b", 1000)] {
            layers.note(&message(id, current, 5_000_000));
        }
        layers.note(&CreateImageInfo::default());
        assert_eq!(layers.text(), "pulling the image: 2.3 of 10.0 MB");
    }
}
