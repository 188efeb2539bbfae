//! Processes: run to the end, wait for, recognise again, end.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{LabError, Result};

/// Runs a program to its end; a failure carries what it said.
///
/// # Errors
/// [`LabError::Program`] where it fails, [`LabError::System`] where it cannot be started.
pub fn run(command: &mut Command) -> Result<String> {
    let program = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let output = command.output().map_err(LabError::system("run", &program))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(LabError::Program { program, status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks `ready` with a growing pause until it gives a value. For what cannot be waited for as an event.
///
/// # Errors
/// [`LabError::Deadline`], or whatever `ready` fails with for good.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    log: &Path,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() >= deadline {
            let log = log.display().to_string();
            return Err(LabError::Deadline { what: what.to_owned(), seconds: deadline.as_secs(), log });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// When a process started, in ticks since boot; with its number it names a process once and for all.
/// `None` where there is no such process, or only what its parent has not yet collected of it.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything, so count from the last ')'.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    // State is field 3, the start time is field 22.
    fields.nth(18)?.parse().ok()
}

/// Numbers of all processes.
#[must_use]
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The arguments of a process, none where it is gone.
#[must_use]
pub fn arguments(pid: u32) -> Vec<String> {
    null_separated(&format!("/proc/{pid}/cmdline"))
}

/// The environment that a process was started with, none where it is gone.
#[must_use]
pub fn environment(pid: u32) -> Vec<String> {
    null_separated(&format!("/proc/{pid}/environ"))
}

fn null_separated(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Ends a process: asks, and after `grace` forces. One that is gone, or whose number belongs to another
/// process by now, is a success.
///
/// # Errors
/// [`LabError`] where it may not be signalled or does not go.
pub fn end(pid: u32, started: u64, grace: Duration) -> Result<()> {
    let gone = || start_time(pid) != Some(started);
    let log = format!("/proc/{pid}");
    let log = Path::new(&log);
    for (name, wait) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(10))] {
        if gone() {
            return Ok(());
        }
        if wait.is_zero() {
            continue;
        }
        signal(pid, name)?;
        match wait_for("the end of a process", wait, log, || Ok(gone().then_some(()))) {
            Err(LabError::Deadline { .. }) if name == Signal::SIGTERM => {}
            other => return other,
        }
    }
    Ok(())
}

/// Sends a signal; to a process that is gone it is no error.
fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Ok(number) = i32::try_from(pid) else { return Ok(()) };
    match kill(Pid::from_raw(number), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(LabError::system("signal process", pid)(io::Error::from(errno))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_process_is_ended_only_under_its_own_start_time() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let started = start_time(child.id()).expect("it runs");
        end(child.id(), started + 1, Duration::from_secs(1)).unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "another process under that number must be left alone");
        end(child.id(), started, Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(start_time(child.id()), None);
    }

    #[test]
    fn a_failing_program_says_why() {
        let error = run(Command::new("sh").args(["-c", "echo because >&2; exit 3"])).unwrap_err();
        assert_eq!(error.label(), "program");
        assert!(error.to_string().contains("because"), "{error}");
    }
}
