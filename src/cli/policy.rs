//! `tidegate policy`: prints the admission policy that holds changed workloads in the API server itself, so that
//! nothing depends on the controller being up. Needs `admissionregistration.k8s.io/v1` `MutatingAdmissionPolicy`
//! (Kubernetes 1.36).

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use crate::{
    api::keys::{IN_PROGRESSING, WORKLOAD_TYPE},
    cli::generated::{self, File},
    workload::hold::{MARK, MARK_PAUSED, OPEN, POLICY, RELEASED, WAS},
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
    let file = if args.dir.is_some() { chart_file()? } else { File::of("policy.yaml", &[policy(), binding()])? };
    generated::emit(&[file], args.dir.as_deref())
}

/// The chart's file: policy and binding, where the server is to hold workloads itself.
pub fn chart_file() -> anyhow::Result<File> {
    let File { name, text } = File::of("policy.yaml", &[policy(), binding()])?;
    let condition = r#"include "tidegate.holdByPolicy" ."#;
    Ok(File { name, text: format!("{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n") })
}

/// CEL for an annotation or label of `object` or `oldObject`, or `""`.
fn entry(object: &str, map: &str, key: &str) -> String {
    format!("{object}.metadata.?{map}[?'{key}'].orValue('')")
}

/// The rule of [`crate::workload::hold`] in CEL.
pub(crate) fn is_held() -> String {
    let [old_mark, new_mark] = ["oldObject", "object"].map(|o| entry(o, "annotations", IN_PROGRESSING));
    let [old_paused, new_paused] = ["oldObject", "object"].map(|o| format!("{o}.spec.?paused.orValue(false)"));
    let differs = "object.spec.?strategy != oldObject.spec.?strategy\n\
         \x20                       || object.spec.?minReadySeconds.orValue(0) != oldObject.spec.?minReadySeconds.orValue(0)\n\
         \x20                       || object.spec.?progressDeadlineSeconds.orValue(600) != oldObject.spec.?progressDeadlineSeconds.orValue(600)";
    format!(
        "(object.spec.template != oldObject.spec.template && object.spec.?replicas.orValue(1) != 0)\n\
         || ({old_mark} != ''\n\
         \x20   && !{old_mark}.contains('{RELEASED}')\n\
         \x20   && ({old_paused} || {old_mark}.contains('{OPEN}'))\n\
         \x20   && ({new_mark} == ''\n\
         \x20       || (!{new_paused}\n\
         \x20           && ((!{new_mark}.contains('{RELEASED}') && !{new_mark}.contains('{OPEN}'))\n\
         \x20               || ({new_mark}.contains('{OPEN}') && {old_mark} == {new_mark}\n\
         \x20                   && ({old_paused} || {differs}))))))"
    )
}

pub(crate) fn policy() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {
                // The server looks for the label on the old and on the new object: a write that drops it is seen.
                "objectSelector": {"matchExpressions": [{"key": WORKLOAD_TYPE, "operator": "Exists"}]},
                "resourceRules": [
                    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]},
                ],
            },
            "matchConditions": [{"name": "held", "expression": is_held()}],
            "variables": [
                {"name": "oldMark", "expression": entry("oldObject", "annotations", IN_PROGRESSING)},
                {"name": "newMark", "expression": entry("object", "annotations", IN_PROGRESSING)},
                {"name": "mark", "expression": format!(
                    "(variables.oldMark != '' ? variables.oldMark\n\
                     : variables.newMark != '' ? variables.newMark\n\
                     : object.spec.?paused.orValue(false) ? '{MARK_PAUSED}'\n\
                     : '{MARK}').replace('{RELEASED}', '').replace('{OPEN}', '{WAS}')"
                )},
                {"name": "label", "expression": format!(
                    "object.metadata.?labels[?'{WORKLOAD_TYPE}'].orValue({})", entry("oldObject", "labels", WORKLOAD_TYPE)
                )},
            ],
            "mutations": [{
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": format!(
                    "Object{{\n\
                     \x20 metadata: Object.metadata{{\n\
                     \x20   annotations: {{'{IN_PROGRESSING}': variables.mark}},\n\
                     \x20   labels: {{'{WORKLOAD_TYPE}': variables.label}}\n\
                     \x20 }},\n\
                     \x20 spec: Object.spec{{paused: true}}\n\
                     }}"
                )},
            }],
        },
    })
}

pub(crate) fn binding() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY},
        "spec": {"policyName": POLICY},
    })
}
