//! The network: requests and responses get lost, and some arrive late.

use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::world::World;

/// How long a request waits for its response.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a request that has got no response may still arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// Up to a minute later.
    Any,
    /// Never: it is lost, or arrives in time.
    None,
}

impl World {
    /// Sends a request, and returns its response. Without one the request may have been handled, or may be later.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        random: &mut fastrand::Rng,
        lateness: Lateness,
        handled: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (request, response) = (self.delay(random, lateness), self.delay(random, lateness));
        let Some(request) = request else {
            sleep(TIMEOUT).await;
            return None;
        };
        if request > TIMEOUT {
            self.count(|counts| counts.late += 1);
        }
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            sleep(request).await;
            let result = handled.await;
            sleep(response.unwrap_or(2 * TIMEOUT)).await;
            let _ = sender.send(result);
        });
        timeout(TIMEOUT, receiver).await.ok()?.ok()
    }

    /// Returns how long a message takes; `None` for one that gets lost.
    fn delay(&self, random: &mut fastrand::Rng, lateness: Lateness) -> Option<Duration> {
        let usual = Duration::from_millis(random.u64(1..12));
        if !self.is_chaos() {
            return Some(usual);
        }
        match (random.u32(0..100), lateness) {
            (0..4, _) => None,
            (4, Lateness::Any) => Some(Duration::from_millis(random.u64(5_000..60_000))),
            (5..9, Lateness::Any) => Some(Duration::from_millis(random.u64(100..4_000))),
            _ => Some(usual),
        }
    }
}
