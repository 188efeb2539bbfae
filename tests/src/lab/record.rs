//! What a lab has made, on disk, so that a run that was killed can be undone by the next one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::docker::Engine;
use super::error::{LabError, Result};
use super::netns::Namespace;
use super::process;

/// Processes of a lab are started with this variable set to their record's path, so that one that was started but
/// not yet recorded is found, too.
const VARIABLE: &str = "SELVEDGE_LAB_RECORD";

/// One thing that a lab made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Thing {
    /// A process, by number and start time.
    Process {
        /// Its number.
        pid: u32,
        /// Its start time in ticks since boot.
        started: u64,
        /// What it is, for people.
        name: String,
    },
    /// A container engine with everything below `dir`.
    Engine {
        /// The directory that it was started with.
        dir: PathBuf,
    },
    /// A network namespace.
    Namespace {
        /// Its name.
        name: String,
    },
    /// A directory of pinned BPF objects.
    Pins {
        /// Its path, below a BPF file system.
        path: PathBuf,
    },
    /// A directory with everything in it.
    Directory {
        /// Its path.
        path: PathBuf,
    },
}

impl Thing {
    /// The order of removal: what uses others goes before them.
    const fn rank(&self) -> u8 {
        match self {
            Self::Process { .. } => 0,
            Self::Engine { .. } => 1,
            Self::Namespace { .. } => 2,
            Self::Pins { .. } => 3,
            Self::Directory { .. } => 4,
        }
    }

    /// Removes it; what is gone already is a success.
    fn remove(&self) -> Result<()> {
        match self {
            Self::Process { pid, started, .. } => process::end(*pid, *started, Duration::from_secs(5)),
            Self::Engine { dir } => Engine::clean_up(dir),
            Self::Namespace { name } => Namespace::remove(name),
            Self::Pins { path } | Self::Directory { path } => match fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(LabError::system("remove directory", path.display())(error))
                }
                _ => Ok(()),
            },
        }
    }
}

/// The list of what was made, kept on disk.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    things: Vec<Thing>,
}

impl Record {
    /// Starts a new, empty record.
    ///
    /// # Errors
    /// [`LabError`] where the file is there already (the earlier run is not cleaned up) or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let made = File::options().write(true).create_new(true).open(path);
        made.map_err(LabError::system("make lab record", path.display()))?;
        let record = Self { path: path.to_owned(), things: Vec::new() };
        record.write()?;
        Ok(record)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a thing that is about to be made.
    ///
    /// # Errors
    /// [`LabError`]; then it should not be made.
    pub fn add(&mut self, thing: Thing) -> Result<()> {
        if !self.things.contains(&thing) {
            self.things.push(thing);
            self.write()?;
        }
        Ok(())
    }

    /// Takes a thing off that was removed.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn forget(&mut self, thing: &Thing) -> Result<()> {
        self.things.retain(|known| known != thing);
        self.write()
    }

    /// Starts a process and notes it.
    ///
    /// # Errors
    /// [`LabError`]; a process that could not be noted is ended.
    pub fn spawn(&mut self, name: &str, command: &mut Command) -> Result<std::process::Child> {
        let mut child = command.env(VARIABLE, &self.path).spawn().map_err(LabError::system("start", name))?;
        if let Some(started) = process::start_time(child.id()) {
            let noted = self.add(Thing::Process { pid: child.id(), started, name: name.to_owned() });
            if let Err(error) = noted {
                let ended = child.kill().and_then(|()| child.wait());
                ended.map_err(LabError::system("end", name))?;
                return Err(error);
            }
        }
        Ok(child)
    }

    /// Removes everything in it, and the record.
    ///
    /// # Errors
    /// As [`clean_up`].
    pub fn remove(self) -> std::result::Result<(), Vec<LabError>> {
        clean_up(&self.path)
    }

    /// Ends the processes that are on it, so that nobody makes anything new while the rest is removed.
    pub fn end_processes(&self) {
        for thing in self.things.iter().filter(|thing| matches!(thing, Thing::Process { .. })) {
            // What cannot be ended is told when the record is removed.
            let _ = thing.remove();
        }
    }

    /// Written beside and renamed: a reader sees the old list or the new one.
    fn write(&self) -> Result<()> {
        let beside = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            serde_json::to_writer_pretty(&mut file, &self.things)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        write().map_err(LabError::system("write lab record", self.path.display()))
    }
}

/// Removes whatever is left of the run that kept this record, then the record. No record is a success.
///
/// # Errors
/// Everything that could not be removed; the record stays then, and this can be called again.
pub fn clean_up(path: &Path) -> std::result::Result<(), Vec<LabError>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(vec![LabError::system("read lab record", path.display())(error)]),
    };
    // A record that was made but never written to is empty, and so is the lab.
    let parsed = if text.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str::<Vec<Thing>>(&text) };
    let mut things = match parsed {
        Ok(things) => things,
        Err(error) => return Err(vec![LabError::system("read lab record", path.display())(error.into())]),
    };
    // Newest first within a rank.
    things.reverse();
    things.sort_by_key(Thing::rank);
    let mut errors: Vec<LabError> = unrecorded(path).iter().chain(&things).filter_map(|t| t.remove().err()).collect();
    if errors.is_empty() {
        let removed = fs::remove_file(path).map_err(LabError::system("remove lab record", path.display()));
        errors.extend(removed.err());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Processes that were started for this record; finds also those that it does not list.
fn unrecorded(path: &Path) -> Vec<Thing> {
    let mark = format!("{VARIABLE}={}", path.display());
    let ours = process::all().into_iter().filter(|pid| *pid != std::process::id());
    let ours = ours.filter(|pid| process::environment(*pid).contains(&mark));
    ours.filter_map(|pid| {
        let started = process::start_time(pid)?;
        Some(Thing::Process { pid, started, name: "unrecorded".to_owned() })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_killed_run_is_undone_by_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        let mut record = Record::create(&path).unwrap();
        assert!(Record::create(&path).is_err(), "a record of an earlier run must not be overwritten");

        let left = dir.path().join("left");
        record.add(Thing::Directory { path: left.clone() }).unwrap();
        fs::create_dir_all(left.join("deep")).unwrap();
        let mut listed = record.spawn("sleeper", Command::new("sleep").arg("600")).unwrap();
        // As if the run had been killed between starting a process and noting it.
        let mut unlisted = Command::new("sleep").arg("600").env(VARIABLE, &path).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        drop(record);
        // A new program runs before the kernel shows its environment.
        while process::environment(unlisted.id()).is_empty() {
            std::thread::yield_now();
        }

        clean_up(&path).map_err(|errors| format!("{errors:?}")).unwrap();
        assert!(!left.exists() && !path.exists());
        assert!(listed.wait().unwrap().code().is_none() && unlisted.wait().unwrap().code().is_none());
        assert_eq!(stranger.try_wait().unwrap(), None, "a process of another's must be left alone");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        clean_up(&path).map_err(|errors| format!("{errors:?}")).unwrap();
    }

    #[test]
    fn a_number_that_was_used_again_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        let mut record = Record::create(&path).unwrap();
        let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
        let started = process::start_time(stranger.id()).unwrap() + 1;
        record.add(Thing::Process { pid: stranger.id(), started, name: "old".to_owned() }).unwrap();
        record.remove().map_err(|errors| format!("{errors:?}")).unwrap();
        assert_eq!(stranger.try_wait().unwrap(), None);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
