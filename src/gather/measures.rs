//! Questions to metrics servers, asked beside the loop; see [`super::desk`].

#[cfg(test)]
mod bad_input;
mod datadog;
pub mod http;
pub mod login;
pub mod prometheus;
pub mod servers;
#[cfg(test)]
pub(super) mod stand_ins;
mod web;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cache::Change,
    desk::{Answerer, Clock, Desk, Question},
};
use crate::{
    analysis::{
        Answer, Sample,
        ask::{self, Ask},
    },
    telemetry::Metrics,
};

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
        let why = format!("{}: nobody is asked from here", ask.provider.address());
        Box::pin(async { Answer::Unavailable(why) })
    }
}

impl Question for Ask {
    type Answer = Sample;

    fn id(&self) -> &str {
        &self.id
    }

    fn due(&self) -> Timestamp {
        self.due
    }

    fn resumes(&self, begun: Timestamp) -> Timestamp {
        ask::resumes(self.due, self.interval, begun)
    }

    fn rests(&self) -> SignedDuration {
        ask::apart(self.interval)
    }
}

/// What measuring needs.
pub struct Means {
    /// Who answers.
    pub provider: Arc<dyn Provider>,
    /// Tells the time.
    pub clock: Clock,
    /// Counts questions.
    pub metrics: Metrics,
}

/// The questions to metrics servers.
pub type Measures = Desk<Ask>;

pub(super) fn measures(
    means: Means,
    changes: mpsc::UnboundedSender<Change>,
    stop: CancellationToken,
    tasks: TaskTracker,
) -> Measures {
    let clock = means.clock.clone();
    Desk::new(Box::new(means), clock, changes, stop, tasks)
}

impl Answerer<Ask> for Means {
    fn answer<'a>(&'a self, ask: &'a Ask, at: Timestamp) -> BoxFuture<'a, Sample> {
        Box::pin(async move {
            let begun = tokio::time::Instant::now();
            let answer = tokio::time::timeout(LIMIT, self.provider.ask(ask)).await.unwrap_or_else(|_| {
                Answer::Unavailable(format!("{}: no answer within {} seconds", ask.provider.address(), LIMIT.as_secs()))
            });
            self.metrics.queried(kind(&answer), begun.elapsed());
            if let Answer::Unavailable(why) | Answer::Mistake(why) = &answer {
                tracing::debug!(query = ask.query, "metrics server: {why}");
            }
            Sample { at, answer }
        })
    }
}

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Value(_) => "value",
        Answer::Empty => "empty",
        Answer::Text(_) => "text",
        Answer::Several { .. } => "several",
        Answer::Histogram(_) => "histogram",
        Answer::Unavailable(_) => "unavailable",
        Answer::Mistake(_) => "mistake",
    }
}

#[cfg(test)]
mod tests;
