//! Image repositories: ours in the test's own process, and Debian's registry as another one.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use control::images::client::{Client, Settings};
use control::images::server::{Terms, serve};
use control::images::{Descriptor, Digest, Reference, Store, UnikernelConfig};
use tokio::sync::oneshot;

use super::error::{LabError, Result};
use super::image;
use super::process::wait_for;

/// A store that is served, until it is dropped or stopped.
#[derive(Debug)]
pub struct Repository {
    /// What it holds.
    pub store: Arc<Store>,
    /// Where it is served.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    dir: tempfile::TempDir,
}

#[allow(clippy::unwrap_used, reason = "what tests share; a failure is the test's")]
impl Repository {
    /// An empty one on a free port of loopback, in the caller's runtime.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("selvedge-images-").tempdir().unwrap();
        Self::at(dir, "127.0.0.1:0".parse().unwrap()).await
    }

    /// One of what is below `dir`.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub async fn at(dir: tempfile::TempDir, address: SocketAddr) -> Self {
        let store = Arc::new(Store::open(&dir.path().join("images")).unwrap());
        let terms = Terms { push_from: vec!["127.0.0.0/8".parse().unwrap()], largest_blob: 1 << 30 };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let address = serve(address, Arc::clone(&store), terms, shutdown).await.unwrap();
        Self { store, address, stop, dir }
    }

    /// Ends serving and begins again on the same address with what is on the disk.
    ///
    /// # Panics
    /// Where it does not come back.
    pub async fn restart(self) -> Self {
        drop(self.stop);
        while tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        Self::at(self.dir, self.address).await
    }

    /// A client that works on this store.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.store), Settings { parallel: 3, ..Settings::default() })
    }

    /// Puts in an image of four layers that share no byte, 32 MiB in all. Gives its digest.
    ///
    /// # Panics
    /// Where it cannot be put in.
    #[must_use]
    pub fn put_layers(&self, name: &str) -> Digest {
        let name: Reference = name.parse().unwrap();
        let all = image::content(32 << 20);
        let layers = all.chunks(8 << 20).map(|layer| {
            self.store.put_blob(layer).unwrap();
            Descriptor::of("application/vnd.oci.image.layer.v1.tar", layer)
        });
        let layers: Vec<Descriptor> = layers.collect();
        self.store.put_blob(b"{}").unwrap();
        let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        self.store.put_manifest(&name.repository, &name.target, &bytes).unwrap().descriptor.digest
    }

    /// Puts in a unikernel whose file holds `content`. Gives its digest.
    ///
    /// # Panics
    /// Where it cannot be put in.
    pub fn put_unikernel(&self, name: &str, content: &[u8]) -> Digest {
        let file = self.dir.path().join("web.spt");
        fs::write(&file, content).unwrap();
        let config = UnikernelConfig { vmm: "spt".to_owned(), memory_mib: 16, arguments: None };
        self.store.put_unikernel(&name.parse().unwrap(), &file, &config).unwrap()
    }

    /// Files that are being written or were given up.
    ///
    /// # Panics
    /// Where the directory cannot be read.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        fs::read_dir(self.store.dir().join("ingest")).unwrap().count()
    }
}

/// Debian's registry on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct DebianRegistry {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl DebianRegistry {
    /// `None` where it is not installed; that `test` is skipped has been said then.
    ///
    /// # Errors
    /// [`LabError`] where it does not come up.
    pub fn start(test: &str) -> Result<Option<Self>> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            println!("SKIPPED (no docker-registry): {test}");
            return Ok(None);
        }
        let system = |operation| LabError::system(operation, "docker-registry");
        let dir =
            tempfile::Builder::new().prefix("selvedge-registry-").tempdir().map_err(system("make a place for"))?;
        // A port that is free now; nobody takes it at random between two calls.
        let listener = TcpListener::bind("127.0.0.1:0").map_err(system("find a port for"))?;
        let address = listener.local_addr().map_err(system("find a port for"))?;
        drop(listener);
        let data = dir.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            data.display()
        );
        let (file, log) = (dir.path().join("config.yml"), dir.path().join("log"));
        fs::write(&file, config).map_err(system("configure"))?;
        let (out, err) = (
            File::create(&log).map_err(system("log"))?,
            File::options().append(true).open(&log).map_err(system("log"))?,
        );
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(system("start"))?;
        let registry = Self { child, address, _dir: dir };
        wait_for("the registry", Duration::from_secs(60), &log, || Ok(TcpStream::connect(address).ok()))?;
        Ok(Some(registry))
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
