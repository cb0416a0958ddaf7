//! Jobs that are run for a release: made from the template of a CronJob, owned by the Rollout, and read.

use serde_json::{Map, Value, json};

use super::{machine::Machine, release::owner_reference};
use crate::api::{
    keys,
    object::{self, at, text},
};

/// API version and kind of Jobs.
pub const JOB: (&str, &str) = ("batch/v1", "Job");
/// API version and kind of what Jobs are made from.
pub const CRON_JOB: (&str, &str) = ("batch/v1", "CronJob");

/// Seconds for which a Job that has ended is kept, where its template does not say.
const KEPT: i64 = 86_400;
/// Of one that measured; its value is in the status by then.
const KEPT_OF_METRIC: i64 = 3_600;

/// How a Job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It has not ended.
    Runs,
    /// It has ended well.
    Succeeded,
    /// It has not; why.
    Failed(String),
}

/// Reads a Job.
pub fn state(job: &Value) -> JobState {
    let conditions = at(job, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    for condition in conditions.filter(|c| text(c, &["status"]) == "True") {
        match text(condition, &["type"]) {
            "Complete" => return JobState::Succeeded,
            "Failed" => {
                let (reason, message) = (text(condition, &["reason"]), text(condition, &["message"]));
                let why = if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
                return JobState::Failed(super::calls::short(&why));
            }
            _ => {}
        }
    }
    JobState::Runs
}

/// What a Job is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// A gate; once a step.
    Gate,
    /// A metric; again and again.
    Metric,
}

impl Run {
    fn as_str(self) -> &'static str {
        match self {
            Run::Gate => "gate",
            Run::Metric => "metric",
        }
    }

    fn kept(self) -> i64 {
        match self {
            Run::Gate => KEPT,
            Run::Metric => KEPT_OF_METRIC,
        }
    }
}

/// What a Job is told of the release, as environment variables of its containers.
pub type Told<'a> = [(&'static str, String)];

impl Machine<'_> {
    /// What a Job is told of the release.
    pub(super) fn told(&self, index: i32) -> [(&'static str, String); 5] {
        let sub = self.status.canary_status.clone().unwrap_or_default();
        [
            ("TIDEGATE_ROLLOUT", self.rollout_name().to_owned()),
            ("TIDEGATE_STEP", index.to_string()),
            ("TIDEGATE_STABLE_REVISION", sub.stable_revision),
            ("TIDEGATE_CANARY_REVISION", sub.canary_revision),
            ("TIDEGATE_CANARY_HASH", sub.pod_template_hash),
        ]
    }

    /// What a pod's name adds has to fit into 63 characters.
    pub(super) fn name_of_job(&self, id: &Value) -> String {
        let base: String = self.rollout_name().chars().take(45).collect();
        format!("{}-{}", base.trim_end_matches(['-', '.']), object::digest(id))
    }

    /// A Job of this name from the template of a CronJob, that runs for so many seconds at most.
    pub(super) fn job(&self, what: Run, name: &str, cron_job: &Value, timeout: i64, told: &Told<'_>) -> Value {
        let template = at(cron_job, &["spec", "jobTemplate"]).map(object::without_nulls).unwrap_or_default();
        let map = |field: &str| at(&template, &["metadata", field]).and_then(Value::as_object).cloned();
        let mut labels = map("labels").unwrap_or_default();
        labels.insert(keys::JOB_OF.to_owned(), what.as_str().into());
        let mut spec = template.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        let own = spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
        spec.insert("activeDeadlineSeconds".to_owned(), own.map_or(timeout, |own| own.min(timeout)).into());
        spec.entry("ttlSecondsAfterFinished").or_insert_with(|| what.kept().into());
        let pod = spec.get_mut("template").and_then(|t| t.get_mut("spec")).and_then(Value::as_object_mut);
        if let Some(pod) = pod {
            tell(pod, told);
        }
        json!({
            "apiVersion": JOB.0,
            "kind": JOB.1,
            "metadata": {
                "name": name,
                "namespace": self.snap.rollout.metadata.namespace,
                "labels": labels,
                "annotations": map("annotations").unwrap_or_default(),
                "ownerReferences": [owner_reference(&self.snap.rollout)],
            },
            "spec": spec,
        })
    }
}

/// Adds environment variables; what the template says itself stays.
fn tell(pod: &mut Map<String, Value>, told: &Told<'_>) {
    for list in ["containers", "initContainers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let env = container.entry("env").or_insert_with(|| json!([]));
            let Some(env) = env.as_array_mut() else { continue };
            for (name, value) in told {
                if !env.iter().any(|known| text(known, &["name"]) == *name) {
                    env.push(json!({"name": name, "value": value}));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_a_job_ended() {
        for (conditions, wanted) in [
            (json!(null), JobState::Runs),
            (json!([{"type": "Suspended", "status": "True"}]), JobState::Runs),
            (json!([{"type": "Complete", "status": "False"}]), JobState::Runs),
            (
                json!([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]),
                JobState::Succeeded,
            ),
            (
                json!([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}]),
                JobState::Failed("DeadlineExceeded: Job was active longer than specified deadline".into()),
            ),
            (
                json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]),
                JobState::Failed("BackoffLimitExceeded".into()),
            ),
        ] {
            assert_eq!(state(&json!({"status": {"conditions": conditions}})), wanted);
        }
    }

    #[test]
    fn what_a_template_says_stays() {
        let mut pod =
            json!({"containers": [{"name": "a", "env": [{"name": "TIDEGATE_STEP", "value": "mine"}]}, {"name": "b"}]});
        tell(pod.as_object_mut().unwrap(), &[("TIDEGATE_STEP", "2".into()), ("TIDEGATE_ROLLOUT", "shop".into())]);
        assert_eq!(
            pod["containers"],
            json!([
                {"name": "a", "env": [{"name": "TIDEGATE_STEP", "value": "mine"}, {"name": "TIDEGATE_ROLLOUT", "value": "shop"}]},
                {"name": "b", "env": [{"name": "TIDEGATE_STEP", "value": "2"}, {"name": "TIDEGATE_ROLLOUT", "value": "shop"}]},
            ])
        );
    }
}
