//! What people do in the middle of a release.

use std::time::Duration;

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NONE, People, Todo};
use crate::{
    api::{keys, v1beta1::Rollout},
    cli::rollout::approve::approval_patch,
    rehearsal::{
        judges::{Topic, sit},
        script::{Act, Gateway, Kind, Managed, Route, Step, Style},
        world::{self, CANARY, NAMESPACE, SERVICE, Version, WORKLOAD},
    },
};

impl People {
    pub(super) async fn play(&mut self, act: Act) -> bool {
        let Act { kind, arg } = act;
        let seconds = Duration::from_secs(arg.unsigned_abs());
        match kind {
            Kind::Template | Kind::Unready | Kind::CrashLoop => self.push(Version { number: arg, touched: 0 }).await,
            Kind::Touch => self.push(Version { touched: arg, ..self.version.clone() }).await,
            Kind::Rollback => {
                let stable = sit(&self.bench).record.stable.clone();
                let Some(stable) = Version::of(&stable) else { return false };
                self.push(stable).await
            }
            Kind::ApproveTwice => {
                let Some(waiting) = self.waiting() else { return self.say_ready().await };
                self.approve(waiting).await;
                self.say_ready().await
            }
            Kind::ApproveBlindly => self.say_ready().await,
            Kind::ApproveOld => {
                let Some(patch) = self.old_read.as_ref().and_then(|r| approval_patch(r).ok()) else { return false };
                let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
                let _ = rollouts.patch_status(WORKLOAD, &NONE, &Patch::<Value>::Json(patch)).await;
                true
            }
            Kind::Freeze => {
                self.edit_rollout(json!({"spec": {"strategy": {"paused": true}}})).await;
                self.plan_to(seconds, Todo::Thaw);
                true
            }
            Kind::Jump => {
                let steps = i64::try_from(self.plan.len()).unwrap_or_default();
                arg <= steps && self.set_status(json!({"nextStepIndex": arg})).await
            }
            Kind::AddStep | Kind::RemoveStep | Kind::EditStep => self.edit_plan(kind, arg).await,
            Kind::Scale => self.scale("user", arg).await,
            Kind::Hpa if self.setup.workload.is_on_nodes() => false,
            Kind::Hpa => {
                self.plan_to(Duration::ZERO, Todo::Autoscale(Instant::now() + seconds));
                true
            }
            Kind::Disable => {
                self.edit_rollout(json!({"spec": {"disabled": true}})).await;
                if arg > 0 {
                    self.plan_to(seconds, Todo::Enable);
                }
                true
            }
            Kind::Delete => {
                let deleted = self.rollouts().delete(WORKLOAD, &DeleteParams::default()).await.is_ok();
                if deleted && arg > 0 {
                    self.plan_to(seconds, Todo::CreateRollout);
                }
                deleted
            }
            Kind::WorkloadGone => {
                self.excuse(&[Topic::Requests, Topic::Pods], arg + 900);
                self.plan_to(seconds, Todo::CreateWorkload);
                self.workloads("user").delete(WORKLOAD, &DeleteParams::background()).await.is_ok()
            }
            Kind::ServiceGone => {
                self.excuse(&[Topic::Requests], arg + 60);
                self.plan_to(seconds, Todo::CreateService);
                self.delete("v1", "Service", SERVICE).await
            }
            Kind::RouteGone if self.setup.gateway == Gateway::None => false,
            Kind::RouteGone => {
                self.excuse(&[Topic::Requests], arg + 60);
                self.plan_to(seconds, Todo::CreateRoute);
                let Some((api_version, kind, _)) = self.setup.gateway.resource() else { return false };
                self.delete(api_version, kind, WORKLOAD).await
            }
            Kind::EditRoutes => self.edit_routes(arg).await,
            Kind::EditService => {
                let patch = json!({"metadata": {"labels": {"edited": arg.to_string()}}});
                let edited = self.api("user", "v1", "Service").patch(SERVICE, &NONE, &Patch::Merge(&patch)).await;
                json_patch::merge(&mut self.originals.service, &patch);
                edited.is_ok()
            }
            Kind::Put => self.put().await,
            Kind::CanaryGone if self.setup.style != Style::Canary => false,
            Kind::CanaryGone => {
                self.excuse(&[Topic::Requests, Topic::Pods], 90);
                self.delete("apps/v1", "Deployment", CANARY).await
            }
            Kind::Id => {
                let patch = json!({"metadata": {"labels": {keys::ROLLOUT_ID: format!("release-{arg}")}}});
                json_patch::merge(&mut self.originals.workload, &patch);
                self.workloads("user").patch(WORKLOAD, &NONE, &Patch::Merge(&patch)).await.is_ok()
            }
            _ => false,
        }
    }

    async fn delete(&self, api_version: &str, kind: &str, name: &str) -> bool {
        self.api("user", api_version, kind).delete(name, &DeleteParams::background()).await.is_ok()
    }

    pub(super) async fn push(&mut self, version: Version) -> bool {
        self.has_pushed = true;
        self.version = version;
        // Another release: what was approved counts no more, even if it comes back.
        self.approved.clear();
        let patch: Result<json_patch::Patch, _> = serde_json::from_value(
            json!([{"op": "replace", "path": "/spec/template", "value": self.version.template()}]),
        );
        let Ok(patch) = patch else { return false };
        let api = self.workloads("user");
        let Ok(answer) = api.patch(WORKLOAD, &NONE, &Patch::<Value>::Json(patch)).await else { return false };
        if let Some(template) = answer.data.pointer("/spec/template") {
            self.keep_template(template.clone());
        }
        true
    }

    pub(super) async fn scale(&mut self, who: &str, replicas: i64) -> bool {
        if self.setup.workload.is_on_nodes() {
            return false;
        }
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.workloads(who).patch_scale(WORKLOAD, &NONE, &patch).await.is_ok()
    }

    async fn edit_plan(&mut self, kind: Kind, arg: i64) -> bool {
        match kind {
            Kind::AddStep => {
                let route = if self.setup.gateway == Gateway::None { Route::None } else { Route::Weight(45) };
                let at = self.plan.len().saturating_sub(1);
                let replicas = if self.setup.style == Style::BlueGreen { "100%" } else { "50%" };
                self.plan.insert(at, Step { replicas: replicas.to_owned(), route, pause: None });
            }
            Kind::RemoveStep if self.plan.len() < 2 => return false,
            Kind::RemoveStep => {
                self.plan.pop();
            }
            _ => {
                let Some(step) = usize::try_from(arg - 1).ok().and_then(|i| self.plan.get_mut(i)) else { return false };
                match &mut step.route {
                    Route::Weight(weight) => *weight = (*weight + 7).min(100),
                    _ => "60%".clone_into(&mut step.replicas),
                }
            }
        }
        let steps = world::steps(&self.plan, &self.setup);
        self.edit_rollout(json!({"spec": {"strategy": {self.setup.strategy_key(): {"steps": steps}}}})).await;
        true
    }

    async fn edit_routes(&mut self, arg: i64) -> bool {
        let mut patch = json!({"metadata": {"labels": {"edited": arg.to_string()}}});
        let more = match self.setup.gateway {
            Gateway::HttpRoute => json!({"spec": {"hostnames": ["web.example.com"]}}),
            Gateway::Ingress => json!({}),
            _ => json!({"spec": {"exportTo": ["."]}}),
        };
        json_patch::merge(&mut patch, &more);
        let Some((api_version, kind, _)) = self.setup.gateway.resource() else { return false };
        let (cluster, mut is_done) = (self.cluster.clone(), false);
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        for (kind, original) in [(kind, &mut self.originals.route), ("DestinationRule", &mut self.originals.rule)] {
            let Some(original) = original else { continue };
            let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::namespaced_with(cluster.client("user"), NAMESPACE, &resource);
            if api.patch(WORKLOAD, &NONE, &Patch::Merge(&patch)).await.is_ok() {
                json_patch::merge(original, &patch);
                is_done = true;
            }
        }
        is_done
    }

    /// A tool that knows nothing of us writes the whole workload as it has it.
    async fn put(&mut self) -> bool {
        let api = self.workloads("user");
        let Ok(mut object) = api.get(WORKLOAD).await else { return false };
        object.metadata.resource_version = None;
        for map in [&mut object.metadata.labels, &mut object.metadata.annotations].into_iter().flatten() {
            map.retain(|key, _| ![self.setup.workload.switch(), keys::IN_PROGRESSING].contains(&key.as_str()));
        }
        let replicas = object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
        let manifest = world::workload(&self.setup, &self.version, replicas);
        if self.setup.workload == Managed::Deployment {
            json_patch::merge(&mut object.data, &json!({"spec": {"paused": false}}));
        }
        if let (Some(spec), Some(manifest)) = (
            object.data.get_mut("spec").and_then(Value::as_object_mut),
            manifest.get("spec").and_then(Value::as_object),
        ) {
            spec.extend(manifest.clone());
        }
        api.replace(WORKLOAD, &PostParams::default(), &object).await.is_ok()
    }
}
