//! Dom0 of the Xen host in an emulator (`tests/xen/lab`), from outside of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::binary;
use super::error::Result;
use super::process::run;

/// The lab's dom0; it is up already, and stays.
#[derive(Debug)]
pub struct Dom0 {
    lab: PathBuf,
}

impl Dom0 {
    /// The lab of this checkout, or of the directory that `XEN_LAB` names.
    ///
    /// # Errors
    /// [`super::LabError`] where it is not up.
    pub fn find() -> Result<Self> {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("xen/lab");
        let dom0 = Self { lab };
        dom0.exec("true").map(|_| dom0)
    }

    /// Runs a line of shell in it; what that printed.
    ///
    /// # Errors
    /// [`super::LabError::Program`] with what it said, where it fails.
    pub fn exec(&self, line: &str) -> Result<String> {
        run(Command::new(&self.lab).args(["exec", line]))
    }

    /// Copies a file to a path in it, which can be executed then.
    ///
    /// # Errors
    /// [`super::LabError`].
    pub fn put(&self, file: &Path, path: &str) -> Result<()> {
        run(Command::new(&self.lab).arg("put").arg(file).arg(path)).map(drop)
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
        run(Command::new(&self.lab).arg("wire")).map(|path| PathBuf::from(path.trim_end()))
    }
}
