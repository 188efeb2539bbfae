//! Podman's service with the socket that engines of Docker's have, everything below one directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::error::{LabError, Result};
use super::process::{self, wait_for};

/// Longest wait for an answer.
const START: Duration = Duration::from_secs(60);
/// Its configuration below its directory.
const SETTINGS: &str = "containers.conf";
/// Longest wait for its end.
const STOP: Duration = Duration::from_secs(20);

/// A service that answers.
#[derive(Debug)]
pub struct Podman {
    dir: PathBuf,
    child: Child,
}

impl Podman {
    /// Starts it; `None` where Podman is not installed.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start(dir: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(dir).map_err(LabError::system("make directory", dir.display()))?;
        // Its own defaults are above what a machine inside another may have.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";
        let file = dir.join(SETTINGS);
        fs::write(&file, settings).map_err(LabError::system("write", file.display()))?;
        let log = dir.join("podman.log");
        let file = File::create(&log).map_err(LabError::system("open", log.display()))?;
        let mut command = Self::command(dir);
        let socket = format!("unix://{}", dir.join("podman.sock").display());
        command.args(["system", "service", "--time=0", &socket]);
        let child = match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::system("start", "podman")(error)),
        };
        let podman = Self { dir: dir.to_owned(), child };
        wait_for("an answer of podman", START, &log, || {
            Ok(std::os::unix::net::UnixStream::connect(podman.socket()).ok().map(drop))
        })?;
        Ok(Some(podman))
    }

    /// The program with its places. The file system's layers are copies: that works on any.
    fn command(dir: &Path) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", dir.join(SETTINGS));
        command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
        command.args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs", "--events-backend=file"]);
        command.arg("--tmpdir").arg(dir.join("tmp"));
        command
    }

    /// The socket to talk to.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("podman.sock")
    }

    /// Makes the image `name` of a file system, with the command that it runs.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn import(&self, name: &str, archive: &[u8], command: &[&str]) -> Result<()> {
        let file = self.dir.join("import.tar");
        fs::write(&file, archive).map_err(LabError::system("write", file.display()))?;
        let change = format!("CMD {}", serde_json::json!(command));
        process::run(Self::command(&self.dir).args(["import", "--change", &change]).arg(&file).arg(name)).map(drop)
    }
}

/// Containers and mounts go with it.
impl Drop for Podman {
    fn drop(&mut self) {
        for arguments in [&["rm", "--all", "--force", "--time", "0"][..], &["umount", "--all"]] {
            if let Err(error) = process::run(Self::command(&self.dir).args(arguments)) {
                eprintln!("lab: {error}");
            }
        }
        if let Some(started) = process::start_time(self.child.id())
            && let Err(error) = process::end(self.child.id(), started, STOP)
        {
            eprintln!("lab: {error}");
        }
        let _ = self.child.wait();
    }
}
