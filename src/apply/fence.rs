//! Until when this process may write: the end of its term as the leader, as far as it has been confirmed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells the time of the wall.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The right to write. Clones share it; once it was lost it does not come back, a new term has a new fence.
///
/// Two clocks are asked, and the one that says less time is left counts: the monotonic clock does not run while a
/// machine is suspended, and the wall clock may be set back. Only differences count, so a wrong clock does no harm.
#[derive(Clone)]
pub struct Fence(Option<Arc<Term>>);

struct Term {
    clock: Clock,
    end: Mutex<Option<End>>,
}

#[derive(Clone, Copy)]
struct End {
    monotonic: Instant,
    wall: Timestamp,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fence").field(&self.left()).finish()
    }
}

impl Fence {
    /// No fence: for a process that is the only one.
    pub fn none() -> Self {
        Fence(None)
    }

    /// The right to write for `time` from now on.
    pub fn new(clock: Clock, time: Duration) -> Self {
        let end = End { monotonic: Instant::now() + time, wall: later(clock(), time) };
        Fence(Some(Arc::new(Term { clock, end: Mutex::new(Some(end)) })))
    }

    /// A moment to reckon [`Fence::extend`] from: taken before the request that confirms the term is sent.
    pub fn now(&self) -> Moment {
        Moment(Instant::now(), self.0.as_ref().map(|term| (term.clock)()))
    }

    /// The term was confirmed by a request begun at `from`: it lasts for `time` from then on. `false` if it had ended.
    pub fn extend(&self, from: Moment, time: Duration) -> bool {
        let (Some(term), Some(wall)) = (&self.0, from.1) else { return true };
        if self.left().is_none() {
            return false;
        }
        *term.lock() = Some(End { monotonic: from.0 + time, wall: later(wall, time) });
        true
    }

    /// Gives the right up.
    pub fn close(&self) {
        if let Some(term) = &self.0 {
            *term.lock() = None;
        }
    }

    /// For how long a write may still take; `None` when the right is lost.
    pub fn left(&self) -> Option<Duration> {
        let Some(term) = &self.0 else { return Some(Duration::MAX) };
        let end = { *term.lock() }?;
        let monotonic = end.monotonic.saturating_duration_since(Instant::now());
        let wall = Duration::try_from(end.wall.duration_since((term.clock)())).unwrap_or(Duration::ZERO);
        let left = monotonic.min(wall);
        if left.is_zero() {
            // A wall clock that is set back later does not open it again.
            self.close();
            return None;
        }
        Some(left)
    }
}

/// See [`Fence::now`].
#[derive(Clone, Copy, Debug)]
pub struct Moment(Instant, Option<Timestamp>);

impl Term {
    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn later(from: Timestamp, time: Duration) -> Timestamp {
    from.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A wall clock that is set by hand, in seconds.
    fn wall() -> (Arc<AtomicI64>, Clock) {
        let seconds = Arc::new(AtomicI64::new(1_000_000));
        let shown = seconds.clone();
        (seconds, Arc::new(move || Timestamp::new(shown.load(Ordering::SeqCst), 0).unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_the_monotonic_clock_while_the_wall_clock_stands_still() {
        let fence = Fence::new(wall().1, 7 * SECOND);
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(fence.left(), Some(2 * SECOND));
        let from = fence.now();
        tokio::time::advance(SECOND).await;
        assert!(fence.extend(from, 7 * SECOND));
        assert_eq!(fence.left(), Some(6 * SECOND), "reckoned from before the request");
        tokio::time::advance(6 * SECOND).await;
        assert_eq!(fence.left(), None);
        assert!(!fence.extend(fence.now(), 7 * SECOND), "a late confirmation does not open it again");
        assert_eq!(fence.left(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_the_wall_clock_when_the_machine_was_suspended() {
        let (seconds, clock) = wall();
        let fence = Fence::new(clock, 7 * SECOND);
        seconds.fetch_add(60, Ordering::SeqCst);
        assert_eq!(fence.left(), None);
        seconds.fetch_sub(60, Ordering::SeqCst);
        assert_eq!(fence.left(), None, "a clock that is set back does not open it again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_gives_no_time() {
        let (seconds, clock) = wall();
        let fence = Fence::new(clock, 7 * SECOND);
        seconds.fetch_sub(3600, Ordering::SeqCst);
        tokio::time::advance(7 * SECOND).await;
        assert_eq!(fence.left(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_reaches_all_clones_and_none_is_for_ever() {
        let fence = Fence::new(wall().1, 7 * SECOND);
        let clone = fence.clone();
        fence.close();
        assert_eq!((clone.left(), Fence::none().left()), (None, Some(Duration::MAX)));
    }
}
