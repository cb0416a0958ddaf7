//! What is asked, of whom, and when.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::{
    Sample,
    compare::{Comparison, Form},
};
use crate::api::{analysis::MetricProvider, object::digest};

/// A question to a server. Two with the same id are one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// Same server, login, text and interval.
    pub id: String,
    /// Who answers.
    pub provider: MetricProvider,
    /// Where the Secret with the login is.
    pub namespace: String,
    /// The text.
    pub query: String,
    /// A histogram is wanted, by `le`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_of_buckets: bool,
    /// Seconds between two questions.
    pub interval: i64,
    /// Not before; and an answer from before is none to this question.
    pub due: Timestamp,
}

impl Ask {
    /// A question; `namespace` is the Rollout's.
    pub fn new(provider: &MetricProvider, namespace: &str, query: &str, interval: i64, due: Timestamp) -> Ask {
        // Without a login it does not matter who asks.
        let login = provider.secret_ref().map(|_| namespace);
        let id = digest(&json!([provider, login, query, interval]));
        let (provider, namespace, query) = (provider.clone(), namespace.to_owned(), query.to_owned());
        Ask { id, provider, namespace, query, is_of_buckets: false, interval, due }
    }
}

/// The questions of one value: itself, and what counts its samples, if they are counted. Both are asked at the same time.
pub fn of_value(
    provider: &MetricProvider,
    namespace: &str,
    query: &str,
    samples: Option<&str>,
    interval: i64,
    due: Timestamp,
) -> Vec<Ask> {
    let mut value = Ask::new(provider, namespace, query, interval, due);
    let Some(samples) = samples else { return vec![value] };
    // Whoever wants the value alone asks at other moments.
    value.id = format!("{}-{}", value.id, digest(&json!(samples)));
    vec![value, Ask::new(provider, namespace, samples, interval, due)]
}

/// Whether answers of one look were asked for so close to one another that they are of the same requests.
pub fn are_together(look: &[Sample], interval: i64) -> bool {
    let moments = || look.iter().map(|sample| sample.at);
    let (first, last) = (moments().min().unwrap_or_default(), moments().max().unwrap_or_default());
    last.duration_since(first) <= SignedDuration::from_millis(interval.saturating_mul(100))
}

/// The questions of one look at both versions. They are asked at the same time, and by whoever takes the same look.
pub fn of_look(
    provider: &MetricProvider,
    namespace: &str,
    comparison: &Comparison,
    interval: i64,
    due: Timestamp,
) -> Vec<Ask> {
    let is_of_buckets = matches!(comparison.form, Form::Latency { .. });
    let look = digest(&json!([comparison.queries, is_of_buckets]));
    let ask = |(_, query): &(String, String)| {
        let ask = Ask::new(provider, namespace, query, interval, due);
        Ask { id: format!("{}-{look}", ask.id), is_of_buckets, ..ask }
    };
    comparison.queries.iter().map(ask).collect()
}

/// The first moment not before `moment` at which a question of this interval is asked. It depends on the interval and a
/// text alone, [`Rendered::timing`](super::templates::Rendered::timing): so that whoever asks the same asks at the same time,
/// all questions about one workload are asked together, and those about others spread over the interval.
pub fn due(moment: Timestamp, interval: i64, timing: &str) -> Timestamp {
    let interval = interval.max(1);
    // FNV-1a: a hash by powers of 31 would be a sum of digits where the interval is 30 seconds.
    let hash = timing.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let offset = i64::try_from((hash >> 1).rem_euclid(interval.unsigned_abs())).unwrap_or_default();
    let second = moment.as_second() + i64::from(moment.subsec_nanosecond() > 0);
    let late = (offset - second).rem_euclid(interval);
    Timestamp::from_second(second.saturating_add(late)).unwrap_or(moment)
}

/// The first moment not before `moment` that is whole intervals after `due`.
pub fn resumes(due: Timestamp, interval: i64, moment: Timestamp) -> Timestamp {
    let interval = interval.max(1);
    let late = moment.duration_since(due).as_millis().max(0);
    let step = i128::from(interval) * 1000;
    let intervals = i64::try_from((late + step - 1) / step).unwrap_or(i64::MAX);
    due.checked_add(SignedDuration::from_secs(intervals.saturating_mul(interval))).unwrap_or(moment)
}

/// The longest time between two tries of a question that nobody answers, in seconds, where its interval is shorter.
const LONGEST_PAUSE: i64 = 300;

/// The shortest time between two tries of a question: a tenth of the interval is forgiven, as tries are always a little late.
pub fn apart(interval: i64) -> SignedDuration {
    SignedDuration::from_millis(interval.max(1).saturating_mul(900))
}

/// When to ask again after a try at `at`; `in_vain` tries in a row had no answer.
pub fn next(at: Timestamp, interval: i64, timing: &str, in_vain: i32) -> Timestamp {
    let doubled = interval.saturating_mul(1_i64 << in_vain.saturating_sub(1).clamp(0, 20));
    let pause = if in_vain > 0 { doubled.min(LONGEST_PAUSE).max(interval) } else { interval };
    // In whole intervals; after a try that was late, not before the next one but one.
    let from =
        at.checked_add(SignedDuration::from_secs(pause - interval)).and_then(|at| at.checked_add(apart(interval)));
    due(from.unwrap_or(at), interval, timing)
}

/// The first moment after `at` at which it is asked: after an answer that took its time, and was asked for in time.
pub fn after(at: Timestamp, interval: i64, timing: &str) -> Timestamp {
    due(Timestamp::from_second(at.as_second().saturating_add(1)).unwrap_or(at), interval, timing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_question_that_nobody_answers_is_asked_ever_less_often() {
        let mut moment = due(at(1_000_000), 30, "up");
        let mut pauses = Vec::new();
        for in_vain in 1..=7 {
            let next = next(moment, 30, "up", in_vain);
            pauses.push(next.as_second() - moment.as_second());
            moment = next;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 300, 300, 300]);
        let (first, later) = (due(at(1_000_000), 3600, "up"), next(at(1_000_000), 3600, "up", 9));
        assert!(later.duration_since(first).as_secs() <= 3600, "a long interval stays as it is");
    }

    proptest! {
        #[test]
        fn what_was_missed_is_asked_at_a_moment_of_its_own(due in 0_i64..4_000_000_000, late in -1_000_i64..10_000_000, interval in 1_i64..100_000) {
            let moment = at(due).checked_add(SignedDuration::from_millis(late)).unwrap();
            let then = resumes(at(due), interval, moment);
            prop_assert!(then >= moment && (late <= 0) == (then == at(due)));
            prop_assert!(late <= 0 || then.duration_since(moment) < SignedDuration::from_secs(interval));
            prop_assert_eq!((then.as_second() - due) % interval, 0);
        }

        #[test]
        fn never_more_often_than_its_interval(second in 0_i64..4_000_000_000, interval in 1_i64..100_000, question in ".{0,20}", in_vain in 0..9_i32) {
            let first = due(at(second), interval, &question);
            prop_assert!(first >= at(second) && first.as_second() - second < interval);
            let then = next(first, interval, &question, in_vain);
            prop_assert!(then.as_second() - first.as_second() >= interval);
            prop_assert_eq!((then.as_second() - first.as_second()) % interval, 0, "all who ask it ask together");
            prop_assert!(in_vain > 0 || then.as_second() - first.as_second() == interval);
            prop_assert!(then.as_second() - first.as_second() <= interval.max(LONGEST_PAUSE) + interval);
        }

        #[test]
        fn a_try_that_was_late_is_followed_by_none_that_is_early(
            second in 0_i64..4_000_000_000, late in 0_i64..200_000, interval in 1_i64..100_000, question in ".{0,20}", other in ".{0,20}",
        ) {
            let late = due(at(second), interval, &question).checked_add(SignedDuration::from_millis(late)).unwrap();
            // Pods that come and go change the text of a question.
            for text in [&question, &other] {
                let then = next(late, interval, text, 0);
                prop_assert!(then.duration_since(late) >= apart(interval), "{then} after {late}");
                prop_assert!(then.duration_since(late) <= apart(interval) + SignedDuration::from_secs(interval));
            }
        }
    }
}
