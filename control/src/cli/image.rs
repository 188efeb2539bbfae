//! `selvedge image`: what is in this node's repository, in and out of it. Works on the store's directory, whether or
//! not the daemon runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::paint::{Paint, bytes, table};
use super::{CONFIG, WRONG};
use crate::config::{self, Config};
use crate::images::client::{Client, Meter, Settings, Transferred};
use crate::images::{Digest, Entry, ImageError, Reference, Store, Sweep, UNIKERNEL, UnikernelConfig};

/// Between two looks at a transfer on a terminal, and elsewhere.
const LOOKS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// What takes less says nothing of its progress.
const SHORT: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Put an image into this node's repository, or send one from there to a registry
    ///
    /// With --file, a unikernel's file becomes the image NAME of this node's repository. Without, the image NAME is
    /// sent to the registry that NAME begins with. What broke off goes on where it stood.
    #[command(after_help = "Examples:\n  selvedge image push uni/web:1 --file web.spt --vmm spt --memory-mib 16\n  \
                      selvedge image push registry.example:5000/uni/web:1\n  \
                      selvedge image push registry.example:5000/web:2 --from uni/web:1 --limit 20")]
    Push {
        /// Its name, with the registry that it goes to
        name: Reference,
        #[command(flatten)]
        unikernel: UnikernelArgs,
        /// Its name in this node's repository, where that is another
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        from: Option<Reference>,
        #[command(flatten)]
        transfer: TransferArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Fetch an image from a registry into this node's repository; what broke off goes on where it stood
    #[command(after_help = "Examples:\n  selvedge image pull registry.example:5000/uni/web:1\n  \
                      selvedge image pull 192.0.2.7:5000/uni/web:1 --plain-http --limit 20\n  \
                      selvedge image pull registry.example/web:1 --verify-key /etc/selvedge/cosign.pub")]
    Pull {
        /// Its name, with the registry; a digest may stand for the tag, as in NAME@sha256:...
        name: Reference,
        /// Take it only with a signature (cosign's form) of this key instead of images.verify_key's
        #[arg(long, value_name = "FILE")]
        verify_key: Option<PathBuf>,
        #[command(flatten)]
        transfer: TransferArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// List the images of this node's repository
    #[command(after_help = "Examples:\n  selvedge image list\n  selvedge image list --json | jq -r '.images[].name'")]
    List {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Remove what nobody refers to: overwritten images, their content, abandoned uploads
    ///
    /// Tagged images stay, unless --unused is given. What a service of the configuration refers to stays always, and
    /// so does what is younger than --grace, for it may be part of an image that is just being pushed.
    #[command(after_help = "Examples:\n  selvedge image gc --dry-run\n  selvedge image gc --unused --grace 10m")]
    Gc {
        /// Remove tagged images too, where no service refers to them
        #[arg(long)]
        unused: bool,
        /// Leave what is younger
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
        grace: Duration,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// The configuration file; without one, the defaults hold
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Directory of the repository instead of images.dir
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct UnikernelArgs {
    /// A unikernel's file
    #[arg(long, value_name = "FILE", requires = "vmm")]
    file: Option<PathBuf>,
    /// What it was built for: spt, hvt, qemu-microvm, qemu-pc, firecracker or xen
    #[arg(long, requires = "file")]
    vmm: Option<String>,
    /// Least memory in MiB that it runs with
    #[arg(long, value_name = "MIB", default_value_t = 16, requires = "file")]
    memory_mib: u64,
    /// Its command line, with {ip}, {prefix}, {mask} and {gw} to be filled in
    #[arg(long, value_name = "TEXT", requires = "file")]
    arguments: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct TransferArgs {
    /// Bound in Mbit/s instead of images.bandwidth_mbit
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Speak to the registry without TLS, as if it were in images.plain_http
    #[arg(long)]
    plain_http: bool,
}

/// A time as the configuration has it.
fn time(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| format!("{text:?} is no time; write it as in \"90s\" or \"1h\""))
}

/// One image as `list` shows it.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    digest: Digest,
    kind: &'static str,
    bytes: u64,
}

/// Why the command ends early: a sentence and an exit code.
struct Failure(u8, String);

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let code = if matches!(error, ImageError::Reference { .. } | ImageError::Digest { .. }) { WRONG } else { 1 };
        Self(code, crate::model::in_full(&error))
    }
}

/// Runs the command; exit code 0 done, 1 could not be done, 2 wrong usage or configuration.
pub(super) async fn run(command: ImageCommand) -> ExitCode {
    match carry_out(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            eprintln!("selvedge: {text}");
            ExitCode::from(code)
        }
    }
}

async fn carry_out(command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Push { name, unikernel, from, transfer, common } => {
            let place = Place::of(&common)?;
            if let Some(file) = &unikernel.file {
                return take_in(&place, &name, file, &unikernel, common.json);
            }
            let from = from.unwrap_or_else(|| name.local());
            let client = place.client(&transfer, &name);
            let meter = Arc::new(Meter::default());
            let work = client.push(&from, &name, &meter);
            let done = watched("push", &meter, work).await?;
            print(common.json, &done, || told("pushed", &done))
        }
        ImageCommand::Pull { name, verify_key, transfer, common } => {
            let mut place = Place::of(&common)?;
            place.settings.verify_key = verify_key.or(place.settings.verify_key);
            let client = place.client(&transfer, &name);
            let meter = Arc::new(Meter::default());
            let work = client.pull(&name, &meter);
            let done = watched("pull", &meter, work).await?;
            print(common.json, &done, || told("pulled", &done))
        }
        ImageCommand::List { common } => list(&Place::of(&common)?.store, common.json),
        ImageCommand::Gc { unused, grace, dry_run, common } => {
            // What services need is not guessed at.
            let config = config::load(&common.config).map_err(|e| Failure(WRONG, e.to_string()))?;
            let images = config.services.iter().map(|service| service.image.as_str());
            // A name that is none of a registry's refers to nothing here.
            let needed = images.filter_map(|image| image.parse().ok()).collect();
            let sweep = Sweep { needed, unused, grace, dry_run };
            let store = Store::open(common.store.as_deref().unwrap_or(&config.images.dir))?;
            let swept = store.collect(&sweep)?;
            print(common.json, &swept, || {
                let mut text: String = swept.images.iter().map(|image| format!("{image}\n")).collect();
                let verb = if dry_run { "would be removed" } else { "removed" };
                let (images, blobs, uploads) = (swept.images.len(), swept.blobs, swept.uploads);
                text.push_str(&format!("{verb}: images {images}, blobs {blobs}, abandoned uploads {uploads}, "));
                text.push_str(&format!("{}; {} stay", bytes(swept.bytes), bytes(swept.kept_bytes)));
                text
            })
        }
    }
}

/// The store and how registries are talked to.
struct Place {
    store: Arc<Store>,
    settings: Settings,
}

impl Place {
    fn of(common: &CommonArgs) -> Result<Self, Failure> {
        let known = if common.config.exists() || common.config != Path::new(CONFIG) {
            config::load(&common.config)
        } else {
            config::parse("", CONFIG)
        };
        let Config { images, .. } = known.map_err(|e| Failure(WRONG, e.to_string()))?;
        let store = Arc::new(Store::open(common.store.as_deref().unwrap_or(&images.dir))?);
        Ok(Self { store, settings: crate::daemon::registry_settings(&images) })
    }

    fn client(self, transfer: &TransferArgs, name: &Reference) -> Client {
        let mut settings = self.settings;
        if let Some(mbit) = transfer.limit {
            settings.bytes_per_second = Some(mbit.saturating_mul(125_000));
        }
        if transfer.plain_http {
            settings.plain_http.extend(name.registry.clone());
        }
        Client::new(self.store, settings)
    }
}

fn take_in(place: &Place, name: &Reference, file: &Path, unikernel: &UnikernelArgs, json: bool) -> Result<(), Failure> {
    if name.registry.is_some() {
        let text = format!("{name}: with --file the name has no registry; push it from this node's repository after");
        return Err(Failure(WRONG, text));
    }
    let config = UnikernelConfig {
        vmm: unikernel.vmm.clone().unwrap_or_default(),
        memory_mib: unikernel.memory_mib,
        arguments: unikernel.arguments.clone(),
    };
    let digest = place.store.put_unikernel(name, file, &config)?;
    let document = serde_json::json!({ "image": name.to_string(), "digest": digest });
    print(json, &document, || format!("{name} {digest}"))
}

fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for entry in store.entries()? {
        rows.push(Row {
            bytes: store.size(&entry)?,
            kind: kind(&entry),
            digest: entry.manifest.digest.clone(),
            name: entry.name.to_string(),
        });
    }
    let document = serde_json::json!({ "dir": store.dir(), "images": rows });
    print(json, &document, || {
        if rows.is_empty() {
            return format!("{}: no images", store.dir().display());
        }
        let cells = |row: &Row| {
            let cells = [row.name.clone(), row.kind.to_owned(), bytes(row.bytes), row.digest.short().to_owned()];
            cells.map(|cell| (cell, None)).to_vec()
        };
        let cells: Vec<_> = rows.iter().map(cells).collect();
        table(&["NAME", "KIND", "SIZE", "DIGEST"], &cells, Paint::detect())
    })
}

fn kind(entry: &Entry) -> &'static str {
    match entry.manifest.artifact_type.as_deref() {
        Some(UNIKERNEL) => "unikernel",
        Some(_) => "artifact",
        None if entry.manifest.is_index() => "index",
        None => "container",
    }
}

fn print(json: bool, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string_pretty(document).map_err(|e| Failure(1, format!("image: {e}")))?
    } else {
        text()
    };
    println!("{}", text.trim_end());
    Ok(())
}

fn told(verb: &str, done: &Transferred) -> String {
    let Transferred { image, digest, progress } = done;
    let mut text = format!("{verb} {image} {digest}: {} moved", bytes(progress.moved));
    if progress.present > 0 {
        text.push_str(&format!(", {} were there", bytes(progress.present)));
    }
    if progress.interruptions > 0 {
        text.push_str(&format!(", gone on after {} interruptions", progress.interruptions));
    }
    text
}

/// Runs a transfer and says how far it is on standard error.
async fn watched<T>(
    verb: &str,
    meter: &Meter,
    work: impl Future<Output = Result<T, ImageError>>,
) -> Result<T, Failure> {
    let terminal = std::io::stderr().is_terminal();
    let begun = Instant::now();
    let mut looks = tokio::time::interval(if terminal { LOOKS.0 } else { LOOKS.1 });
    looks.reset();
    tokio::pin!(work);
    let mut shown = false;
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = looks.tick() => {
                if begun.elapsed() < SHORT {
                    continue;
                }
                let progress = meter.progress();
                let have = progress.moved + progress.present;
                let line = format!(
                    "{verb}: {} of {}, {}/s",
                    bytes(have.min(progress.total)),
                    bytes(progress.total),
                    bytes(progress.moved * 1000 / u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)),
                );
                // Nobody has to read it.
                let mut err = std::io::stderr();
                let _ = if terminal { write!(err, "\r{line}\x1b[K") } else { writeln!(err, "{line}") };
                let _ = err.flush();
                shown = true;
            }
        }
    };
    if terminal && shown {
        eprint!("\r\x1b[K");
    }
    Ok(done?)
}
