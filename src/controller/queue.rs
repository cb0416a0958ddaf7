//! Which Rollout to look at next: each at most once at a time, the most overdue first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    due: BTreeMap<Arc<Key>, Instant>,
    /// The same, the earliest first.
    order: BTreeSet<(Instant, Arc<Key>)>,
    running: BTreeSet<Key>,
}

impl State {
    fn add(&mut self, key: Key, at: Instant) {
        let key = match self.due.get_key_value(&key) {
            Some((_, known)) if *known <= at => return,
            Some((key, known)) => {
                let key = key.clone();
                self.order.remove(&(*known, key.clone()));
                key
            }
            None => Arc::new(key),
        };
        self.due.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// What is due first of all that is not being worked on.
    fn first(&self) -> Option<(Instant, Arc<Key>)> {
        self.order.iter().find(|(_, key)| !self.running.contains(&**key)).cloned()
    }

    fn take(&mut self, at: Instant, key: Arc<Key>) -> Key {
        self.due.remove(&key);
        self.order.remove(&(at, key.clone()));
        let key = Arc::unwrap_or_clone(key);
        self.running.insert(key.clone());
        key
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a key after a while; an earlier appointment stays.
    pub fn add(&self, key: Key, after: Duration) {
        let at = Instant::now() + after;
        self.lock().add(key, at);
        self.changed.notify_one();
    }

    /// Keys that are due, and how long the one has waited that has been due for longest.
    pub fn waiting(&self) -> (usize, Duration) {
        let now = Instant::now();
        let state = self.lock();
        let due = state.order.iter().take_while(|(at, _)| *at <= now);
        let oldest = state.order.first().map_or(now, |(at, _)| *at);
        (due.count(), now.saturating_duration_since(oldest))
    }

    /// The next key that is due and not being worked on, and how long it has waited since it was due. The caller says
    /// [`Queue::done`] afterwards.
    pub async fn next(&self) -> (Key, Duration) {
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut state = self.lock();
                match state.first() {
                    Some((at, key)) if at <= Instant::now() => {
                        let key = state.take(at, key);
                        // Another worker may find more.
                        self.changed.notify_one();
                        return (key, at.elapsed());
                    }
                    other => other.map(|(at, _)| at),
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
