//! What steps, gates and metrics of a Rollout name.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{ByName, METRIC_TEMPLATE, Objects, Settings, optional};
use crate::{
    analysis::templates::is_built_in,
    api::{
        analysis::Metric,
        object::ObjectRef,
        v1beta1::{Rollout, Step},
    },
    rollout::jobs::{CRON_JOB, JOB},
};

pub(super) fn templates(
    objects: &impl Objects,
    rollout: &Rollout,
    namespace: &str,
    settings: &Settings,
) -> Option<BTreeMap<String, Arc<Value>>> {
    let mut found = BTreeMap::new();
    for name in named_templates(rollout) {
        for namespace in [namespace, &settings.script_namespace] {
            let (api_version, kind) = METRIC_TEMPLATE;
            if let Some(object) = optional(objects.get(&ObjectRef::new(api_version, kind, namespace, name)))? {
                found.insert(name.to_owned(), object);
                break;
            }
        }
    }
    Some(found)
}

/// The CronJobs that gates of a Rollout name, and the Jobs that were made for it.
pub(super) fn jobs(objects: &impl Objects, rollout: &Rollout, namespace: &str) -> Option<(ByName, Vec<Arc<Value>>)> {
    let mut templates = BTreeMap::new();
    for name in named_cron_jobs(rollout) {
        let object = optional(objects.get(&ObjectRef::new(CRON_JOB.0, CRON_JOB.1, namespace, name)))?;
        templates.extend(object.map(|object| (name.to_owned(), object)));
    }
    if named_cron_jobs(rollout).next().is_none() {
        return Some((templates, Vec::new()));
    }
    let uid = rollout.metadata.uid.as_deref().unwrap_or_default();
    Some((templates, objects.tied(JOB.0, JOB.1, namespace, uid)?))
}

/// Names of the CronJobs that gates and metrics of a Rollout name.
pub fn named_cron_jobs(rollout: &Rollout) -> impl Iterator<Item = &str> {
    let gates = steps(rollout).flat_map(|step| &step.gates);
    let of_gates = gates.filter_map(|gate| Some(gate.job.as_ref()?.cron_job.as_str()));
    let by_job = |metric: &&Metric| metric.provider.as_ref().is_some_and(|provider| provider.job.is_some());
    of_gates.chain(metrics(rollout).filter(by_job).filter_map(|metric| metric.query.as_deref()))
}

fn steps(rollout: &Rollout) -> impl Iterator<Item = &Step> {
    let strategy = &rollout.spec.strategy;
    let canary = strategy.canary.iter().flat_map(|s| &s.steps);
    canary.chain(strategy.blue_green.iter().flat_map(|s| &s.steps))
}

/// All metrics of a Rollout.
fn metrics(rollout: &Rollout) -> impl Iterator<Item = &Metric> {
    let analyses = steps(rollout).filter_map(|step| step.analysis.as_ref()).chain(&rollout.spec.strategy.analysis);
    analyses.flat_map(|analysis| &analysis.metrics)
}

/// Names of the MetricTemplates that a Rollout names, without built-in ones.
pub fn named_templates(rollout: &Rollout) -> impl Iterator<Item = &str> {
    let names = metrics(rollout).filter_map(|m| Some(m.template.as_ref()?.name.as_str()));
    names.filter(|name| !is_built_in(name))
}
