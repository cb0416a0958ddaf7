//! `tidegate policy`: prints the admission policies that hold changed workloads in the API server itself, one a kind and
//! version, so that nothing depends on the controller being up. Needs `admissionregistration.k8s.io/v1`
//! `MutatingAdmissionPolicy` (Kubernetes 1.36).

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    api::keys::{IN_PROGRESSING, WANTED_FIELDS},
    cli::{
        generated::{self, File},
        webhooks,
    },
    controller::hold::{KeepHold, Wish},
    webhook::VALIDATING,
    workload::hold::{
        ANY, By, Field, HELD_READY, MARK, OPEN, RELEASED, Rule, WAS,
        field::{BOUNDS, Scalar},
        paused::MARK_PAUSED,
        rules,
    },
};

/// Arguments of `tidegate policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the chart's file `policy.yaml` into this folder instead of printing it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = if args.dir.is_some() { chart_file()? } else { File::of("policy.yaml", &all())? };
    generated::emit(&[file], args.dir.as_deref())
}

/// The chart's file: policies and bindings, where the server is to hold workloads itself.
pub fn chart_file() -> anyhow::Result<File> {
    let File { name, text } = File::of("policy.yaml", &all())?;
    let condition = r#"include "tidegate.holdByPolicy" ."#;
    Ok(File { name, text: format!("{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n") })
}

/// How a controller keeps these policies in place, or the webhooks if it serves them, after `settle` without the other.
pub fn keep(wish: Wish, settle: Duration, serves: bool) -> KeepHold {
    let holding = || Arc::new(webhooks::holding) as Arc<dyn Fn() -> Value + Send + Sync>;
    KeepHold { wish, policies: Arc::new(all), webhooks: serves.then(holding), sibling: VALIDATING, settle }
}

/// Every policy with its binding.
pub fn all() -> Vec<Value> {
    rules().flat_map(|rule| [policy(rule), binding(rule)]).collect()
}

/// CEL for an annotation or label of `object` or `oldObject`, or `""`.
fn entry(object: &str, map: &str, key: &str) -> String {
    format!("{object}.metadata.?{map}[?'{key}'].orValue('')")
}

/// What a rule says in CEL.
struct Text {
    is_held: String,
    /// Besides `oldMark`, `newMark` and `label`; the last is `mark`.
    variables: Vec<(&'static str, String)>,
    /// Annotations, as the key of a map spells them, and their values.
    annotations: Vec<(String, String)>,
    /// Fields of `spec`.
    spec: String,
}

/// Where a kind has several versions, each has its own rule: their shapes differ.
pub(crate) fn match_policy(rule: &Rule) -> Option<&'static str> {
    (rule.group != "apps").then_some("Exact")
}

fn text(rule: &Rule) -> Text {
    let text = match &rule.by {
        By::Paused => paused(),
        By::Field(field) => held_by(field),
    };
    if rule.resource != ANY {
        return text;
    }
    // Whatever carries the label.
    let has = ["object", "oldObject"].map(|o| format!("has({o}.spec) && has({o}.spec.template)"));
    Text { is_held: format!("{}\n&& ({})", has.join(" && "), text.is_held), ..text }
}

/// When a rule holds an update.
pub(crate) fn is_held(rule: &Rule) -> String {
    text(rule).is_held
}

fn policy(rule: &Rule) -> Value {
    let text = text(rule);
    let switch = rule.switch;
    let label = format!("object.metadata.?labels[?'{switch}'].orValue({})", entry("oldObject", "labels", switch));
    let [old_mark, new_mark] = ["oldObject", "object"].map(|o| entry(o, "annotations", IN_PROGRESSING));
    let variables: Vec<Value> = [("oldMark", old_mark), ("newMark", new_mark)]
        .into_iter()
        .chain(text.variables)
        .chain([("label", label)])
        .map(|(name, expression)| json!({"name": name, "expression": expression}))
        .collect();
    let annotations: Vec<String> = text.annotations.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let mut constraints = json!({
        // The server looks for the label on the old and on the new object: a write that drops it is seen.
        "objectSelector": {"matchExpressions": [{"key": switch, "operator": "Exists"}]},
        "resourceRules": [{
            "apiGroups": [rule.group], "apiVersions": [rule.version], "operations": ["UPDATE"],
            "resources": [rule.resource],
        }],
    });
    if let (Some(policy), Some(constraints)) = (match_policy(rule), constraints.as_object_mut()) {
        constraints.insert("matchPolicy".to_owned(), policy.into());
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": rule.policy},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": constraints,
            "matchConditions": [{"name": "held", "expression": text.is_held}],
            "variables": variables,
            "mutations": [{
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": format!(
                    "Object{{\n\
                     \x20 metadata: Object.metadata{{\n\
                     \x20   annotations: {{{}}},\n\
                     \x20   labels: {{'{switch}': variables.label}}\n\
                     \x20 }},\n\
                     \x20 spec: Object.spec{{{}}}\n\
                     }}",
                    annotations.join(", "),
                    text.spec
                )},
            }],
        },
    })
}

/// The mark of what is held: the old one where it stays, else that one, the new one or a fresh one, shut.
fn mark_variable(fresh: &str) -> (&'static str, String) {
    let text = format!(
        "variables.stays ? variables.oldMark\n\
         : (variables.oldMark != '' ? variables.oldMark\n\
         : variables.newMark != '' ? variables.newMark\n\
         : {fresh}).replace('{RELEASED}', '').replace('{OPEN}', '{WAS}')"
    );
    ("mark", text)
}

/// The rule of [`crate::workload::hold::paused`].
fn paused() -> Text {
    let [old_mark, new_mark] = ["oldObject", "object"].map(|o| entry(o, "annotations", IN_PROGRESSING));
    let [old_paused, new_paused] = ["oldObject", "object"].map(|o| format!("{o}.spec.?paused.orValue(false)"));
    let template = "(object.spec.template != oldObject.spec.template && object.spec.?replicas.orValue(1) != 0)";
    let differs = "(object.spec.?strategy != oldObject.spec.?strategy\n\
         \x20       || object.spec.?minReadySeconds.orValue(0) != oldObject.spec.?minReadySeconds.orValue(0)\n\
         \x20       || object.spec.?progressDeadlineSeconds.orValue(600) != oldObject.spec.?progressDeadlineSeconds.orValue(600))";
    let is_kept = format!(
        "({old_mark} != ''\n\
         \x20   && !{old_mark}.contains('{RELEASED}')\n\
         \x20   && ({old_paused} || {old_mark}.contains('{OPEN}')))"
    );
    let keeps = format!(
        "oldObject.spec.?strategy.?type.orValue('') == 'RollingUpdate'\n\
         && oldObject.spec.?minReadySeconds.orValue(0) == {HELD_READY}"
    );
    let bound = |field: &str| {
        let value = format!("object.spec.?strategy.?rollingUpdate.?{field}.orValue('25%')");
        format!("(type({value}) == int ? string({value}) : '\"' + string({value}) + '\"')")
    };
    let kept = |field: &str, value: &str| format!(", ?{field}: variables.keeps ? {value} : optional.none()");
    let rolling = |field: &str| format!("?{field}: oldObject.spec.?strategy.?rollingUpdate.?{field}");
    Text {
        is_held: format!(
            "{template}\n\
             || ({is_kept}\n\
             \x20   && ({new_mark} == ''\n\
             \x20       || (!{new_paused}\n\
             \x20           && ((!{new_mark}.contains('{RELEASED}') && !{new_mark}.contains('{OPEN}'))\n\
             \x20               || ({new_mark}.contains('{OPEN}') && {old_mark} == {new_mark}\n\
             \x20                   && ({old_paused} || {differs}))))\n\
             \x20       || ({keeps} && {old_mark} == {new_mark} && {differs})))"
        ),
        variables: vec![
            ("keeps", format!("{is_kept}\n&& {keeps}")),
            ("stays", format!("variables.keeps && !{template} && variables.oldMark.contains('{OPEN}')")),
            mark_variable(&format!("object.spec.?paused.orValue(false) ? '{MARK_PAUSED}'\n: '{MARK}'")),
            (
                "wanted",
                format!(
                    "'{{\"strategy\":'\n\
                     + (object.spec.?strategy.?type.orValue('') == 'Recreate' ? '{{\"type\":\"Recreate\"}}'\n\
                     \x20 : '{{\"type\":\"RollingUpdate\",\"rollingUpdate\":{{\"maxUnavailable\":' + {}\n\
                     \x20   + ',\"maxSurge\":' + {} + '}}}}')\n\
                     + ',\"minReadySeconds\":' + string(object.spec.?minReadySeconds.orValue(0))\n\
                     + ',\"progressDeadlineSeconds\":' + string(object.spec.?progressDeadlineSeconds.orValue(600)) + '}}'",
                    bound("maxUnavailable"),
                    bound("maxSurge"),
                ),
            ),
        ],
        annotations: vec![
            (format!("'{IN_PROGRESSING}'"), "variables.mark".to_owned()),
            (
                format!("?'{WANTED_FIELDS}'"),
                format!(
                    "!variables.keeps ? optional.none()\n\
                     \x20     : {differs} ? optional.of(variables.wanted)\n\
                     \x20     : object.metadata.?annotations[?'{WANTED_FIELDS}'].or(oldObject.metadata.?annotations[?'{WANTED_FIELDS}'])"
                ),
            ),
        ],
        spec: format!(
            "paused: !variables.stays || {old_paused} || {new_paused}{}{}{}",
            kept(
                "strategy",
                &format!(
                    "optional.of(Object.spec.strategy{{type: 'RollingUpdate',\n\
                     \x20     rollingUpdate: Object.spec.strategy.rollingUpdate{{{}, {}}}}})",
                    rolling("maxSurge"),
                    rolling("maxUnavailable")
                )
            ),
            kept("minReadySeconds", &format!("optional.of({HELD_READY})")),
            kept("progressDeadlineSeconds", "oldObject.spec.?progressDeadlineSeconds"),
        ),
    }
}

/// The rule of [`crate::workload::hold::field`].
fn held_by(field: &Field) -> Text {
    let [old_mark, new_mark] = ["oldObject", "object"].map(|o| entry(o, "annotations", IN_PROGRESSING));
    let [old, new] = ["oldObject", "object"].map(|o| format!("{o}.spec.?{}", field.path.join(".?")));
    let shut = match field.shut {
        Scalar::Count(count) => count.to_string(),
        Scalar::Text(text) => format!("'{text}'"),
    };
    let is_shut = |value: &str| format!("{value} == optional.of({shut})");
    let rolls = field.by_hand.map_or_else(String::new, |(path, value)| {
        format!("object.spec.?{}.orValue('') != '{value}'\n&& ", path.join(".?"))
    });
    let template = "object.spec.template != oldObject.spec.template && object.spec.?replicas.orValue(1) != 0";
    let is_kept = format!(
        "{old_mark} != ''\n\
         \x20       && !{old_mark}.contains('{RELEASED}')\n\
         \x20       && ({} || {old_mark}.contains('{OPEN}'))",
        is_shut(&old)
    );
    let remembered = |object: &str| format!("{object}.metadata.?annotations[?'{}']", field.remembers);
    let (last, parents) = field.path.split_last().unwrap_or((&"", &[]));
    let mut place = "Object.spec".to_owned();
    let mut opening = String::new();
    for parent in parents {
        place = format!("{place}.{parent}");
        opening = format!("{opening}{parent}: {place}{{");
    }
    let Both { parts, variable, beside, spec } = both(field, &is_kept).unwrap_or_default();
    Text {
        is_held: format!(
            "{rolls}(({template})\n\
             \x20   || ({is_kept}\n\
             \x20       && ({new_mark} == ''\n\
             \x20           || (!{new_mark}.contains('{RELEASED}')\n\
             \x20               && ({parts}(!{new_mark}.contains('{OPEN}') && !({}))\n\
             \x20                   || ({new_mark}.contains('{OPEN}') && {old_mark} == {new_mark}\n\
             \x20                       && {old} != {new}))))))",
            is_shut(&new),
        ),
        variables: variable
            .into_iter()
            .chain([
            (
                "own",
                format!(
                    "variables.newMark != '' && {new_own}.hasValue() && ({is_shut} || {old} == {new}) ? {new_own}.value()\n\
                 : variables.oldMark != '' && {old_own}.hasValue() && {old} == {new} ? {old_own}.value()\n\
                 : string({new}.orValue(''))",
                    new_own = remembered("object"),
                    old_own = remembered("oldObject"),
                    is_shut = is_shut(&new),
                ),
            ),
            ("stays", format!("!({template}) && variables.oldMark.contains('{OPEN}') && {old}.hasValue()")),
            mark_variable(&format!("'{MARK}'")),
        ])
        .collect(),
        annotations: [(IN_PROGRESSING, "variables.mark"), (field.remembers, "variables.own")]
            .map(|(key, value)| (format!("'{key}'"), value.to_owned()))
            .to_vec(),
        spec: format!(
            "{opening}{last}: variables.stays ? {old}.value() : {shut}{beside}{}{spec}",
            "}".repeat(parents.len())
        ),
    }
}

/// What the rule of a kind says besides, of which a full new set may stand beside the old one.
#[derive(Default)]
struct Both {
    /// When an update would part them.
    parts: String,
    /// Whether they are kept.
    variable: Option<(&'static str, String)>,
    /// Fields beside the one that it is held by.
    beside: String,
    /// Fields of `spec`.
    spec: String,
}

fn both(field: &Field, is_kept: &str) -> Option<Both> {
    let [old_mark, new_mark] = ["oldObject", "object"].map(|o| entry(o, "annotations", IN_PROGRESSING));
    let [old_keeps, new_keeps] =
        ["oldObject", "object"].map(|o| format!("{o}.spec.?minReadySeconds.orValue(0) == {HELD_READY}"));
    let bounds = BOUNDS.map(|bound| {
        let [old, new] = ["oldObject", "object"].map(|o| format!("{o}.spec.?{}", field.beside(bound).join(".?")));
        (bound, old, new)
    });
    let differs: Vec<String> = bounds.iter().map(|(_, old, new)| format!("{old} != {new}")).collect();
    let keep = |name: &str, value: &str| format!(", ?{name}: variables.both ? {value} : optional.none()");
    field.surges.then(|| Both {
        parts: format!(
            "({old_keeps}\n\
             \x20                && (!({new_keeps}) || ({old_mark} == {new_mark}\n\
             \x20                    && ({}))))\n\
             \x20               || ",
            differs.join("\n                        || ")
        ),
        variable: Some(("both", format!("{is_kept}\n&& {old_keeps}"))),
        beside: bounds.iter().map(|(bound, old, _)| keep(bound, old)).collect(),
        spec: keep("minReadySeconds", &format!("optional.of({HELD_READY})"))
            + &keep("progressDeadlineSeconds", "oldObject.spec.?progressDeadlineSeconds"),
    })
}

fn binding(rule: &Rule) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": rule.policy},
        "spec": {"policyName": rule.policy},
    })
}
