//! What is written down of an instance: a directory of its own below one that bears the owner's mark.
//!
//! The directory is there before anything else of the instance and goes last, so that nothing of it is ever without.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::driver::limits::create_all;
use crate::model::{InstanceId, OwnerId, Technology};

/// Above this length a console's text is dropped when somebody looks at the instance, but for what comes after.
const LONGEST_CONSOLE: u64 = 1 << 20;
/// Bytes of the console that an error tells.
const LAST_WORDS: u64 = 400;
/// Lines of them.
const LAST_LINES: usize = 3;

/// The directories of one owner's instances of one technology.
#[derive(Debug, Clone)]
pub(super) struct Records {
    root: PathBuf,
}

/// What is known of an instance without its process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its service, for people.
    pub service: String,
    /// The file that it was started from.
    pub image: String,
    /// Memory that it was started with, in MiB.
    #[serde(default)]
    pub memory_mib: u64,
}

impl Records {
    pub(super) fn new(directory: &Path, owner: &OwnerId, technology: Technology) -> Self {
        Self { root: directory.join(owner.as_str()).join(technology.label()) }
    }

    /// Makes an instance's directory with its record in it.
    pub(super) fn create(&self, id: &InstanceId, record: &Record) -> io::Result<Directory> {
        let directory = self.of(id);
        // Monitors run as another user, which reads its configuration here.
        create_all(|| fs::DirBuilder::new().recursive(true).mode(0o711).create(&directory.0))?;
        fs::write(directory.0.join("instance.json"), serde_json::to_vec(record)?)?;
        Ok(directory)
    }

    /// An instance's directory, there or not.
    pub(super) fn of(&self, id: &InstanceId) -> Directory {
        Directory(self.root.join(id.as_str()))
    }

    /// All instances that have one.
    pub(super) fn list(&self) -> io::Result<Vec<InstanceId>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            // What has another name is not ours.
            if let Ok(id) = InstanceId::new(entry?.file_name().to_string_lossy().into_owned()) {
                found.push(id);
            }
        }
        Ok(found)
    }
}

/// One instance's directory.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// The record; one that cannot be read (the daemon was killed while it wrote it) is an empty one.
    pub(super) fn read(&self) -> Record {
        let read = fs::read(self.0.join("instance.json")).ok();
        let record = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        record.unwrap_or_default()
    }

    /// Where a monitor's configuration is.
    pub(super) fn config(&self) -> PathBuf {
        self.0.join("vmm.json")
    }

    pub(super) fn write_config(&self, text: &str) -> io::Result<()> {
        fs::write(self.config(), text)
    }

    /// The console for a process to write to. Writers append, so that it can be shortened under them.
    pub(super) fn open_console(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o640).open(self.console())
    }

    /// Keeps the console within bounds.
    pub(super) fn bound_console(&self) -> io::Result<()> {
        match fs::metadata(self.console()) {
            Ok(metadata) if metadata.len() > LONGEST_CONSOLE => {
                OpenOptions::new().write(true).truncate(true).open(self.console()).map(drop)
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The last lines of the console in one; empty where nothing was said.
    pub(super) fn last_words(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.console())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
            let mut bytes = Vec::new();
            file.take(LAST_WORDS).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ")
    }

    /// Removes it; one that is gone is a success. The owner's directory goes with its last instance.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Refused where there are others.
        for above in self.0.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(above);
        }
        Ok(())
    }

    fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_is_an_instances_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path(), &OwnerId::from_number(1), Technology::Spt);
        assert_eq!(records.list().unwrap(), []);
        let id = InstanceId::from_number(7);
        let record = Record { service: "video".to_owned(), ..Record::default() };
        let directory = records.create(&id, &record).unwrap();
        fs::create_dir(records.root.join("Not ours")).unwrap();
        assert_eq!(records.list().unwrap(), [id]);
        assert_eq!(directory.read().service, "video");
        let other = Records::new(dir.path(), &OwnerId::from_number(2), Technology::Spt);
        assert_eq!(other.list().unwrap(), []);
        directory.remove().unwrap();
        directory.remove().unwrap();
        assert!(records.root.join("Not ours").exists());
    }

    #[test]
    fn a_console_stays_within_bounds_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path(), &OwnerId::from_number(1), Technology::Spt);
        let directory = records.create(&InstanceId::from_number(7), &Record::default()).unwrap();
        assert_eq!(directory.last_words(), "");
        let mut writer = directory.open_console().unwrap();
        writer.write_all(&vec![b'x'; LONGEST_CONSOLE as usize + 1]).unwrap();
        directory.bound_console().unwrap();
        writer.write_all(b"one\n\n two\n").unwrap();
        assert_eq!(directory.last_words(), "one | two");
        directory.bound_console().unwrap();
        assert_eq!(fs::metadata(directory.console()).unwrap().len(), 10);
    }
}
