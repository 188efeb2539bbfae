//! The configuration that was accepted last, kept beside the store: what the daemon starts with when the file is wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::api::Origin;
use crate::config::{self, Config, ConfigErrors};

/// The file inside the state directory.
const FILE_NAME: &str = "accepted.toml";

/// A configuration to start with.
pub(super) struct Loaded {
    pub config: Config,
    pub text: String,
    pub origin: Origin,
    /// What is wrong with the file, where that is not what is started with.
    pub problems: Vec<String>,
}

/// Reads the configuration file; where it is wrong, what was accepted last.
///
/// # Errors
/// What is wrong with the file, where nothing was accepted before, or that is wrong too by now.
pub(super) fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let name = path.display().to_string();
    let text = config::read(path);
    let errors = match text.as_deref().map(|text| config::parse(text, &name)) {
        Ok(Ok(config)) => {
            let text = text.unwrap_or_default();
            return Ok(Loaded { config, text, origin: Origin::File, problems: Vec::new() });
        }
        Ok(Err(errors)) => errors,
        Err(_) => match &text {
            Err(errors) => errors.clone(),
            Ok(_) => {
                return config::load(path).map(|config| Loaded {
                    config,
                    text: String::new(),
                    origin: Origin::File,
                    problems: Vec::new(),
                });
            }
        },
    };
    let place = place(&config::state_dir(text.as_deref().unwrap_or_default()));
    // Under the file's own name, from whose directory paths begin.
    let kept = config::read(&place).ok().and_then(|text| Some((config::parse(&text, &name).ok()?, text)));
    match kept {
        Some((config, text)) => {
            let problems = errors.list().iter().map(ToString::to_string).collect();
            Ok(Loaded { config, text, origin: Origin::LastAccepted, problems })
        }
        None => Err(errors),
    }
}

/// Keeps a configuration that is in force. It is whole or the one before.
pub(super) fn keep(state_dir: &Path, text: &str) -> std::io::Result<()> {
    let place = place(state_dir);
    if fs::read_to_string(&place).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    write_whole(&place, text, 0o600)
}

/// Replaces a file by another of the same name, so that a reader finds the old one or the new one.
pub(super) fn write_whole(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let new = path.with_extension("toml.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().inspect_err(|_| drop(fs::remove_file(&new)))
}

fn place(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_wrong_file_starts_with_what_was_accepted_last() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("selvedge.toml");
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let text = |more: &str| format!("[control]\nstate_dir = \"{}\"\n{more}", state.display());
        fs::write(&file, text("[node]\nname = \"a\"\n")).unwrap();
        let first = load(&file).unwrap();
        assert_eq!((first.config.node.as_str(), first.origin, first.problems.len()), ("a", Origin::File, 0));
        fs::write(&file, text("[node]\nname = 7\n")).unwrap();
        assert!(load(&file).is_err(), "nothing was accepted yet");
        keep(&state, &first.text).unwrap();
        keep(&state, &first.text).unwrap();
        for wrong in [text("[node]\nname = 7\n"), text("[node\n")] {
            fs::write(&file, wrong).unwrap();
            let last = load(&file).unwrap();
            assert_eq!((last.config.node.as_str(), last.origin), ("a", Origin::LastAccepted));
            assert!(last.problems[0].starts_with(&format!("{}:", file.display())), "{:?}", last.problems);
        }
        // What was accepted is wrong by now: the file's own faults are told.
        fs::write(place(&state), "x").unwrap();
        assert!(load(&file).is_err());
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }
}
