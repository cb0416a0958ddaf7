//! What the API server's schema and CEL rules cannot say of a Rollout. Pure.
//!
//! An update is never judged worse than what is stored: what was wrong before and was not touched stays possible, and
//! metadata, finalizers and deletion always pass. Otherwise an object that a stricter release refuses could not even be
//! deleted.

mod warnings;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    api::{convert::to_v1beta1, keys, object},
    rollout::{hooks, release::SpecError, windows::Windows},
    workload::{self, Style},
};

/// What an administrator decides.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Most pods that a step in partition style may have while it routes requests, in percent: the old pods that are left
    /// have to bear the rest.
    pub partition_percent_limit: u32,
    /// Only kinds of workload that are known.
    pub filter_workload_type: bool,
    /// Only from those who may themselves change what a Rollout or TrafficRouting names.
    pub check_authority: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { partition_percent_limit: 50, filter_workload_type: true, check_authority: true }
    }
}

/// A field that cannot be accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Its path, in the author's spelling.
    pub field: String,
    /// What it says.
    pub value: Value,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: Invalid value: {}: {}", self.field, self.value, self.problem)
    }
}

/// What is said of a Rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Why it is refused.
    pub errors: Vec<Wrong>,
    /// What is legal but probably not meant.
    pub warnings: Vec<String>,
}

/// Whether the judgement needs the other Rollouts of the namespace.
pub fn asks_for_others(new: &Value, old: Option<&Value>) -> bool {
    !is_settled(new, old) && old.is_none_or(|old| Workload::of(new) != Workload::of(old))
}

/// Metadata and status may change however they like.
pub fn is_settled(new: &Value, old: Option<&Value>) -> bool {
    let style = |o| object::annotation(o, keys::ROLLING_STYLE).map(str::to_owned);
    object::is_deleting(new) || old.is_some_and(|old| new.get("spec") == old.get("spec") && style(new) == style(old))
}

/// Judges a Rollout that is created (without `old`) or changed. `others` are the Rollouts of its namespace, where
/// [`asks_for_others`] wants them; it may be among them.
pub fn judge(new: &Value, old: Option<&Value>, others: &[Value], rules: &Rules) -> Verdict {
    if is_settled(new, old) {
        return Verdict::default();
    }
    let mut errors = Subject::of(new).errors(rules);
    if let Some(old) = old {
        let known = Subject::of(old).errors(rules);
        errors.retain(|e| !known.iter().any(|k| (&k.value, &k.problem) == (&e.value, &e.problem)));
        errors.extend(while_releasing(new, old));
    }
    errors.extend(conflicts(new, others));
    Verdict { errors, warnings: Subject::of(new).warnings() }
}

/// The workload that a Rollout names; versions of a kind are one.
#[derive(Debug, PartialEq)]
struct Workload {
    group: String,
    kind: String,
    name: String,
}

impl Workload {
    fn of(rollout: &Value) -> Option<Workload> {
        let (_, reference) = reference(rollout)?;
        let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let group = object::group(&text("apiVersion")).to_owned();
        Some(Workload { group, kind: text("kind"), name: text("name") })
    }
}

/// Path and value of the reference, in the author's spelling.
pub fn reference(rollout: &Value) -> Option<(&'static str, &Value)> {
    [("spec.workloadRef", "/spec/workloadRef"), ("spec.objectRef.workloadRef", "/spec/objectRef/workloadRef")]
        .into_iter()
        .find_map(|(path, pointer)| Some((path, rollout.pointer(pointer)?)))
}

fn conflicts(new: &Value, others: &[Value]) -> Vec<Wrong> {
    let Some(((field, value), mine)) = reference(new).zip(Workload::of(new)) else { return Vec::new() };
    let rival = others.iter().find(|other| {
        object::name(other) != object::name(new)
            && !object::is_deleting(other)
            && Workload::of(other).is_some_and(|w| w == mine)
    });
    let wrong = |rival: &Value| Wrong {
        field: field.to_owned(),
        value: value.clone(),
        problem: format!(
            "Rollout {:?} is for this workload already: change that one, or delete it first",
            object::name(rival)
        ),
    };
    rival.map(wrong).into_iter().collect()
}

/// What must stay as it is during a release and is not in the reach of a CEL rule.
fn while_releasing(new: &Value, old: &Value) -> Vec<Wrong> {
    if !["Progressing", "Terminating"].contains(&object::text(old, &["status", "phase"])) {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let (before, after) = (Subject::of(old), Subject::of(new));
    if before.style != after.style {
        wrong.push(Wrong {
            field: format!("metadata.annotations[{}]", keys::ROLLING_STYLE),
            value: object::annotation(new, keys::ROLLING_STYLE).into(),
            problem:
                "the style cannot change while a release is going on: wait until it has ended, or roll the workload \
                      back first"
                    .to_owned(),
        });
    }
    if before.name == after.name && before.steps.len() != after.steps.len() {
        wrong.push(Wrong {
            field: format!("spec.strategy.{}.steps", after.name),
            value: after.steps.len().into(),
            problem: format!(
                "the number of steps cannot change while a release is going on: keep {}, wait until it has ended, or roll \
                 the workload back first",
                before.steps.len()
            ),
        });
    }
    wrong
}

/// A Rollout, with what its spellings mean.
struct Subject<'a> {
    rollout: &'a Value,
    workload: Option<Workload>,
    /// `canary` or `blueGreen`.
    name: &'static str,
    style: Style,
    strategy: Map<String, Value>,
    steps: Vec<Map<String, Value>>,
}

impl<'a> Subject<'a> {
    fn of(rollout: &'a Value) -> Self {
        let one = to_v1beta1(rollout);
        let workload = Workload::of(rollout);
        let of = |name: &str| one.pointer(&format!("/spec/strategy/{name}")).and_then(Value::as_object).cloned();
        let (name, strategy) = match of("blueGreen") {
            Some(strategy) => ("blueGreen", strategy),
            None => ("canary", of("canary").unwrap_or_default()),
        };
        let is_deployment = workload.as_ref().is_none_or(|w| w.kind == "Deployment");
        let style = if name == "blueGreen" {
            Style::BlueGreen
        } else if is_deployment && strategy.get("enableExtraWorkloadForCanary") == Some(&Value::Bool(true)) {
            Style::Canary
        } else {
            Style::Partition
        };
        let steps = strategy.get("steps").and_then(Value::as_array).into_iter().flatten();
        let steps = steps.filter_map(Value::as_object).cloned().collect();
        Subject { rollout, workload, name, style, strategy, steps }
    }

    fn errors(&self, rules: &Rules) -> Vec<Wrong> {
        let mut errors = Vec::new();
        errors.extend(self.unknown_style());
        if rules.filter_workload_type {
            errors.extend(self.unknown_kind());
        }
        errors.extend(self.impossible_style());
        errors.extend(self.too_large_steps(rules.partition_percent_limit));
        errors.extend(self.wrong_windows());
        errors.extend(self.wrong_hooks());
        errors
    }

    fn unknown_style(&self) -> Option<Wrong> {
        let style = object::annotation(self.rollout, keys::ROLLING_STYLE)?;
        let is_known = ["", "canary", "partition"].contains(&style.to_ascii_lowercase().as_str());
        (!is_known).then(|| Wrong {
            field: format!("metadata.annotations[{}]", keys::ROLLING_STYLE),
            value: style.into(),
            problem: "choose canary (an extra Deployment) or partition (in place)".to_owned(),
        })
    }

    fn unknown_kind(&self) -> Option<Wrong> {
        let named = self.workload.as_ref()?;
        let (field, value) = reference(self.rollout)?;
        let wrong =
            |field: String, value: &Value, problem: String| Some(Wrong { field, value: value.clone(), problem });
        let Some(kind) = workload::kind(&named.group, &named.kind) else {
            let problem = "this kind of workload cannot be released in steps: choose";
            return wrong(field.to_owned(), value, format!("{problem} {}", workload::known()));
        };
        let version = value.get("apiVersion")?;
        if kind.hold(version.as_str()?).is_some() {
            return None;
        }
        let known: Vec<String> = kind.holds.iter().map(|hold| format!("{}/{}", hold.group, hold.version)).collect();
        let problem = format!("a {} is not known in this version: choose {}", kind.kind, known.join(" or "));
        wrong(format!("{field}.apiVersion"), version, problem)
    }

    /// A style that the kind cannot be released in. Where the author only leaves an extra workload to the default, or asks
    /// for it by the annotation, one without is meant for a kind that has none.
    fn impossible_style(&self) -> Option<Wrong> {
        let named = self.workload.as_ref()?;
        let kind = workload::kind(&named.group, &named.kind)?;
        let path = format!("spec.strategy.{}", self.name);
        let wrong = |field: &str, value: Value, remedy: &str| {
            let problem = format!("a {} of {} {remedy}", named.kind, named.group);
            Some(Wrong { field: format!("{path}{field}"), value, problem })
        };
        if self.style == Style::BlueGreen && !kind.styles.contains(&Style::BlueGreen) {
            let value = Value::Object(self.strategy.clone());
            return wrong("", value, "has no full new set beside the old one: use spec.strategy.canary");
        }
        let extra = self.rollout.pointer("/spec/strategy/canary/enableExtraWorkloadForCanary")?;
        if *extra == Value::Bool(true) && !kind.styles.contains(&Style::Canary) {
            let remedy = "has no extra workload, it is released in place: leave the field out, or set it to false";
            return wrong(".enableExtraWorkloadForCanary", extra.clone(), remedy);
        }
        None
    }

    /// Times that do not exist, and time zones that nobody knows.
    fn wrong_windows(&self) -> Option<Wrong> {
        let (windows, freezes) = (self.list("/spec/changeWindows"), self.list("/spec/freezes"));
        Windows::read("spec.", &windows, &freezes).err().map(|wrong| self.wrong(wrong))
    }

    /// Addresses, times and steps that cannot be.
    fn wrong_hooks(&self) -> Option<Wrong> {
        let hooks = self.list("/spec/strategy/hooks");
        hooks::spec::read_all(&hooks, self.steps.len()).err().map(|wrong| self.wrong(wrong))
    }

    /// A list of the spec, if it is one.
    fn list<T: DeserializeOwned>(&self, pointer: &str) -> Vec<T> {
        let list = self.rollout.pointer(pointer).cloned();
        list.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
    }

    fn wrong(&self, wrong: SpecError) -> Wrong {
        let pointer = wrong.field.replace(['.', '['], "/").replace(']', "");
        let value = self.rollout.pointer(&format!("/{pointer}")).cloned().unwrap_or_default();
        Wrong { field: wrong.field, value, problem: wrong.problem }
    }

    /// Rule of partition style with traffic: the old pods that are left bear the rest of the requests.
    fn too_large_steps(&self, limit: u32) -> Vec<Wrong> {
        let is_routed = |step: &Map<String, Value>| step.contains_key("traffic") || step.contains_key("matches");
        if self.style != Style::Partition || !self.routes() {
            return Vec::new();
        }
        let steps = self.steps.iter().enumerate().filter(|(_, step)| is_routed(step));
        steps
            .filter_map(|(i, step)| {
                let replicas = step.get("replicas")?.as_str()?;
                let percent: u32 = replicas.strip_suffix('%')?.parse().ok()?;
                (percent > limit).then(|| Wrong {
                    field: format!("spec.strategy.{}.steps[{i}].replicas", self.name),
                    value: replicas.into(),
                    problem: format!(
                        "in partition style the pods of the old version become fewer, so a step that routes requests may \
                         have at most {limit}% of the pods (--partition-percent-limit): lower it, route in earlier steps \
                         only, or choose canary style"
                    ),
                })
            })
            .collect()
    }

    fn routes(&self) -> bool {
        let has = |key: &str| self.strategy.get(key).and_then(Value::as_array).is_some_and(|a| !a.is_empty());
        has("trafficRoutings") || self.strategy.get("trafficRoutingRef").is_some_and(|r| r != "")
    }
}

#[cfg(test)]
mod tests;
