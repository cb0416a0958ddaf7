//! Questions to metrics servers, asked beside the loop: a decision says what it wants to know and from when on, and reads
//! the answer in a later snapshot.
//!
//! One task a question waits until it is due and asks once. Who asks the same at the same time shares it. The next
//! question is the decision's again, so that nothing is asked more often than it says, or for a release that has ended.

pub mod http;
pub mod login;
pub mod prometheus;

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
use crate::{
    analysis::{Answer, Sample, ask::Ask},
    telemetry::Metrics,
};

/// Questions that are asked at the same time.
const AT_ONCE: usize = 16;
/// How long an answer may take, with everything that it needs.
const LIMIT: Duration = Duration::from_secs(10);

/// Somebody who answers questions about a release. One file each.
pub trait Provider: Send + Sync {
    /// Asks once. Whatever goes wrong is an answer as well.
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer>;
}

/// Where nobody is to be asked, such as in a cluster in memory.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Provider for Nobody {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        let why = format!("{}: nobody is asked from here", ask.provider.address);
        Box::pin(async { Answer::Unavailable(why) })
    }
}

type Id = (String, Timestamp);

struct Question {
    /// The Rollouts that want to know.
    who: BTreeSet<Key>,
    sample: Option<Sample>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Table {
    questions: BTreeMap<Id, Question>,
    by_rollout: BTreeMap<Key, Vec<Id>>,
}

/// What measuring needs.
pub struct Means {
    /// Who answers.
    pub provider: Arc<dyn Provider>,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Counts questions.
    pub metrics: Metrics,
}

/// The questions. Cloning shares them.
#[derive(Clone)]
pub struct Measures(Arc<Inner>);

struct Inner {
    means: Means,
    table: Mutex<Table>,
    slots: Semaphore,
    changes: mpsc::UnboundedSender<Change>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Measures {
    pub(super) fn new(
        means: Means,
        changes: mpsc::UnboundedSender<Change>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Measures {
        let (table, slots) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Measures(Arc::new(Inner { means, table, slots, changes, stop, tasks }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a Rollout wants to know now; nothing else any more.
    pub fn want(&self, key: &Key, asks: Vec<Ask>) {
        let mut table = self.lock();
        let id = |ask: &Ask| (ask.id.clone(), ask.due);
        let before = table.by_rollout.remove(key).unwrap_or_default();
        for gone in before.into_iter().filter(|old| asks.iter().all(|ask| id(ask) != *old)) {
            if let Some(question) = table.questions.get_mut(&gone) {
                question.who.remove(key);
                if question.who.is_empty() {
                    question.stop.cancel();
                    table.questions.remove(&gone);
                }
            }
        }
        if asks.is_empty() {
            return;
        }
        table.by_rollout.insert(key.clone(), asks.iter().map(id).collect());
        for ask in asks {
            let question = table.questions.entry(id(&ask)).or_insert_with(|| {
                let stop = self.0.stop.child_token();
                let (measures, stopped) = (self.clone(), stop.clone());
                self.0.tasks.spawn(async move { stopped.run_until_cancelled(measures.ask(ask)).await });
                Question { who: BTreeSet::new(), sample: None, stop }
            });
            question.who.insert(key.clone());
        }
    }

    /// The answers to what a Rollout wants to know, as far as they are there.
    pub fn samples(&self, key: &Key) -> BTreeMap<String, Sample> {
        let table = self.lock();
        let ids = table.by_rollout.get(key).into_iter().flatten();
        ids.filter_map(|id| Some((id.0.clone(), table.questions.get(id)?.sample.clone()?))).collect()
    }

    async fn ask(self, ask: Ask) {
        let Inner { means, slots, changes, .. } = &*self.0;
        let wait = ask.due.duration_since((means.clock)());
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        let Ok(_slot) = slots.acquire().await else { return };
        let at = (means.clock)().max(ask.due);
        let begun = tokio::time::Instant::now();
        let answer = tokio::time::timeout(LIMIT, means.provider.ask(&ask)).await.unwrap_or_else(|_| {
            Answer::Unavailable(format!("{}: no answer within {} seconds", ask.provider.address, LIMIT.as_secs()))
        });
        means.metrics.queried(kind(&answer), begun.elapsed());
        if let Answer::Unavailable(why) | Answer::Mistake(why) = &answer {
            tracing::debug!(query = ask.query, "metrics server: {why}");
        }
        let who = {
            let mut table = self.lock();
            let Some(question) = table.questions.get_mut(&(ask.id, ask.due)) else { return };
            question.sample = Some(Sample { at, answer });
            question.who.clone()
        };
        for key in who {
            // Nobody listens any more when the controller stops.
            let _ = changes.send(Change::Answered(key));
        }
    }
}

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Value(_) => "value",
        Answer::Empty => "empty",
        Answer::Several(_) => "several",
        Answer::Unavailable(_) => "unavailable",
        Answer::Mistake(_) => "mistake",
    }
}

#[cfg(test)]
mod tests;
