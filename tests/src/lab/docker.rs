//! A container engine: the one that runs, or one of the lab's own with everything below one directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use super::error::{LabError, Result};
use super::process::{self, wait_for};

/// Where a running engine of the machine's would listen.
const COMMON: &str = "/var/run/docker.sock";

/// Longest wait for an engine to answer; on a loaded machine it takes seconds.
const START: Duration = Duration::from_secs(60);

/// Longest wait for an engine to end by itself.
const STOP: Duration = Duration::from_secs(20);

/// A Docker engine that answers.
#[derive(Debug)]
pub struct Engine {
    dir: PathBuf,
    socket: PathBuf,
    /// The engine's process, where it is the lab's own.
    own: Option<Child>,
}

impl Engine {
    /// The machine's engine if one answers, else one of our own below `dir`.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn ensure(dir: &Path) -> Result<Self> {
        let engine = Self { dir: dir.to_owned(), socket: PathBuf::from(COMMON), own: None };
        if engine.answers() { Ok(engine) } else { Self::start(dir) }
    }

    /// Starts an engine of our own with data, sockets and log below `dir`, without any network of its own. What an
    /// earlier, killed run left there is ended first; images stay, so that they need not be built again.
    ///
    /// # Errors
    /// [`LabError::Deadline`] where it does not answer in time, with the path of its log.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::clean_up(dir)?;
        fs::create_dir_all(dir).map_err(LabError::system("make directory", dir.display()))?;
        let dir = dir.canonicalize().map_err(LabError::system("resolve", dir.display()))?;
        let socket = dir.join("docker.sock");
        let mut engine = Self { dir, socket, own: None };
        engine.launch()?;
        Ok(engine)
    }

    /// Starts the engine's process and waits until it answers.
    fn launch(&mut self) -> Result<()> {
        let log_path = self.dir.join("dockerd.log");
        let open = || -> io::Result<(File, File)> {
            let log = File::options().create(true).append(true).open(&log_path)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(LabError::system("open log", log_path.display()))?;
        let path = |name: &str| self.dir.join(name).display().to_string();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("dockerd.pid")])
            .args(["--host", &format!("unix://{}", self.socket.display())])
            // Without these it would change filters and forwarding of the whole machine.
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // A group of its own: a Ctrl-C at the terminal is for the lab, which ends its parts in order.
            .process_group(0)
            .spawn();
        self.own = Some(child.map_err(LabError::system("start", "dockerd"))?);
        wait_for("an answer of the container engine", START, &log_path, || {
            if let Some(child) = &mut self.own
                && let Some(status) = child.try_wait().map_err(LabError::system("wait for", "dockerd"))?
            {
                let stderr = last_lines(&log_path);
                return Err(LabError::Program { program: "dockerd".to_owned(), status, stderr });
            }
            Ok(self.answers().then_some(()))
        })
    }

    /// The socket to talk to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A directory of its data, where it is the lab's own.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join("data").join(name)
    }

    /// True where it is the lab's own engine.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// A client of it, for use in the caller's runtime.
    ///
    /// # Errors
    /// [`LabError::Engine`].
    pub fn client(&self) -> Result<bollard::Docker> {
        let path = self.socket.to_string_lossy();
        let client = bollard::Docker::connect_with_unix(&path, 120, bollard::API_DEFAULT_VERSION);
        client.map_err(LabError::engine("connect to", path))
    }

    fn answers(&self) -> bool {
        let Ok(client) = self.client() else { return false };
        block_on(async move { client.ping().await }).is_ok()
    }

    /// Ends our own engine as if the machine had lost it: by force, so that its containers go on or not as
    /// they can. For tests of what happens then.
    ///
    /// # Errors
    /// [`LabError`], also where the engine is not our own.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.take_own()?;
        child.kill().map_err(LabError::system("kill", "dockerd"))?;
        child.wait().map_err(LabError::system("wait for", "dockerd"))?;
        // Its containerd dies with it, a moment later; the shims and what they run go on.
        let ended = || {
            let helper = |pid: &u32| is_of_engine(*pid, &self.dir) && program(*pid).as_deref() == Some("containerd");
            Ok((!process::all().iter().any(helper)).then_some(()))
        };
        wait_for("the end of containerd", STOP, &self.dir.join("dockerd.log"), ended)
    }

    /// Starts our own engine again after [`Engine::kill`].
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn restart(&mut self) -> Result<()> {
        // A killed engine leaves these behind, and a new one would wait for the old one because of them, even
        // for one that is dead and only not yet collected by its parent.
        for name in ["dockerd.pid", "docker.sock", "exec/containerd/containerd.pid"] {
            remove_file(&self.dir.join(name))?;
        }
        self.launch()
    }

    fn take_own(&mut self) -> Result<Child> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the engine is not the lab's own, or was ended");
        self.own.take().ok_or_else(|| LabError::system("end", "the container engine")(missing()))
    }

    /// Process numbers of all running containers' first processes.
    ///
    /// # Errors
    /// [`LabError::Engine`].
    pub fn processes(&self) -> Result<Vec<u32>> {
        let client = self.client()?;
        block_on(async move {
            let found = client.list_containers(Some(ListContainersOptionsBuilder::new().build())).await;
            let mut pids = Vec::new();
            for id in found.map_err(LabError::engine("list", "containers"))?.into_iter().filter_map(|c| c.id) {
                let inspected = client.inspect_container(&id, None).await;
                let state = inspected.map_err(LabError::engine("inspect", id))?.state;
                pids.extend(state.and_then(|s| s.pid).and_then(|pid| u32::try_from(pid).ok()));
            }
            Ok(pids)
        })
    }

    /// Removes all containers with that label (`name` or `name=value`).
    ///
    /// # Errors
    /// [`LabError::Engine`], the first one; the others are tried all the same.
    pub fn remove_containers(&self, label: &str) -> Result<()> {
        let client = self.client()?;
        let filters = std::collections::HashMap::from([("label", vec![label])]);
        block_on(async move { remove_all(&client, Some(&filters)).await })
    }

    /// Ends our own engine with all its containers, and waits for that. The machine's own engine goes on.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.own.take() else { return Ok(()) };
        if let Ok(client) = self.client()
            && let Err(error) = block_on(async move { remove_all(&client, None).await })
        {
            eprintln!("lab: {error}");
        }
        let pid = child.id();
        let ended = match process::start_time(pid) {
            Some(started) => process::end(pid, started, STOP),
            None => Ok(()),
        };
        let collected = child.wait().map(drop).map_err(LabError::system("wait for", "dockerd"));
        ended.and(collected).and_then(|()| Self::clean_up(&self.dir))
    }

    /// Ends what an earlier, killed run left of an engine below `dir`: the engine, its helpers, its containers'
    /// processes, mounts and control groups. Files stay. Nothing there is a success.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn clean_up(dir: &Path) -> Result<()> {
        // A directory that is gone may still have an engine running.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let containers = containers_below(&dir);
        // The engine first, so that it starts nothing anew; then helpers; then what they ran.
        for pid in process::all() {
            if is_of_engine(pid, &dir) && program(pid).as_deref() == Some("dockerd") {
                end(pid, STOP)?;
            }
        }
        for pid in process::all() {
            if is_of_engine(pid, &dir) || runs_in_one_of(pid, &containers) {
                end(pid, Duration::ZERO)?;
            }
        }
        unmount_below(&dir)?;
        remove_groups(&containers);
        remove_file(&dir.join("exec/containerd/containerd.pid"))?;
        remove_file(&dir.join("dockerd.pid"))?;
        remove_file(&dir.join("docker.sock"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: {error}");
        }
    }
}

/// Runs a future to its end in a thread of its own, so that it may be called from within a runtime, too.
pub(super) fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let run = || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => panic!("no runtime: {error}"),
    };
    match std::thread::scope(|scope| scope.spawn(run).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

type Filters<'a> = std::collections::HashMap<&'a str, Vec<&'a str>>;

async fn remove_all(client: &bollard::Docker, filters: Option<&Filters<'_>>) -> Result<()> {
    let mut options = ListContainersOptionsBuilder::new().all(true);
    if let Some(filters) = filters {
        options = options.filters(filters);
    }
    let found = client.list_containers(Some(options.build())).await;
    let mut first = Ok(());
    for id in found.map_err(LabError::engine("list", "containers"))?.into_iter().filter_map(|found| found.id) {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match client.remove_container(&id, Some(options)).await {
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => first = first.and(Err(LabError::engine("remove container", id)(error))),
        }
    }
    first
}

/// The end of a log, for an error: the log may be gone with its directory when the error is read.
fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
}

/// True for a process that was started with a path below `dir` as an argument and is one of an engine's programs.
fn is_of_engine(pid: u32, dir: &Path) -> bool {
    let Some(program) = program(pid) else { return false };
    let engine = program == "dockerd" || program.starts_with("containerd") || program == "runc";
    engine && process::arguments(pid).iter().any(|argument| Path::new(argument).starts_with(dir))
}

/// The name of a process's program; `None` where it is gone.
fn program(pid: u32) -> Option<String> {
    let arguments = process::arguments(pid);
    Some(Path::new(arguments.first()?).file_name()?.to_str()?.to_owned())
}

/// Identifiers of all containers that the engine below `dir` knows, or that a helper of it runs: its files may have
/// been removed beneath it.
fn containers_below(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join("data/containers")).into_iter().flatten();
    let known = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let run = process::all().into_iter().filter(|pid| is_of_engine(*pid, dir)).flat_map(process::arguments);
    known.chain(run).filter(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).collect()
}

fn runs_in_one_of(pid: u32, containers: &BTreeSet<String>) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    // `…/docker/<id>` or `…/docker-<id>.scope`; an identifier is 64 digits long and is nobody else's.
    groups.split(['/', '-', '.', '\n']).any(|part| containers.contains(part))
}

fn end(pid: u32, grace: Duration) -> Result<()> {
    match process::start_time(pid) {
        Some(started) => process::end(pid, started, grace),
        None => Ok(()),
    }
}

/// Takes off all mounts below `dir`, the deepest first.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo");
    let mounts = mounts.map_err(LabError::system("read", "/proc/self/mountinfo"))?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = points.filter(|point| point.starts_with(dir)).collect();
    below.reverse();
    for point in below {
        match nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(LabError::system("unmount", point.display())(errno.into())),
        }
    }
    Ok(())
}

/// Removes the containers' control groups. What is not empty or not there stays; it is of no harm.
fn remove_groups(containers: &BTreeSet<String>) {
    let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for tree in controllers.chain([PathBuf::from("/sys/fs/cgroup")]) {
        for id in containers {
            let _ = fs::remove_dir(tree.join("docker").join(id));
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LabError::system("remove", path.display())(error)),
        _ => Ok(()),
    }
}
