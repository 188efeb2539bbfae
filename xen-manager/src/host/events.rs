//! What happens to domains, told by the store's two signs: `@introduceDomain` and `@releaseDomain`. The signs do not say
//! of which domain they are, so each is followed by a look at all.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;

use super::{Host, Result, store};
use crate::domain::{Domain, DomainState, End};
use crate::error::Operation;
use crate::identity::Uuid;
use crate::store::Watch;
use crate::xl::Row;

/// Pause after a look that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A domain is there.
    Appeared(Domain),
    /// A domain has ended by itself; it holds its memory until it is destroyed.
    Ended(Domain, End),
    /// A domain is not there any more.
    Gone(Domain),
    /// The store is out of reach; domains may still run.
    Lost,
    /// It is back. What has happened meanwhile is told next.
    Back,
}

/// Events of one owner's domains, in order; from [`Host::events`].
#[derive(Debug)]
pub struct Events {
    host: Host,
    introduced: Watch,
    released: Watch,
    connection: watch::Receiver<u64>,
    /// Domains that are known to be there, and whether their end has been told.
    known: BTreeMap<Uuid, (Domain, bool)>,
    told: VecDeque<Event>,
    lost: bool,
    /// A look is due.
    due: bool,
}

impl Events {
    pub(super) async fn new(host: Host) -> Result<Self> {
        let watch = |sign| host.store.watch(sign).map_err(store(Operation::Observe, "*"));
        let (introduced, released) = (watch("@introduceDomain")?, watch("@releaseDomain")?);
        let connection = host.store.connection();
        let (known, told) = (BTreeMap::new(), VecDeque::new());
        let mut events = Self { host, introduced, released, connection, known, told, lost: false, due: false };
        events.host.reach(Operation::Observe, "*").await?;
        let rows = events.host.rows(Operation::Observe).await?;
        events.compare(rows);
        // Those that are there already are no news; an end that nobody has dealt with is.
        events.told.retain(|event| !matches!(event, Event::Appeared(_)));
        Ok(events)
    }

    /// The next event. Safe to drop.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.told.pop_front() {
                return event;
            }
            if self.due {
                match self.host.rows(Operation::Observe).await {
                    Ok(rows) => {
                        self.due = false;
                        self.compare(rows);
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "domains cannot be looked at"),
                }
            }
            tokio::select! {
                () = self.introduced.changed() => self.due = true,
                () = self.released.changed() => self.due = true,
                changed = self.connection.changed() => {
                    if changed.is_err() {
                        // The runtime goes down.
                        std::future::pending::<()>().await;
                    }
                    let there = *self.connection.borrow_and_update() != 0;
                    if there == self.lost {
                        self.told.push_back(if there { Event::Back } else { Event::Lost });
                        self.lost = !there;
                    }
                }
                () = tokio::time::sleep(PAUSE), if self.due => {}
            }
        }
    }

    /// What differs from what is known.
    fn compare(&mut self, rows: Vec<Row>) {
        let owner = Some(self.host.owner);
        let ours = |row: &Row| row.uuid.owner() == owner && row.state != DomainState::Dying;
        let now: BTreeMap<Uuid, Row> = rows.into_iter().filter(ours).map(|row| (row.uuid, row)).collect();
        let gone: Vec<Uuid> = self.known.keys().filter(|uuid| !now.contains_key(uuid)).copied().collect();
        for uuid in gone {
            if let Some((domain, _)) = self.known.remove(&uuid) {
                self.told.push_back(Event::Gone(domain));
            }
        }
        for (uuid, row) in now {
            let (domain, ended) = self.known.entry(uuid).or_insert_with(|| {
                let domain = Domain { id: row.id, uuid, name: row.name.clone() };
                self.told.push_back(Event::Appeared(domain.clone()));
                (domain, false)
            });
            // One that was made in advance may have got another.
            domain.name = row.name;
            if let Some(end) = row.end
                && !*ended
            {
                *ended = true;
                self.told.push_back(Event::Ended(domain.clone(), end));
            }
        }
    }
}
