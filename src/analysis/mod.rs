//! Pure: metrics that decide about a release. From the spec's words to questions, and from answers to a verdict.
//!
//! | file | what is in it |
//! |---|---|
//! | [`metric`] | an `analysis` of the spec, read once into a form that cannot be wrong |
//! | [`provider`] | who can be asked, and in which language |
//! | [`query`] | values put into a query, so that nothing can be injected |
//! | [`templates`] | queries that are kept: built-in ones, and MetricTemplates |
//! | [`ask`] | what is asked, of whom, and when |
//! | [`json_path`] | one value out of an answer in JSON |
//! | [`condition`] | what is true of a good answer, in CEL |
//! | [`judge`] | one answer after the other, to a verdict |
//! | [`compare`] | one look at both versions after the other, to a verdict |
//! | [`sequential`] | canary compared with stable, valid at any time |

pub mod ask;
pub mod compare;
pub mod condition;
pub mod json_path;
pub mod judge;
pub mod metric;
pub mod provider;
pub mod query;
pub mod sequential;
pub mod templates;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::comparison::Histogram;

/// As many series as one may judge together.
pub const SERIES: usize = 100;

/// What one question came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// When it was asked.
    pub at: Timestamp,
    /// What was said.
    pub answer: Answer,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Answer {
    /// One number; perhaps none that can be judged.
    Value(f64),
    /// Nothing is known under this question.
    Empty,
    /// A word, of a server that judges for itself.
    Text(String),
    /// More than one series, of which nobody knows which one is meant.
    Several {
        /// All series.
        count: usize,
        /// Their values, as many as [`SERIES`] of them.
        values: Vec<f64>,
    },
    /// Of a question that asks for one: how many requests took how long.
    Histogram(Histogram),
    /// Nobody answered in time, or the server has trouble of its own. No fault of the release's, and it may pass.
    Unavailable(String),
    /// The question cannot be asked so: a syntax error, a missing Secret, a redirect. A person must mend it.
    Mistake(String),
}

impl Answer {
    /// What a server that knows several series says.
    pub fn of(values: impl ExactSizeIterator<Item = f64>) -> Answer {
        let count = values.len();
        let mut values: Vec<f64> = values.take(SERIES).collect();
        match (count, values.pop()) {
            (_, None) => Answer::Empty,
            (1, Some(value)) => Answer::Value(value),
            (_, Some(last)) => {
                values.push(last);
                Answer::Several { count, values }
            }
        }
    }
}
