//! The reference unikernel and the tenders that start it, as `make unikernel` builds them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::driver::unikernel::Settings;
use control::model::Technology;

use super::error::{LabError, Result};
use super::process;

/// What `make unikernel` makes.
const FILES: [&str; 6] =
    ["solo5-spt", "solo5-hvt", "unikernel.spt", "unikernel.hvt", "unikernel.pvh", "unikernel-disk.spt"];

/// Copies of what was built, in a directory that monitors may enter: a checkout below a home is closed to them.
#[derive(Debug)]
pub struct Unikernels {
    directory: PathBuf,
}

impl Unikernels {
    /// Copies them below `directory`, which is made to be entered by everybody. `None` where they have not been
    /// built; that `test` is skipped has been said then.
    ///
    /// # Errors
    /// [`LabError`] where they cannot be copied.
    pub fn copy(directory: &Path, test: &str) -> Result<Option<Self>> {
        let own = std::env::current_exe().map_err(LabError::system("find", "this program"))?;
        let built = own.ancestors().skip(1).map(|above| above.join("unikernel"));
        let complete = |built: &PathBuf| FILES.iter().all(|file| built.join(file).is_file());
        let Some(built) = built.into_iter().find(complete) else {
            println!("SKIPPED (no unikernel; run make unikernel): {test}");
            return Ok(None);
        };
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory, all).map_err(LabError::system("open", directory.display()))?;
        for file in FILES {
            let (from, to) = (built.join(file), directory.join(file));
            fs::copy(&from, &to).map_err(LabError::system("copy", from.display()))?;
        }
        Ok(Some(Self { directory: directory.to_owned() }))
    }

    /// The image for a technology.
    #[must_use]
    pub fn image(&self, technology: Technology) -> PathBuf {
        self.directory.join(match technology {
            Technology::Spt => "unikernel.spt",
            Technology::Hvt => "unikernel.hvt",
            _ => "unikernel.pvh",
        })
    }

    /// The image for a technology's instance with a disk.
    #[must_use]
    pub fn image_with_disk(&self, technology: Technology) -> PathBuf {
        match technology {
            Technology::Spt => self.directory.join("unikernel-disk.spt"),
            // It looks for one by itself.
            other => self.image(other),
        }
    }

    /// The program that starts it.
    #[must_use]
    pub fn monitor(&self, technology: Technology) -> PathBuf {
        match technology {
            Technology::Spt => self.directory.join("solo5-spt"),
            Technology::Hvt => self.directory.join("solo5-hvt"),
            _ => PathBuf::from("/usr/bin/qemu-system-x86_64"),
        }
    }

    /// Processes of the Solo5 tender for `spt` that were started from here.
    #[must_use]
    pub fn tenders(&self) -> Vec<u32> {
        let program = self.monitor(Technology::Spt);
        let ours = |pid: &u32| process::arguments(*pid).first().is_some_and(|first| Path::new(first) == program);
        process::all().into_iter().filter(ours).collect()
    }

    /// Settings of a driver whose instances' directories are in the same place.
    #[must_use]
    pub fn settings(&self, technology: Technology) -> Settings {
        Settings {
            program: self.monitor(technology),
            accelerator: "tcg".to_owned(),
            user: "nobody".to_owned(),
            directory: self.directory.join("instances"),
        }
    }
}

/// Tenders that a failed test left end with it.
impl Drop for Unikernels {
    fn drop(&mut self) {
        for pid in self.tenders() {
            if let Some(started) = process::start_time(pid)
                && let Err(error) = process::end(pid, started, Duration::ZERO)
            {
                eprintln!("lab: {error}");
            }
        }
    }
}
