//! The order to end, seen by every part.

use tokio::sync::watch;

/// Ends one part or all; dropping it without a word ends them too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// One part's ear for [`Stopper`].
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A stopper and its first ear.
#[must_use]
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Gives the order; again is no change.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Ends when the order was given. Cancel-safe.
    pub async fn ordered(&mut self) {
        // An error means that the stopper is gone, which is an order too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the order was given.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        *self.0.borrow()
    }
}
