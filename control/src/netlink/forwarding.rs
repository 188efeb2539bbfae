//! Forwarding between the clients' side and the bridges: a setting of the whole node, so it is changed
//! only where it is off, and every change is told with what was there before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{NetError, Result};
use crate::model::SettingChange;

/// `/proc/sys/net` shows the namespace of the task that asks. All these calls are therefore made in the task's
/// own thread and never handed to a pool of threads, which could stand in another namespace.
const ROOT: &str = "/proc/sys/net";

/// Turns IPv4 forwarding on.
pub(super) fn enable_v4(bridge: &str) -> Result<Vec<SettingChange>> {
    let mut changes = Vec::new();
    // The node's switch sets all interfaces, the bridge's own one included, so it goes first.
    changes.extend(set("ipv4/ip_forward", "1")?);
    changes.extend(set(&format!("ipv4/conf/{bridge}/forwarding"), "1")?);
    Ok(changes)
}

/// Turns IPv6 forwarding on, without losing routes that the node learns from router advertisements:
/// a forwarding node takes them only where `accept_ra` is 2.
pub(super) fn enable_v6(bridge: &str) -> Result<Vec<SettingChange>> {
    let mut changes = Vec::new();
    if read("ipv6/conf/all/forwarding")? != "1" {
        for interface in interfaces()? {
            if interface == bridge || interface == "lo" {
                continue;
            }
            let setting = format!("ipv6/conf/{interface}/accept_ra");
            match read(&setting) {
                Ok(value) if value == "1" => changes.extend(set(&setting, "2")?),
                Ok(_) => {}
                // The interface went away since it was listed.
                Err(NetError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        changes.extend(set("ipv6/conf/all/forwarding", "1")?);
    }
    changes.extend(set(&format!("ipv6/conf/{bridge}/forwarding"), "1")?);
    Ok(changes)
}

/// Puts back what [`SettingChange`]s say, newest first. A setting that has another value by now was changed by
/// somebody else and stays, as does one whose interface is gone.
pub(super) fn restore(changes: &[SettingChange]) -> Result<()> {
    let mut first = Ok(());
    for change in changes.iter().rev() {
        let done = match read(&change.path) {
            Ok(value) if value == change.after => set(&change.path, &change.before).map(drop),
            Ok(_) => Ok(()),
            Err(NetError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        first = first.and(done);
    }
    first
}

/// Sets one value if it is another one, and says so.
pub(super) fn set(setting: &str, value: &str) -> Result<Option<SettingChange>> {
    let before = read(setting)?;
    if before == value {
        return Ok(None);
    }
    let path = path_of(setting);
    fs::write(&path, value).map_err(|source| failed("write", &path, source))?;
    Ok(Some(SettingChange { path: setting.to_owned(), before, after: value.to_owned() }))
}

/// One value.
pub(super) fn read(setting: &str) -> Result<String> {
    let path = path_of(setting);
    let text = fs::read_to_string(&path).map_err(|source| failed("read", &path, source))?;
    Ok(text.trim().to_owned())
}

fn path_of(setting: &str) -> PathBuf {
    Path::new(ROOT).join(setting)
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> NetError {
    NetError::Setting { operation, path: path.display().to_string(), source }
}

/// Interfaces with IPv6 settings, without the two that stand for others.
fn interfaces() -> Result<Vec<String>> {
    let dir = path_of("ipv6/conf");
    let entries = fs::read_dir(&dir).map_err(|source| failed("read", &dir, source))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name != "all" && name != "default").collect())
}
