//! What remains of a release that has ended: one RolloutHistory, of which the newest of a Rollout are kept (contract 1.6).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    clock::whole_second_after,
    ending::Ending,
    machine::Machine,
    plan::{Effect, Purpose},
    release::{Scope, owner_reference},
    turn::Turn,
};
use crate::{
    api::{
        GROUP,
        conditions::{self, reasons, types},
        convert::to_v1alpha1,
        keys,
        object::{self, ObjectRef, text},
        v1alpha1::{
            CanaryStepInfo, NetworkInfo, ObjectInfo, PodInfo, RolloutHistorySpec, RolloutHistoryStatus, RolloutInfo,
            TrafficRoutingInfo, WorkloadInfo,
        },
    },
    traffic::{ingress, routes::Missing},
};

/// Records of earlier releases, and how many there may be.
#[derive(Clone, Debug)]
pub struct History {
    /// The newest that are kept.
    pub limit: usize,
    /// Those of this Rollout, or why there cannot be any.
    pub records: Result<Vec<Arc<Value>>, Missing>,
}

const COMPLETED: &str = "completed";

/// An API server takes about 1.5 MiB for one object.
const MOST_BYTES: usize = 1 << 20;

impl Machine<'_> {
    /// Records the release that ends with this pass, and removes the oldest records. The record is there before the
    /// status says that the release has ended, so a crash between the two finds it again by its name.
    pub(super) fn keep_history(&mut self, ending: Ending, scope: &Scope) -> Turn {
        // A Rollout that goes takes its records along.
        let Some(history) = self.snap.history.as_ref().filter(|_| ending != Ending::Deleted) else { return Ok(()) };
        let progressing = conditions::find(&self.status.conditions, types::PROGRESSING);
        let Some(Time(began)) = progressing.filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone())
        else {
            return Ok(());
        };
        if self.status.canary_status.is_none() {
            return Ok(());
        }
        let records = match &history.records {
            Ok(records) => records,
            Err(missing) => {
                let why = match missing {
                    Missing::Forbidden(why) => format!("it may not be read ({why}); grant it: `tidegate rbac`"),
                    _ => "it is not served; install it: `tidegate crd | kubectl apply -f -`".to_owned(),
                };
                self.warn(reasons::NO_HISTORY, format!("the release is not recorded as a RolloutHistory: {why}"));
                return Ok(());
            }
        };
        let id = json!([self.snap.rollout.metadata.uid, began.as_second(), self.sub().canary_revision]);
        let name = name(self.rollout_name(), &id);
        let (own, mut others): (Vec<&Arc<Value>>, Vec<_>) = records.iter().partition(|r| object::name(r) == name);
        let mut effects = Vec::new();
        if !own.iter().any(|record| text(record, &["status", "phase"]) == COMPLETED) {
            let object = self.record_of(ending, scope, &name, Time(began));
            effects.push(Effect::Apply { purpose: Purpose::RecordHistory, object });
        }
        others.retain(|record| !object::is_deleting(record));
        // Times of an API server are in whole seconds and of one form, so that their order is that of the texts.
        others.sort_by_key(|record| (text(record, &["metadata", "creationTimestamp"]), object::name(record)));
        let surplus = (others.len() + 1).saturating_sub(history.limit.max(1));
        effects.extend(others.into_iter().take(surplus).map(|record| Effect::Delete {
            purpose: Purpose::DropHistory,
            target: ObjectRef::new(
                &format!("{GROUP}/v1alpha1"),
                "RolloutHistory",
                object::namespace(record),
                object::name(record),
            ),
            uid: object::uid(record).to_owned(),
            foreground: false,
        }));
        if effects.is_empty() { Ok(()) } else { self.effects(effects) }
    }

    fn record_of(&mut self, ending: Ending, scope: &Scope, name: &str, began: Time) -> Value {
        let succeeded = ending == Ending::Success;
        let rollout = serde_json::to_value(&self.snap.rollout).unwrap_or_default();
        let rollout = to_v1alpha1(&rollout);
        // What a spec of v1alpha1 cannot say stands in annotations of its Rollout.
        let annotations: Vec<(&str, &str)> = [keys::ROLLING_STYLE, keys::TRAFFIC_ROUTING]
            .into_iter()
            .filter_map(|key| Some((key, object::annotation(&rollout, key)?)))
            .collect();
        let annotations: Value = annotations.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        let sub = self.sub().clone();
        let labels: Value =
            [(keys::ROLLOUT_ID, sub.observed_rollout_id.as_str()), (keys::ROLLOUT_NAME, self.rollout_name())]
                .into_iter()
                .filter(|(_, value)| !value.is_empty() && value.len() <= 63)
                .map(|(key, value)| (key.to_owned(), json!(value)))
                .collect();
        let mut spec = RolloutHistorySpec {
            rollout: Some(RolloutInfo {
                rollout_id: sub.observed_rollout_id.clone(),
                name: self.rollout_name().to_owned(),
                data: spec_of(&rollout),
            }),
            workload: Some(WorkloadInfo {
                api_version: scope.workload.api_version.clone(),
                kind: scope.workload.kind.clone(),
                name: scope.workload.name.clone(),
                data: self.snap.workload.as_deref().and_then(spec_of),
            }),
            service: scope.traffic.as_ref().map(|traffic| ObjectInfo {
                name: traffic.names.stable_service.clone(),
                data: self.snap.stable_service.as_deref().and_then(spec_of),
            }),
            traffic_routing: self.routes_of(scope),
        };
        if serde_json::to_string(&spec).is_ok_and(|text| text.len() > MOST_BYTES) {
            without_data(&mut spec);
        }
        // After a rollback the version that it brought is known by the id that it gave the release, or by its pods.
        let has_id = self.workload.as_ref().is_some_and(|w| w.rollout_id().is_some());
        let by_id = if has_id { &sub.pod_template_hash } else { &sub.observed_rollout_id };
        let brought = [&sub.canary_revision, by_id, &sub.pod_template_hash];
        let brought = brought.into_iter().find(|revision| !revision.is_empty() && **revision != sub.stable_revision);
        let status = RolloutHistoryStatus {
            phase: COMPLETED.to_owned(),
            outcome: if succeeded { "Succeeded" } else { "Cancelled" }.to_owned(),
            stable_revision: sub.stable_revision.clone(),
            canary_revision: brought.cloned().unwrap_or_default(),
            start_time: Some(began),
            completion_time: Some(Time(whole_second_after(self.snap.now))),
            canary_steps: self.pods_by_step(succeeded, &sub.observed_rollout_id),
            words: sub.words.clone(),
        };
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "RolloutHistory",
            "metadata": {
                "name": name,
                "namespace": self.snap.rollout.metadata.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner_reference(&self.snap.rollout)],
            },
            "spec": spec,
            "status": status,
        })
    }

    /// The objects that route, as they are after the release; none for a Rollout that routes nothing.
    fn routes_of(&self, scope: &Scope) -> Option<TrafficRoutingInfo> {
        let mut routes = TrafficRoutingInfo::default();
        for network in &self.snap.networks {
            let reference = &network.reference;
            let data = network.object.as_deref().ok().and_then(spec_of);
            let plain = ObjectInfo { name: reference.name.clone(), data: data.clone() };
            match (object::group(&reference.api_version), reference.kind.as_str()) {
                ("networking.k8s.io", ingress::KIND) if routes.ingress.is_none() => routes.ingress = Some(plain),
                ("gateway.networking.k8s.io", "HTTPRoute") if routes.http_route.is_none() => {
                    routes.http_route = Some(plain);
                }
                _ => routes.network_refs.push(NetworkInfo {
                    api_version: reference.api_version.clone(),
                    kind: reference.kind.clone(),
                    name: reference.name.clone(),
                    data,
                }),
            }
        }
        if let Some(ingress) = &self.snap.ingress {
            let data = ingress.stable.as_deref().ok().and_then(spec_of);
            routes.ingress = Some(ObjectInfo { name: ingress.name.clone(), data });
        }
        if let Some(name) = &scope.shared {
            routes.network_refs.push(NetworkInfo {
                api_version: format!("{GROUP}/v1alpha1"),
                kind: "TrafficRouting".to_owned(),
                name: name.clone(),
                data: self.snap.traffic_routing.as_deref().and_then(spec_of),
            });
        }
        (routes != TrafficRoutingInfo::default()).then_some(routes)
    }

    /// Pods carry the step that brought them as a label, where the user gave the release an id. Others came when the
    /// workload was let go after the last step.
    fn pods_by_step(&self, succeeded: bool, id: &str) -> Vec<CanaryStepInfo> {
        let count = self.release().map_or(0, |release| release.count());
        let mut steps: Vec<CanaryStepInfo> =
            (1..=count).map(|index| CanaryStepInfo { canary_step_index: index, pods: Vec::new() }).collect();
        let current = self.workload.as_ref().and_then(|w| w.current()).filter(|_| succeeded);
        let mut pods: Vec<&Arc<Value>> = self.snap.pods.iter().filter(|pod| !object::is_deleting(pod)).collect();
        pods.sort_by_key(|pod| object::name(pod));
        for pod in pods {
            let batch = object::label(pod, keys::ROLLOUT_BATCH_ID)
                .filter(|_| object::label(pod, keys::ROLLOUT_ID) == Some(id))
                .and_then(|batch| batch.parse().ok());
            let is_new = current.is_some_and(|current| current.pods.contains(object::name(pod)));
            let Some(index) = batch.or_else(|| is_new.then_some(count)) else { continue };
            let Some(step) = steps.iter_mut().find(|step| step.canary_step_index == index) else { continue };
            step.pods.push(PodInfo {
                name: object::name(pod).to_owned(),
                ip: text(pod, &["status", "podIP"]).to_owned(),
                node_name: text(pod, &["spec", "nodeName"]).to_owned(),
            });
        }
        steps
    }
}

/// The same release has the same name in every pass.
fn name(rollout: &str, id: &Value) -> String {
    // 253 characters are the limit for a name.
    let base: String = rollout.chars().take(242).collect();
    format!("{}-{}", base.trim_end_matches(['-', '.']), object::digest(id))
}

fn spec_of(object: &Value) -> Option<Value> {
    object.get("spec").map(object::without_nulls)
}

/// Too large for an API server: names alone.
fn without_data(spec: &mut RolloutHistorySpec) {
    let routes = spec.traffic_routing.as_mut();
    let objects = routes.into_iter().flat_map(|routes| {
        routes.network_refs.iter_mut().for_each(|network| network.data = None);
        routes.ingress.iter_mut().chain(&mut routes.http_route)
    });
    objects.chain(&mut spec.service).for_each(|object| object.data = None);
    spec.workload.iter_mut().for_each(|workload| workload.data = None);
}
