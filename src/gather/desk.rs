//! Questions to others than the API server, asked beside the loop: a decision says what it wants to know and from when on,
//! and reads the answer in a later snapshot.
//!
//! One task a question waits until it is due and asks once. Who asks the same at the same time shares it. The next
//! question is the decision's again, so that nothing is asked for a release that has ended. What was asked is remembered for
//! as long as it may not be asked again: a pass that stalls wants to know nothing, and the one after it the same as before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
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

    /// When it is asked that was due before `begun`, when whoever asks began: perhaps somebody before him has asked it, and
    /// was stopped before the answer was kept.
    fn resumes(&self, _begun: Timestamp) -> Timestamp {
        self.due()
    }

    /// How long it is not asked again, whoever wants to know.
    fn rests(&self) -> SignedDuration {
        SignedDuration::ZERO
    }
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
    /// It is being asked: then it is asked to the end, and whoever comes back finds it.
    is_begun: bool,
    stop: CancellationToken,
}

/// A question that was asked a while ago.
struct Recent<A> {
    at: Timestamp,
    until: Timestamp,
    /// Absent while it is being asked.
    answer: Option<A>,
}

struct Table<A> {
    questions: BTreeMap<Id, Asked<A>>,
    by_rollout: BTreeMap<Key, Vec<Id>>,
    /// By the id of the question.
    recent: BTreeMap<String, Recent<A>>,
    /// As many of them are looked through for old ones.
    most_recent: usize,
}

/// What is done about a question that is due.
enum Turn<A> {
    Ask,
    Wait(SignedDuration),
    Known(A),
    /// Nobody wants to know any more.
    Leave,
}

impl<A: Clone> Table<A> {
    /// Whether a question is asked at this moment; from then on it counts as asked.
    fn turn<Q: Question<Answer = A>>(&mut self, question: &Q, now: Timestamp) -> Turn<A> {
        let Some(asked) = self.questions.get_mut(&(question.id().to_owned(), question.due())) else {
            return Turn::Leave;
        };
        // After a clock that was set back nothing is known of the time until then.
        if let Some(last) = self.recent.get(question.id())
            && last.at <= now
            && now < last.until
        {
            return match &last.answer {
                Some(answer) if last.at >= question.due() => Turn::Known(answer.clone()),
                _ => Turn::Wait(last.until.duration_since(now)),
            };
        }
        asked.is_begun = true;
        if let Ok(until) = now.checked_add(question.rests())
            && until > now
        {
            self.recent.insert(question.id().to_owned(), Recent { at: now, until, answer: None });
        }
        if self.recent.len() > self.most_recent {
            self.recent.retain(|_, recent| recent.at <= now && now < recent.until);
            self.most_recent = 2 * self.recent.len() + 64;
        }
        Turn::Ask
    }

    /// Takes in an answer; who is to be told, and what.
    fn answered<Q: Question<Answer = A>>(&mut self, question: &Q, answer: A, now: Timestamp) -> Vec<Change> {
        if let Some(recent) = self.recent.get_mut(question.id()) {
            recent.answer = Some(answer.clone());
        }
        let id = (question.id().to_owned(), question.due());
        let Some(asked) = self.questions.get_mut(&id) else { return Vec::new() };
        if asked.who.is_empty() {
            self.questions.remove(&id);
            return Vec::new();
        }
        asked.answer = Some(answer);
        let who = asked.who.clone();
        let told = |key| if self.expects(&key, now) { Change::AnsweredInPart(key) } else { Change::Answered(key) };
        who.into_iter().map(told).collect()
    }

    /// Whether anything is being asked for a Rollout, or is about to be.
    fn expects(&self, key: &Key, now: Timestamp) -> bool {
        let ids = self.by_rollout.get(key).into_iter().flatten();
        let mut open = ids.filter_map(|id| Some((id.1, self.questions.get(id)?))).filter(|(_, q)| q.answer.is_none());
        open.any(|(due, asked)| asked.is_begun || due <= now)
    }
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
    begun: Timestamp,
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
        let table = Mutex::new(Table {
            questions: BTreeMap::new(),
            by_rollout: BTreeMap::new(),
            recent: BTreeMap::new(),
            most_recent: 64,
        });
        let begun = clock();
        Desk(Arc::new(Inner { answerer, clock, begun, table, slots: Semaphore::new(AT_ONCE), changes, stop, tasks }))
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
                if asked.who.is_empty() && (asked.answer.is_some() || !asked.is_begun) {
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
                // A task of its own holds it for a whole interval, several times over if it is not shared.
                let (desk, stopped, question) = (self.clone(), stop.clone(), Arc::new(question));
                self.0.tasks.spawn(async move { stopped.run_until_cancelled(desk.ask(question)).await });
                Asked { who: BTreeSet::new(), answer: None, is_begun: false, stop }
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

    async fn ask(self, question: Arc<Q>) {
        let Inner { answerer, clock, begun, slots, changes, .. } = &*self.0;
        let due = if question.due() < *begun { question.resumes(*begun) } else { question.due() };
        let mut wait = due.duration_since(clock());
        let (answer, _slot) = loop {
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
            let Ok(slot) = slots.acquire().await else { return };
            let now = clock().max(question.due());
            let turn = self.lock().turn(&*question, now);
            match turn {
                Turn::Ask => break (answerer.answer(&question, now).await, slot),
                Turn::Known(answer) => break (answer, slot),
                Turn::Wait(longer) => wait = longer,
                Turn::Leave => return,
            }
        };
        let told = self.lock().answered(&*question, answer, clock());
        for change in told {
            // Nobody listens any more when the controller stops.
            let _ = changes.send(change);
        }
    }
}
