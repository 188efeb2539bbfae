//! A node with zone data alone, and one client: two namespaces and a cable, no engine. For tests of the kernel's side.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::edge::clean_up;
use crate::lab::netns::veth;
use crate::lab::record::{Record, Thing};
use crate::lab::{LabError, Lock, Namespace, Result};

/// The node's address.
pub const EDGE: &str = "10.61.0.1";
/// The client's.
pub const CLIENT: &str = "10.61.0.2";

/// The lab.
#[derive(Debug)]
pub struct DataplaneLab {
    name: String,
    /// Where the daemon is; its interface is `e0`.
    pub edge: Namespace,
    /// Where clients are; their interface is `c0`, and hands out what XDP sends back.
    pub client: Namespace,
    /// What was made.
    pub record: Record,
    /// Files of this lab.
    pub dir: PathBuf,
    _lock: Lock,
}

impl DataplaneLab {
    /// Makes it, with a configuration for this mode; `www.edge.test` is 192.0.2.80.
    ///
    /// # Errors
    /// [`LabError`], also where a lab of that name is up.
    pub fn create(name: &str, mode: &str) -> Result<Self> {
        let lock = Lock::take(name)?;
        let record_path = Path::new("/run").join(format!("{name}.lab.json"));
        clean_up(&record_path)?;
        let mut record = Record::create(&record_path)?;
        let dir = Path::new("/run").join(name);
        for part in ["edge", "client"] {
            record.add(Thing::Namespace { name: format!("{name}-{part}") })?;
        }
        record.add(Thing::Directory { path: dir.clone() })?;
        record.add(Thing::Pins { path: pins(name) })?;
        fs::create_dir_all(&dir).map_err(LabError::system("create", dir.display()))?;
        let edge = Namespace::create(&format!("{name}-edge"))?;
        let client = Namespace::create(&format!("{name}-client"))?;
        veth((&client, "c0"), (&edge, "e0"))?;
        for (place, interface, address) in [(&client, "c0", CLIENT), (&edge, "e0", EDGE)] {
            let address: IpAddr =
                address.parse().map_err(|e| LabError::system("read", address)(std::io::Error::other(e)))?;
            place.add_address(interface, address, 24)?;
        }
        let passed = client.run_in(|| xdp_balancer::attach_pass("c0"))?;
        passed.map_err(|e| LabError::system("attach", "c0")(std::io::Error::other(e)))?;
        let lab = Self { name: name.to_owned(), edge, client, record, dir, _lock: lock };
        fs::write(lab.config(), lab.text(mode)).map_err(LabError::system("write", lab.config().display()))?;
        Ok(lab)
    }

    fn text(&self, mode: &str) -> String {
        format!(
            r#"[dataplane]
interfaces = ["e0"]
mode = "{mode}"
pin_dir = "{pins}"
[dns]
listen = ["{EDGE}"]
cookies = false
[control]
state_dir = "{dir}/state"
socket = "{dir}/socket"
metrics = "127.0.0.1:9553"
[[zone]]
name = "edge.test"
[[zone.record]]
name = "www"
type = "A"
data = "192.0.2.80"
"#,
            pins = self.pins().display(),
            dir = self.dir.display(),
        )
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("selvedge.toml")
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where its maps and links are pinned.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        pins(&self.name)
    }

    /// Removes all of it; a daemon must have ended.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(self) -> std::result::Result<(), Vec<LabError>> {
        let Self { record, edge, client, .. } = self;
        let removed = record.remove();
        drop((edge, client));
        removed
    }
}

fn pins(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(name)
}
