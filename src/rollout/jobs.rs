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

/// What a Job is told of the release, as environment variables of its containers.
pub type Told<'a> = [(&'static str, String)];

impl Machine<'_> {
    /// A Job of this name from the template of a CronJob, that runs for so many seconds at most.
    pub(super) fn job(&self, name: &str, cron_job: &Value, timeout: i64, told: &Told<'_>) -> Value {
        let template = at(cron_job, &["spec", "jobTemplate"]).map(object::without_nulls).unwrap_or_default();
        let map = |field: &str| at(&template, &["metadata", field]).and_then(Value::as_object).cloned();
        let mut labels = map("labels").unwrap_or_default();
        labels.insert(keys::JOB_OF.to_owned(), "gate".into());
        let mut spec = template.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        let own = spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
        spec.insert("activeDeadlineSeconds".to_owned(), own.map_or(timeout, |own| own.min(timeout)).into());
        spec.entry("ttlSecondsAfterFinished").or_insert_with(|| KEPT.into());
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
