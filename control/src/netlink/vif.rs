//! Interfaces that come and go with an instance, as a hypervisor's backend makes them: no request removes them.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::{Handle, MulticastGroup};

use super::error::{NetError, Result};
use super::link::{self, Link};

/// The backend goes right behind its domain; how long that may take at most.
const GOING: Duration = Duration::from_secs(10);

/// Removes a link; one that no request removes is waited for, for its instance has been ended.
pub(super) async fn remove(handle: &Handle, link: &Link) -> Result<()> {
    match link::remove(handle, link).await {
        Err(NetError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            until_gone(handle, link).await
        }
        removed => removed,
    }
}

/// Waits until a link is not there any more.
async fn until_gone(handle: &Handle, link: &Link) -> Result<()> {
    let refused = |operation, source| NetError::Refused { operation, object: link.name.clone(), source };
    let opened = rtnetlink::new_multicast_connection(&[MulticastGroup::Link]);
    let (connection, _, mut messages) = opened.map_err(|source| refused("wait for the end of", source))?;
    let listening = tokio::spawn(connection);
    let wait = async {
        while link::find(handle, &link.name).await?.is_some_and(|found| found.index == link.index) {
            // Without a socket there is only the deadline.
            if messages.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    };
    let waited = tokio::time::timeout(GOING, wait).await;
    listening.abort();
    waited.unwrap_or_else(|_| Err(refused("remove link", ErrorKind::ResourceBusy.into())))
}
