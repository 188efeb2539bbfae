//! Dom0 of the Xen host in an emulator (`tests/xen/lab`), from outside of it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::binary;
use super::error::{LabError, Result};
use super::process::run;

/// The lab's dom0.
#[derive(Debug)]
pub struct Dom0 {
    lab: PathBuf,
    /// Its directory, where the host is this one's own; it ends with this.
    own: Option<PathBuf>,
}

impl Dom0 {
    /// The lab of this checkout, or of the directory that `XEN_LAB` names. It is up already, and stays.
    ///
    /// # Errors
    /// [`super::LabError`] where it is not up.
    pub fn find() -> Result<Self> {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("xen/lab");
        let dom0 = Self { lab, own: None };
        dom0.exec("true").map(|_| dom0)
    }

    /// Boots a second host in a directory, of what this one was built of. For what a host does not outlive.
    ///
    /// # Errors
    /// [`super::LabError`] where it does not boot.
    pub fn second(&self, directory: &Path) -> Result<Self> {
        let wire = self.wire()?;
        for part in ["packages", "image"] {
            let built = wire.ancestors().nth(2).unwrap_or(&wire).join(part);
            symlink(&built, directory.join(part)).map_err(LabError::system("link", built.display()))?;
        }
        let second = Self { lab: self.lab.clone(), own: Some(directory.to_owned()) };
        run(&mut second.command("up")).map(|_| second)
    }

    /// A word of the lab's.
    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(&self.lab);
        command.arg(word).envs(self.own.iter().map(|own| ("XEN_LAB", own)));
        command
    }

    /// Runs a line of shell in it; what that printed.
    ///
    /// # Errors
    /// [`super::LabError::Program`] with what it said, where it fails.
    pub fn exec(&self, line: &str) -> Result<String> {
        run(self.command("exec").arg(line))
    }

    /// Copies a file to a path in it, which can be executed then.
    ///
    /// # Errors
    /// [`super::LabError`].
    pub fn put(&self, file: &Path, path: &str) -> Result<()> {
        run(self.command("put").arg(file).arg(path)).map(drop)
    }

    /// Copies a program of this workspace to `/tmp` in it, without what only a debugger reads.
    ///
    /// # Errors
    /// [`super::LabError`], also where it has not been built.
    pub fn install(&self, program: &str, directory: &Path) -> Result<()> {
        let small = directory.join(program);
        run(Command::new("strip").arg("-o").arg(&small).arg(binary(program)?))?;
        self.put(&small, &format!("/tmp/{program}"))
    }

    /// The socket that is the other end of its second interface, `eth1`.
    ///
    /// # Errors
    /// [`super::LabError`].
    pub fn wire(&self) -> Result<PathBuf> {
        run(&mut self.command("wire")).map(|path| PathBuf::from(path.trim_end()))
    }
}

impl Drop for Dom0 {
    fn drop(&mut self) {
        if self.own.is_some()
            && let Err(error) = run(&mut self.command("down"))
        {
            eprintln!("{error}");
        }
    }
}
