//! A domain that was made in advance becomes what it is for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Entry, Host, Result, store};
use crate::domain::{Domain, DomainName};
use crate::error::{Error, Operation};
use crate::spec::Mac;
use crate::store::Change;

/// What a domain becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// Its name from now on.
    pub name: &'a DomainName,
    /// Its first interface's address. A guest whose driver has looked at the old one has to be told in its own way.
    pub mac: Mac,
    /// What is noted down of it, beside what was before.
    pub labels: BTreeMap<String, String>,
    /// What the guest finds in the store from now on.
    pub entries: Vec<Entry>,
}

impl Host {
    /// Gives a domain another name, address, notes and entries, all in one transaction. One that is held stays so. What
    /// [`Events`](super::Events) tell of it has the new name only from the next look at all domains on.
    ///
    /// # Errors
    /// [`Error::NameTaken`] where another domain has the name; else [`Error`]. Nothing has changed then.
    pub async fn assign(&self, domain: &Domain, assignment: &Assignment<'_>) -> Result<Domain> {
        const OPERATION: Operation = Operation::Configure;
        let name = assignment.name.as_str();
        self.expect(OPERATION, domain).await?;
        for id in self.ids().await.map_err(store(OPERATION, domain))? {
            let path = format!("/local/domain/{id}/name");
            let other = self.store.read_text(&path).await.map_err(store(OPERATION, domain))?;
            if id != domain.id && other.as_deref() == Some(name) {
                return Err(Error::NameTaken { domain: name.to_owned(), by: id });
            }
        }
        let write = |path: String, value: &str| Change::Write { path, value: value.as_bytes().to_vec(), access: None };
        let mac = assignment.mac.to_string();
        // Where libxl keeps them. The first one is what `xl` shows.
        let own = [
            write(format!("{}/name", domain.path()), name),
            write(format!("/vm/{}/name", domain.uuid), name),
            write(format!("{}/device/vif/0/mac", domain.path()), &mac),
            write(format!("{}/mac", domain.backend(0)), &mac),
        ];
        self.write_down(domain, &assignment.labels, &assignment.entries, own).await?;
        Ok(Domain { name: name.to_owned(), ..domain.clone() })
    }

    /// Waits until a guest has written an entry below its own, as `data/ready`; its value.
    ///
    /// # Errors
    /// [`Error::Gone`] where the guest ends instead, [`Error::Deadline`] where it does neither within `deadline`; else
    /// [`Error`].
    pub async fn written(&self, domain: &Domain, entry: &str, deadline: Duration) -> Result<String> {
        const OPERATION: Operation = Operation::Observe;
        let path = format!("{}/{entry}", domain.path());
        let watch = |path: &str| self.store.watch(path).map_err(store(OPERATION, domain));
        let (mut changes, mut ends) = (watch(&path)?, watch("@releaseDomain")?);
        let wait = async {
            loop {
                tokio::select! {
                    () = changes.changed() => {
                        let text = self.store.read_text(&path).await.map_err(store(OPERATION, domain))?;
                        if let Some(text) = text {
                            return Ok(text);
                        }
                    }
                    () = ends.changed() => {
                        let row = self.look(domain).await?;
                        if !row.is_some_and(|row| row.state.is_alive()) {
                            return Err(Error::Gone { operation: OPERATION, domain: domain.to_string() });
                        }
                    }
                }
            }
        };
        let late = Error::Deadline { operation: OPERATION, domain: domain.to_string(), after: deadline };
        tokio::time::timeout(deadline, wait).await.unwrap_or(Err(late))
    }
}
