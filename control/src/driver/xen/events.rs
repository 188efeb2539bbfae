//! What happens to domains, as a driver tells it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use xen_manager::{Domain, Event, Events, Uuid};

use super::Xen;
use crate::driver::DriverEvent;

/// Until it is looked again whether Xen is there.
const RETRY: Duration = Duration::from_secs(1);

/// How far the stream is.
enum Stage {
    /// Nothing is watched; whether that has been told.
    Away { told: bool },
    /// Domains are watched.
    Watching(Box<Events>),
}

/// What the end of a domain means. That it has become an instance may be known to the pool alone yet.
fn over(driver: &Xen, domain: &Domain, cause: String) -> Option<DriverEvent> {
    let instance = driver.pool.instance(domain.uuid).or_else(|| driver.instance(&domain.name));
    let was_prepared = driver.pool.forget(domain.uuid);
    match instance {
        Some(id) => Some(DriverEvent::Exited { id, cause }),
        None => was_prepared.then_some(DriverEvent::Unprepared),
    }
}

/// Events of the driver's domains from the first poll on; ends that nobody has dealt with are told then.
pub(super) fn of(driver: &Xen) -> impl Stream<Item = DriverEvent> + Send + '_ {
    // Ends that were told: the domain goes later, which is no second end.
    let ended = BTreeSet::<Uuid>::new();
    unfold((Stage::Away { told: false }, ended), move |(mut stage, mut ended)| async move {
        loop {
            match stage {
                Stage::Away { told } => match driver.host().events().await {
                    Ok(events) => {
                        stage = Stage::Watching(Box::new(events));
                        if told {
                            return Some((DriverEvent::Back, (stage, ended)));
                        }
                    }
                    Err(_) if !told => return Some((DriverEvent::Lost, (Stage::Away { told: true }, ended))),
                    Err(_) => {
                        tokio::time::sleep(RETRY).await;
                        stage = Stage::Away { told };
                    }
                },
                Stage::Watching(mut events) => {
                    let told = match events.next().await {
                        Event::Appeared(_) => None,
                        Event::Lost => Some(DriverEvent::Lost),
                        Event::Back => Some(DriverEvent::Back),
                        Event::Ended(domain, end) => {
                            ended.insert(domain.uuid);
                            let cause = format!("the domain has ended: {}", end.label());
                            over(driver, &domain, cause)
                        }
                        Event::Gone(domain) if ended.remove(&domain.uuid) => {
                            driver.pool.forget(domain.uuid);
                            None
                        }
                        Event::Gone(domain) => {
                            let cause = "the domain was destroyed".to_owned();
                            over(driver, &domain, cause)
                        }
                    };
                    stage = Stage::Watching(events);
                    if let Some(told) = told {
                        return Some((told, (stage, ended)));
                    }
                }
            }
        }
    })
}
