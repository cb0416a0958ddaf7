//! Test cases for scripts: YAML files that say what a script must make of one object in each step of a plan.
//!
//! A file has the keys `rollout` or `trafficRouting`, `original` (the object before the release) and `expected` (a
//! list with one object for each step of the Rollout, or a single one for a TrafficRouting). An entry
//! `{error: TEXT}` instead of an object says that the step must fail with a message that contains TEXT. The step's
//! result and the expected object are compared by spec, labels and annotations. The format is the original
//! controller's; `error` entries are an addition.
//!
//! A key `prints: TEXT` beside the object's own says that the script must print that text in this step, such as a
//! warning, and an empty one that it must print nothing; `controller` beside `original` is `spec.controller` of the
//! IngressClass.
//!
//! Scripts that read a status, `accepted.lua`, have cases in a folder `accepted` beside those of the kind's other script:
//! `object`, and `expected`, a list of statuses each with the `verdict`, a part of the `reason`, and `undated` or `error`.
//!
//! When the Rollout routes by an Ingress and `original` is one, the script is that of its class. For a class with a
//! canary Ingress the result is that Ingress; an expected entry without `spec` is compared by its annotations alone.

mod accepted;
mod discover;
mod file;
mod plan;
mod run;
mod scripts;

pub use accepted::{AnyCase, StatusCase};
pub use discover::{Found, discover};
pub use file::{Case, CaseError, Expected};
pub use plan::Plan;
pub use run::{CaseResult, Report, StepResult, Verdict, run, run_case, run_steps};
pub use scripts::{ACCEPTED, ScriptSource, load_script};
