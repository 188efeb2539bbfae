//! `xl`, Xen's own tool, as a child process with a deadline: what builds and takes down domains is libxl's. What it says
//! is for people; what went wrong is told by how it ended.

mod config;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::Command;

pub(crate) use config::text as config_text;
pub use table::{Row, TableError};

/// Where `xl` finds the text of [`Xl::run_on`]: its standard input, by a name that needs no `/dev/stdin`.
pub(crate) const CONFIG: &str = "/proc/self/fd/0";
/// Most lines of what `xl` says that an error keeps: the first ones, for the cause comes before what it entails.
const LINES: usize = 3;
/// Most bytes of them.
const BYTES: usize = 400;

/// Why `xl` has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum XlError {
    /// It could not be started: not installed, or not to be run by us.
    #[error("{program}: {source}", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// It has ended with a status that is not 0.
    #[error("xl ended with status {status}: {said}")]
    Exit {
        /// The status: 1 for what it does not know, 3 for what could not be made.
        status: i32,
        /// What it said first, for people.
        said: String,
    },
    /// A signal has ended it.
    #[error("xl was ended by signal {signal}: {said}")]
    Signal {
        /// The signal.
        signal: i32,
        /// What it said first, for people.
        said: String,
    },
    /// It has not ended in time and was killed.
    #[error("xl has not ended within {after:?}")]
    Deadline {
        /// How long was waited.
        after: Duration,
    },
    /// What it has said is not what it says.
    #[error("xl has said nothing of {0}")]
    Silent(&'static str),
}

/// How `xl` is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xl {
    /// The program.
    pub program: PathBuf,
    /// How long one run may take before it is killed.
    pub deadline: Duration,
}

impl Default for Xl {
    fn default() -> Self {
        Self { program: PathBuf::from("xl"), deadline: Duration::from_secs(60) }
    }
}

impl Xl {
    /// Runs it with these words; gives what it said on its standard output.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<String, XlError> {
        self.run_with(words, Stdio::null()).await
    }

    /// Runs it with a text that it reads as the file [`CONFIG`]. That is no pipe but a file in memory, for `xl` takes
    /// its configuration from regular files only.
    pub(crate) async fn run_on(&self, words: &[&str], text: &str) -> Result<String, XlError> {
        let file = || -> io::Result<std::fs::File> {
            let mut file = std::fs::File::from(memfd_create(c"xl-config", MFdFlags::MFD_CLOEXEC)?);
            file.write_all(text.as_bytes())?;
            Ok(file)
        };
        let file = file().map_err(|source| XlError::Spawn { program: self.program.clone(), source })?;
        self.run_with(words, Stdio::from(file)).await
    }

    async fn run_with(&self, words: &[&str], input: Stdio) -> Result<String, XlError> {
        let mut command = Command::new(&self.program);
        command.args(words).env("LC_ALL", "C").stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let spawn = |source| XlError::Spawn { program: self.program.clone(), source };
        let child = command.spawn().map_err(spawn)?;
        let output = match tokio::time::timeout(self.deadline, child.wait_with_output()).await {
            Ok(output) => output.map_err(spawn)?,
            Err(_) => return Err(XlError::Deadline { after: self.deadline }),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = if output.stderr.is_empty() { output.stdout } else { output.stderr };
        Err(failure(output.status, &said))
    }

    /// All domains that the hypervisor knows, dom0 included.
    pub(crate) async fn list(&self) -> Result<Result<Vec<Row>, TableError>, XlError> {
        Ok(table::rows(&self.run(&["list", "-v"]).await?))
    }

    /// Memory that no domain has, in MiB.
    pub(crate) async fn free_memory(&self) -> Result<u32, XlError> {
        let text = self.run(&["info"]).await?;
        field(&text, "free_memory").and_then(|value| value.parse().ok()).ok_or(XlError::Silent("free_memory"))
    }

    /// The scheduler's name.
    pub(crate) async fn scheduler(&self) -> Result<String, XlError> {
        let text = self.run(&["info"]).await?;
        field(&text, "xen_scheduler").map(ToOwned::to_owned).ok_or(XlError::Silent("xen_scheduler"))
    }

    /// The hypervisor's version.
    pub(crate) async fn version(&self) -> Result<String, XlError> {
        let text = self.run(&["info"]).await?;
        field(&text, "xen_version").map(ToOwned::to_owned).ok_or(XlError::Silent("xen_version"))
    }
}

/// A line `name : value` of `xl info`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next()
}

fn failure(status: ExitStatus, said: &[u8]) -> XlError {
    use std::os::unix::process::ExitStatusExt;
    let text = String::from_utf8_lossy(&said[..said.len().min(BYTES)]);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES).collect();
    let said = lines.join(" | ");
    match status.signal() {
        Some(signal) => XlError::Signal { signal, said },
        None => XlError::Exit { status: status.code().unwrap_or_default(), said },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    /// Another program in `xl`'s place; what is tested is how a child is run.
    fn run(program: &str, words: &[&str], input: &str, deadline: Duration) -> Result<String, XlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let xl = Xl { program: program.into(), deadline };
        runtime.block_on(xl.run_on(words, input))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn how_a_child_ended_is_told_by_kind() {
        assert_eq!(run("cat", &[CONFIG], "a\nb", LONG).unwrap(), "a\nb");
        let regular = run("sh", &["-c", "test -f /proc/self/fd/0 && echo yes"], "x", LONG).unwrap();
        assert_eq!(regular, "yes\n", "the input is a regular file");
        let error = run("sh", &["-c", "echo one >&2; echo two >&2; exit 3"], "", LONG).unwrap_err();
        assert!(matches!(&error, XlError::Exit { status: 3, said } if said == "one | two"), "{error}");
        let error = run("sh", &["-c", "kill -9 $$"], "", LONG).unwrap_err();
        assert!(matches!(error, XlError::Signal { signal: 9, .. }), "{error}");
        let error = run("/nonexistent/xl", &[], "", LONG).unwrap_err();
        assert!(matches!(&error, XlError::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound), "{error}");
        let error = run("sleep", &["1000"], "", Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, XlError::Deadline { .. }), "{error}");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "free_memory            : 748\nsharing_freed_memory   : 0\nxen_version            : 4.17.7\n";
        assert_eq!(field(text, "free_memory"), Some("748"));
        assert_eq!(field(text, "xen_version"), Some("4.17.7"));
        assert_eq!(field(text, "memory"), None);
    }
}
