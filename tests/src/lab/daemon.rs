//! The daemon under test: the real binary in a namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::api::{Status, client};

use super::error::{LabError, Result};
use super::netns::Namespace;
use super::process;
use super::record::Record;

/// Between two looks at the daemon's status while something is waited for. The status is a document, not a
/// stream of events.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for its end.
const END: Duration = Duration::from_secs(30);

/// A binary of this workspace: below `SELVEDGE_BIN_DIR` if that is set, else beside the caller or in a target
/// directory above it, the release build first.
///
/// # Errors
/// [`LabError`] where none has been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SELVEDGE_BIN_DIR") {
        let path = PathBuf::from(dir).join(name);
        return if path.exists() { Ok(path) } else { Err(missing(name)) };
    }
    let own = std::env::current_exe().map_err(LabError::system("find", "this program"))?;
    let above = own.ancestors().skip(1).flat_map(|dir| [dir.join("release").join(name), dir.join(name)]);
    above.into_iter().find(|path| path.is_file()).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> LabError {
    let source = std::io::Error::new(std::io::ErrorKind::NotFound, "not built; run `make build`");
    LabError::system("find", name)(source)
}

/// A running `selvedged`.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon inside `namespace`; its log is appended to `log`.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start(record: &mut Record, namespace: &Namespace, config: &Path, socket: &Path, log: &Path) -> Result<Self> {
        Self::start_with(record, namespace, config, socket, log, &[])
    }

    /// The same with further variables in its environment.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_with(
        record: &mut Record,
        namespace: &Namespace,
        config: &Path,
        socket: &Path,
        log: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_program(record, &binary("selvedged")?, namespace, (config, socket, log), environment)
    }

    /// The same with another build.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_program(
        record: &mut Record,
        program: &Path,
        namespace: &Namespace,
        (config, socket, log): (&Path, &Path, &Path),
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = namespace.command(&program.to_string_lossy())?;
        command.envs(environment.iter().copied());
        Self::spawn(record, command, config, socket, log)
    }

    /// The same as root without these capabilities, named as in `perfmon`.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_without(
        record: &mut Record,
        namespace: &Namespace,
        config: &Path,
        socket: &Path,
        log: &Path,
        capabilities: &[&str],
    ) -> Result<Self> {
        let program = binary("selvedged")?;
        let mut command = namespace.command("setpriv")?;
        let dropped: Vec<String> = capabilities.iter().map(|name| format!("-{name}")).collect();
        command.args(["--bounding-set", &dropped.join(",")]).arg(program);
        Self::spawn(record, command, config, socket, log)
    }

    fn spawn(record: &mut Record, mut command: Command, config: &Path, socket: &Path, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(LabError::system("open", log.display()))?;
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        // A group of its own: a Ctrl-C at the terminal is for the lab, which ends its parts in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = record.spawn("selvedged", &mut command)?;
        Ok(Self { child, socket: socket.to_owned(), log: log.to_owned() })
    }

    /// Its status now.
    ///
    /// # Errors
    /// [`LabError`] where it does not answer.
    pub fn status(&self) -> Result<Status> {
        status(&self.socket)
    }

    /// Waits until its status is as `wanted`.
    ///
    /// # Errors
    /// [`LabError::Deadline`] with the place of its log, or that it has ended.
    pub fn wait_for(&mut self, what: &str, deadline: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let begun = Instant::now();
        loop {
            if let Ok(status) = self.status()
                && wanted(&status)
            {
                return Ok(status);
            }
            let ended = self.child.try_wait().map_err(LabError::system("look at", "selvedged"))?;
            if ended.is_some() || begun.elapsed() > deadline {
                let what = ended.map_or(what.to_owned(), |status| format!("{what}, but selvedged ended: {status}"));
                return Err(LabError::Deadline {
                    what,
                    seconds: deadline.as_secs(),
                    log: self.log.display().to_string(),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).map_err(|e| LabError::system("signal", "selvedged")(e.into()))
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// [`LabError`], also where it does not end in time; the lab's record ends it then.
    pub fn terminate(mut self) -> Result<std::process::ExitStatus> {
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        let Self { child, log, .. } = &mut self;
        process::wait_for("the end of selvedged", END, log, || {
            child.try_wait().map_err(LabError::system("wait for", "selvedged"))
        })
    }

    /// Ends it without a word, as a crash would.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().map_err(LabError::system("kill", "selvedged"))?;
        self.child.wait().map_err(LabError::system("wait for", "selvedged")).map(drop)
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The status document behind an API socket.
///
/// # Errors
/// [`LabError`] where nobody answers.
pub fn status(socket: &Path) -> Result<Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LabError::system("start", "runtime"))?;
    runtime
        .block_on(client::status(socket))
        .map_err(|e| LabError::system("ask", socket.display())(std::io::Error::other(e)))
}

/// Runs `selvedge` with these arguments inside a namespace; its exit code, output and error output.
///
/// # Errors
/// [`LabError`] where it cannot be started.
pub fn selvedge(namespace: Option<&Namespace>, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let program = binary("selvedge")?;
    let program = program.to_string_lossy();
    let mut command = match namespace {
        Some(namespace) => namespace.command(&program)?,
        None => Command::new(program.as_ref()),
    };
    let output = command.args(arguments).output().map_err(LabError::system("run", "selvedge"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}
