//! One edge node and one client on this machine: two namespaces and a cable, a container engine, and the real
//! daemon in the edge's namespace.
//!
//! ```text
//!   <name>-client                         <name>-edge
//!   c0 10.53.0.2 fd53::2 ───── cable ───── e0 10.53.0.1 fd53::1   XDP here
//!                                          └ routes ─ sv-docker 10.213.0.1 ─ port ─ container
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::load::{Family, LoadOptions};

use crate::lab::daemon::{Daemon, selvedge};
use crate::lab::netns::veth;
use crate::lab::record::{self, Record, Thing};
use crate::lab::{Engine, LabError, Lock, Namespace, Result, image};

/// The edge's addresses, to which queries are sent.
pub const EDGE: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 53, 0, 1), Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 1));
/// The client's addresses.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 53, 0, 2), Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 2));
/// Zone of the lab.
pub const ZONE: &str = "edge.test";
/// Name of the lab's service.
pub const NAME: &str = "video.edge.test";

/// What differs between labs.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// Prefix of everything that is made.
    pub name: String,
    /// Where files go; kept between runs for the engine's images.
    pub dir: PathBuf,
    /// Length of a counting period, as in the configuration.
    pub window: String,
    /// Bytes of content that the image serves.
    pub content: usize,
    /// Further lines for the service's section.
    pub service: String,
}

/// The lab.
#[derive(Debug)]
pub struct EdgeLab {
    options: EdgeOptions,
    /// None once everything in it was removed.
    record: Option<Record>,
    /// Held as long as anything of this name may be there.
    _lock: Lock,
    /// Where clients are.
    pub client: Namespace,
    /// Where the daemon is.
    pub edge: Namespace,
    /// What runs containers.
    pub engine: Option<Engine>,
}

impl EdgeLab {
    /// Cleans up what an earlier, killed run left, and makes the lab. `say` is told each step, and may end it.
    ///
    /// # Errors
    /// [`LabError`], also where a lab of that name is up; what was made until then is removed.
    pub fn create(options: EdgeOptions, say: &mut dyn FnMut(&str) -> Result<()>) -> Result<Self> {
        let lock = Lock::take(&options.name)?;
        make_dir(&options.dir)?;
        let dir = options.dir.canonicalize().map_err(LabError::system("find", options.dir.display()))?;
        let options = EdgeOptions { dir, ..options };
        // What is made is the whole machine's and named the same from every checkout, and so is its record.
        let record_path = Path::new("/run").join(format!("{}.lab.json", options.name));
        clean_up(&record_path)?;
        let record = Record::create(&record_path)?;
        let made = Self::build(options, record, lock, say);
        if made.is_err() {
            // Everything that was held is dropped by now; this removes what only the record knows.
            clean_up(&record_path)?;
        }
        made
    }

    fn build(
        options: EdgeOptions,
        mut record: Record,
        lock: Lock,
        say: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Self> {
        say("network")?;
        let namespace = |record: &mut Record, part: &str| {
            let name = format!("{}-{part}", options.name);
            record.add(Thing::Namespace { name: name.clone() })?;
            Namespace::create(&name)
        };
        let client = namespace(&mut record, "client")?;
        let edge = namespace(&mut record, "edge")?;
        veth((&client, "c0"), (&edge, "e0"))?;
        for (place, interface, addresses) in [(&client, "c0", CLIENT), (&edge, "e0", EDGE)] {
            place.add_address(interface, IpAddr::V4(addresses.0), 24)?;
            place.add_address(interface, IpAddr::V6(addresses.1), 64)?;
        }
        client.add_route("default", IpAddr::V4(EDGE.0))?;
        client.add_route("default", IpAddr::V6(EDGE.1))?;
        // What XDP sends back over a virtual cable arrives only where the other end runs a program too.
        let passed = client.run_in(|| xdp_balancer::attach_pass("c0"))?;
        passed.map_err(|e| LabError::system("attach", "c0")(std::io::Error::other(e)))?;

        say("container engine")?;
        let engine_dir = options.dir.join("engine");
        record.add(Thing::Engine { dir: engine_dir.clone() })?;
        // An engine of the lab's own, also where the machine has one: that one's containers are not ours to risk.
        let engine = Engine::start(&engine_dir)?;

        say("image")?;
        let mut lab = Self { options, record: Some(record), _lock: lock, client, edge, engine: Some(engine) };
        if let Some(engine) = &lab.engine {
            image::build_nginx_image(engine, &lab.image(), lab.options.content)?;
        }
        lab.prepare_state()?;
        Ok(lab)
    }

    /// State, pins and run-time directory start empty.
    fn prepare_state(&mut self) -> Result<()> {
        let (pins, state, run_dir) = (self.pins(), self.state(), self.run_dir());
        let record = self.record.as_mut().ok_or_else(removed)?;
        record.add(Thing::Pins { path: pins })?;
        for dir in [state, run_dir] {
            record.add(Thing::Directory { path: dir.clone() })?;
            let _ = fs::remove_dir_all(&dir);
            make_dir(&dir)?;
        }
        let _ = fs::remove_file(self.log());
        let text = self.config_text();
        fs::write(self.config(), text).map_err(LabError::system("write", self.config().display()))
    }

    /// The configuration of the node.
    fn config_text(&self) -> String {
        let socket = self.engine.as_ref().map_or_else(PathBuf::new, |e| e.socket().to_owned());
        format!(
            r#"[node]
name = "edge-1"

[dataplane]
interfaces = ["e0"]
mode = "native"
pin_dir = "{pins}"

[dns]
listen = ["{v4}", "{v6}"]

[[zone]]
name = "{ZONE}"

[control]
window = "{window}"
state_dir = "{state}"
socket = "{socket}"
metrics = "127.0.0.1:9553"

# As the paper plans: on the mean, at once.
[scaling]
predictor = "ema"
headroom = 0
stabilisation = "0s"
tolerance = 0

[technology.docker]
socket = "{engine}"
bridge = "sv-docker"
pool = "10.213.0.0/24"
pool6 = "fd5e:5e1d:ed6e::/64"

[[service]]
name = "video"
names = ["{NAME}"]
image = "{image}"
probe_path = "/healthz"
{service}
"#,
            pins = self.pins().display(),
            v4 = EDGE.0,
            v6 = EDGE.1,
            window = self.options.window,
            state = self.state().display(),
            socket = self.socket().display(),
            engine = socket.display(),
            image = self.image(),
            service = self.options.service,
        )
    }

    fn image(&self) -> String {
        format!("selvedge-lab/nginx:{}", self.options.content)
    }

    fn state(&self) -> PathBuf {
        self.options.dir.join("state")
    }

    fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(&self.options.name)
    }

    /// Directory of the pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.options.name)
    }

    /// The daemon's API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("selvedged.sock")
    }

    /// The daemon's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.options.dir.join("selvedge.toml")
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.options.dir.join("selvedged.log")
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_daemon(&mut self) -> Result<Daemon> {
        let (config, socket, log) = (self.config(), self.socket(), self.log());
        let record = self.record.as_mut().ok_or_else(removed)?;
        Daemon::start(record, &self.edge, &config, &socket, &log)
    }

    /// Removes everything, the daemon's dataplane by its own command.
    ///
    /// # Errors
    /// [`LabError`], the first; the rest is removed all the same.
    pub fn remove(mut self) -> Result<()> {
        let pins = self.pins();
        let detached = selvedge(None, &["dataplane", "detach", "--tables", "--pin-dir", &pins.to_string_lossy()]);
        let detached = detached.and_then(|(code, _, stderr)| match code {
            Some(0) => Ok(()),
            _ => Err(LabError::system("detach", pins.display())(std::io::Error::other(stderr.trim().to_owned()))),
        });
        let removed = self.remove_all();
        detached.and(removed)
    }

    fn remove_all(&mut self) -> Result<()> {
        let stopped = self.engine.take().map_or(Ok(()), Engine::stop);
        let removed = self.record.take().map_or(Ok(()), |record| record.remove().map_err(first));
        stopped.and(removed)
    }
}

/// A test that failed leaves nothing either, the daemon's process included.
impl Drop for EdgeLab {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            eprintln!("lab: {error}");
        }
    }
}

fn removed() -> LabError {
    LabError::system("use", "lab")(std::io::Error::new(std::io::ErrorKind::NotFound, "it was removed"))
}

/// Downloads of the lab's content by its name, with `pattern` requests per window.
#[must_use]
pub fn downloads(pattern: Vec<u32>, window: Duration, cycles: u32) -> LoadOptions {
    LoadOptions {
        servers: vec![SocketAddr::new(IpAddr::V4(EDGE.0), 53)],
        name: NAME.to_owned(),
        port: 80,
        path: "/content".to_owned(),
        pattern,
        window,
        cycles,
        timeout: Duration::from_secs(15),
        dns_timeout: Duration::from_secs(1),
        concurrency: 256,
        family: Family::A,
    }
}

fn first(errors: Vec<LabError>) -> LabError {
    for error in errors.iter().skip(1) {
        eprintln!("lab: {error}");
    }
    errors.into_iter().next().unwrap_or_else(|| LabError::system("clean up", "lab")(std::io::Error::other("unknown")))
}

/// Removes what an earlier run left.
///
/// # Errors
/// [`LabError`], the first.
pub fn clean_up(record: &Path) -> Result<()> {
    record::clean_up(record).map_err(first)
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(LabError::system("make directory", dir.display()))
}
