//! Which Rollout to look at next: each at most once at a time, the most overdue first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// A Rollout's namespace and name.
pub type Key = (String, String);

/// Keys with the time at which each is due.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: BTreeMap<Key, Instant>,
    running: BTreeSet<Key>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a key after a while; an earlier appointment stays.
    pub fn add(&self, key: Key, after: Duration) {
        let at = Instant::now() + after;
        {
            let mut state = self.lock();
            let due = state.due.entry(key).or_insert(at);
            *due = at.min(*due);
        }
        self.changed.notify_one();
    }

    /// Keys that are due, and how long the one has waited that has been due for longest.
    pub fn waiting(&self) -> (usize, Duration) {
        let now = Instant::now();
        let state = self.lock();
        let due = state.due.values().filter(|at| **at <= now);
        let (count, oldest) = due.fold((0, now), |(count, oldest), at| (count + 1, oldest.min(*at)));
        (count, now - oldest)
    }

    /// The next key that is due and not being worked on, and how long it has waited since it was due. The caller says
    /// [`Queue::done`] afterwards.
    pub async fn next(&self) -> (Key, Duration) {
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut state = self.lock();
                let next = state
                    .due
                    .iter()
                    .filter(|(key, _)| !state.running.contains(*key))
                    .min_by_key(|(_, at)| **at)
                    .map(|(key, at)| (key.clone(), *at));
                match next {
                    Some((key, at)) if at <= Instant::now() => {
                        state.due.remove(&key);
                        state.running.insert(key.clone());
                        // Another worker may find more.
                        self.changed.notify_one();
                        return (key, at.elapsed());
                    }
                    other => other.map(|(_, at)| at),
                }
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        // In virtual time a run repeats exactly.
                        biased;
                        () = tokio::time::sleep_until(at) => {}
                        () = changed => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// The work on a key has ended.
    pub fn done(&self, key: &Key) {
        self.lock().running.remove(key);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ns".to_owned(), name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_comes_first_and_once_at_a_time() {
        let queue = Queue::default();
        queue.add(key("late"), Duration::from_secs(10));
        queue.add(key("soon"), Duration::from_secs(1));
        queue.add(key("late"), Duration::from_secs(20));
        let start = Instant::now();
        assert_eq!(queue.waiting(), (0, Duration::ZERO), "nothing is due");
        assert_eq!(queue.next().await.0, key("soon"));
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.add(key("soon"), Duration::ZERO);
        assert_eq!(queue.waiting().0, 1);
        let before = queue.waiting().1;
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(queue.waiting().1, before + Duration::from_secs(3), "nobody takes it, and it grows older");
        assert_eq!(queue.next().await.0, key("late"), "`soon` is being worked on");
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&key("soon"));
        let (next, waited) = queue.next().await;
        assert_eq!((next, waited.as_secs()), (key("soon"), 9));
        assert_eq!(queue.waiting().0, 0);
    }
}
