//! `selvedge clear`: everything that this installation made on the node, found by its marks and removed.

use std::path::Path;
use std::time::Duration;

use super::{StartError, driver, privileges};
use crate::config;
use crate::datapath::offline;
use crate::model::{Technology, in_full};
use crate::netlink::{Kind, Net};
use crate::store::{FILE_NAME, Store};

/// What an instance gets to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// What was found, and what of it could not be removed.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Each thing, for people.
    pub found: Vec<String>,
    /// What stays, and why.
    pub failed: Vec<String>,
}

impl Cleared {
    /// Notes a thing and what became of it.
    fn note<E: std::error::Error>(&mut self, what: String, outcome: Result<(), E>) {
        if let Err(error) = outcome {
            self.failed.push(format!("{what}: {}", in_full(&error)));
        }
        self.found.push(what);
    }
}

/// Finds everything that bears this installation's mark: program and tables first, so that nobody is sent to what
/// goes; then instances, ports, bridges, and the node's settings. With `remove` it goes; one failure does not keep
/// the rest. The store stays, with the mark.
///
/// # Errors
/// [`StartError`] where the configuration is wrong, privileges are missing, or the daemon runs.
pub async fn clear(config: &Path, remove: bool) -> Result<Cleared, StartError> {
    let config = config::load(config)?;
    privileges::check(&config)?;
    let store = Store::open(&config.control.state_dir.join(FILE_NAME))?;
    let owner = store.owner_id().clone();
    let net = Net::new(owner.clone())?;
    let mut cleared = Cleared::default();

    match offline::show(&config.dataplane.pin_dir) {
        Ok(shown) => {
            cleared.found.extend(shown.interfaces.iter().map(|i| format!("program on {}", i.status.interface)))
        }
        Err(error) => cleared.failed.push(in_full(&error)),
    }
    if remove && let Err(error) = offline::detach(&config.dataplane.pin_dir, None, true) {
        cleared.failed.push(in_full(&error));
    }
    for technology in Technology::ALL {
        let driver = driver(&config, technology, &owner, None);
        match driver.list_owned().await {
            Ok(owned) => {
                if remove && let Err(error) = driver.prepare(&[]).await {
                    cleared.failed.push(in_full(&error));
                }
                for instance in owned {
                    let what = format!("{} instance {} of {}", technology.label(), instance.id, instance.service);
                    let outcome = if remove { driver.stop(&instance.id, GRACE).await } else { Ok(()) };
                    cleared.note(what, outcome);
                }
            }
            // Only what the store knows of can be missing then.
            Err(error) if config.technologies_in_use().contains(&technology) => cleared.failed.push(in_full(&error)),
            Err(_) => {}
        }
    }
    let links = net.list_owned().await?;
    for id in links.iter().filter_map(|link| link.instance()) {
        let outcome = if remove { net.delete_port(id).await } else { Ok(()) };
        cleared.note(format!("port {}", id.interface()), outcome);
    }
    let parts = if remove { net.release().await } else { net.released().await };
    for change in parts? {
        cleared.found.push(format!("{} {}", change.object, change.name));
    }
    for bridge in links.iter().filter(|link| link.kind == Kind::Bridge) {
        let outcome = if remove { net.remove_bridge(&bridge.name).await } else { Ok(()) };
        cleared.note(format!("bridge {}", bridge.name), outcome);
    }
    let settings = store.settings()?;
    let words = settings.iter().map(|s| format!("setting {}: {} back to {}", s.path, s.after, s.before));
    cleared.found.extend(words);
    if remove {
        match net.restore(&settings) {
            Ok(()) => store.forget_settings()?,
            Err(error) => cleared.failed.push(in_full(&error)),
        }
        if cleared.failed.is_empty() {
            for instance in store.instances()? {
                store.remove_instance(&instance.id)?;
            }
        }
    }
    Ok(cleared)
}
