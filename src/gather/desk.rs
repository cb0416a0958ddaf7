//! Questions to others than the API server, asked beside the loop: a decision says what it wants to know and from when on,
//! and reads the answer in a later snapshot.
//!
//! One task a question waits until it is due and asks once. Who asks the same at the same time shares it. The next
//! question is the decision's again, so that nothing is asked more often than it says, or for a release that has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{cache::Change, pods::Key};

/// Questions of one kind that are asked at the same time.
pub(super) const AT_ONCE: usize = 16;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A question of a plan.
pub trait Question: Clone + Send + Sync + 'static {
    /// What comes of it.
    type Answer: Clone + Send + Sync + 'static;

    /// Two with the same id, due at the same time, are one.
    fn id(&self) -> &str;

    /// Not before; and an answer from before is none to this question.
    fn due(&self) -> Timestamp;
}

/// Who answers.
pub trait Answerer<Q: Question>: Send + Sync {
    /// Asks once, at this moment. Whatever goes wrong is an answer as well.
    fn answer<'a>(&'a self, question: &'a Q, at: Timestamp) -> BoxFuture<'a, Q::Answer>;
}

type Id = (String, Timestamp);

struct Asked<A> {
    /// The Rollouts that want to know.
    who: BTreeSet<Key>,
    answer: Option<A>,
    stop: CancellationToken,
}

struct Table<A> {
    questions: BTreeMap<Id, Asked<A>>,
    by_rollout: BTreeMap<Key, Vec<Id>>,
}

/// The questions of one kind. Cloning shares them.
pub struct Desk<Q: Question>(Arc<Inner<Q>>);

impl<Q: Question> Clone for Desk<Q> {
    fn clone(&self) -> Self {
        Desk(self.0.clone())
    }
}

struct Inner<Q: Question> {
    answerer: Box<dyn Answerer<Q>>,
    clock: Clock,
    table: Mutex<Table<Q::Answer>>,
    slots: Semaphore,
    changes: mpsc::UnboundedSender<Change>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl<Q: Question> Desk<Q> {
    pub(super) fn new(
        answerer: Box<dyn Answerer<Q>>,
        clock: Clock,
        changes: mpsc::UnboundedSender<Change>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Desk<Q> {
        let table = Mutex::new(Table { questions: BTreeMap::new(), by_rollout: BTreeMap::new() });
        Desk(Arc::new(Inner { answerer, clock, table, slots: Semaphore::new(AT_ONCE), changes, stop, tasks }))
    }

    fn lock(&self) -> MutexGuard<'_, Table<Q::Answer>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a Rollout wants to know now; nothing else any more.
    pub fn want(&self, key: &Key, questions: Vec<Q>) {
        let mut table = self.lock();
        let id = |question: &Q| (question.id().to_owned(), question.due());
        let before = table.by_rollout.remove(key).unwrap_or_default();
        for gone in before.into_iter().filter(|old| questions.iter().all(|question| id(question) != *old)) {
            if let Some(asked) = table.questions.get_mut(&gone) {
                asked.who.remove(key);
                if asked.who.is_empty() {
                    asked.stop.cancel();
                    table.questions.remove(&gone);
                }
            }
        }
        if questions.is_empty() {
            return;
        }
        table.by_rollout.insert(key.clone(), questions.iter().map(id).collect());
        for question in questions {
            let asked = table.questions.entry(id(&question)).or_insert_with(|| {
                let stop = self.0.stop.child_token();
                let (desk, stopped) = (self.clone(), stop.clone());
                self.0.tasks.spawn(async move { stopped.run_until_cancelled(desk.ask(question)).await });
                Asked { who: BTreeSet::new(), answer: None, stop }
            });
            // Who comes when the answer is there already hears of it at once, and once.
            if asked.who.insert(key.clone()) && asked.answer.is_some() {
                let _ = self.0.changes.send(Change::Answered(key.clone()));
            }
        }
    }

    /// The answers to what a Rollout wants to know, by the id of the question, as far as they are there.
    pub fn answers(&self, key: &Key) -> BTreeMap<String, Q::Answer> {
        let table = self.lock();
        let ids = table.by_rollout.get(key).into_iter().flatten();
        ids.filter_map(|id| Some((id.0.clone(), table.questions.get(id)?.answer.clone()?))).collect()
    }

    /// Questions that somebody wants to know about.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().questions.len()
    }

    async fn ask(self, question: Q) {
        let Inner { answerer, clock, slots, changes, .. } = &*self.0;
        let wait = question.due().duration_since(clock());
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        let Ok(_slot) = slots.acquire().await else { return };
        let at = clock().max(question.due());
        let answer = answerer.answer(&question, at).await;
        let who = {
            let mut table = self.lock();
            let Some(asked) = table.questions.get_mut(&(question.id().to_owned(), question.due())) else { return };
            asked.answer = Some(answer);
            asked.who.clone()
        };
        for key in who {
            // Nobody listens any more when the controller stops.
            let _ = changes.send(Change::Answered(key));
        }
    }
}
