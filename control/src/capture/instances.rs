//! Which instance has an address, as the daemon says, if there is one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::api::client;

/// Beats between two questions to the daemon.
const PATIENCE: u32 = 5;

/// Longest wait for its answer.
const LONGEST: Duration = Duration::from_secs(1);

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its service.
    pub service: String,
    /// Its identifier.
    pub id: String,
}

/// What is known of instances.
pub struct Instances {
    socket: PathBuf,
    known: HashMap<IpAddr, Named>,
    /// An address was met that nobody has.
    missed: bool,
    beats: u32,
}

impl Instances {
    /// Of the daemon with this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), known: HashMap::new(), missed: false, beats: 0 }
    }

    /// Asks the daemon; without one what was known stays.
    pub async fn ask(&mut self) {
        // The kernel wants its beat, whatever the daemon does.
        let Ok(Ok(status)) = timeout(LONGEST, client::status(&self.socket)).await else { return };
        self.known.clear();
        for instance in status.services.values().flat_map(|service| &service.instances) {
            let instance = &instance.report.instance;
            let named = Named { service: instance.service.to_string(), id: instance.id.to_string() };
            self.known.extend(instance.addresses.iter().map(|address| (address, named.clone())));
        }
        (self.missed, self.beats) = (false, 0);
    }

    /// Asks it again, if that may help and was not done just before.
    pub async fn tick(&mut self) {
        self.beats += 1;
        if self.missed && self.beats >= PATIENCE {
            self.beats = 0;
            self.ask().await;
        }
    }

    /// Who has the first of these addresses that anybody has.
    pub fn of(&mut self, addresses: &[IpAddr]) -> Option<Named> {
        let found = addresses.iter().find_map(|address| self.known.get(address)).cloned();
        self.missed |= found.is_none() && !addresses.is_empty();
        found
    }
}
