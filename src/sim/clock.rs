//! The cluster's clock.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Time as the in-memory cluster sees it: a fixed start plus what has passed on tokio's clock.
///
/// Under `tokio::time::pause` it is virtual and moves only when every task waits; otherwise it runs with real time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Timestamp,
    start: Instant,
}

impl Clock {
    /// A clock that shows `origin` now.
    pub fn starting_at(origin: Timestamp) -> Self {
        Self { origin, start: Instant::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// What this clock shows at a moment of tokio's clock.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let passed = SignedDuration::try_from(instant.saturating_duration_since(self.start)).unwrap_or_default();
        self.origin.saturating_add(passed).unwrap_or(self.origin)
    }
}

/// A timestamp as Kubernetes writes `metav1.Time`: UTC, whole seconds.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
