//! What is done in the middle of a release.

use std::time::Duration;

use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tidegate::{
    api::keys::{ROLLOUT_ID, WORKLOAD_TYPE},
    cli::rollout::approve::approval_patch,
    sim::{Gvr, NEVER_READY},
};

use super::{Play, key, steps};
use crate::{
    deeds::Deed::{self, *},
    stage::{NAME, NAMESPACE, Row},
};

impl Play {
    async fn set_status(&self, patch: Value) {
        let key = if self.style == "blueGreen" { "blueGreenStatus" } else { "canaryStatus" };
        let api = self.stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
        let patch = json!({"status": {key: patch}});
        api.patch_status("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(super) async fn touch(&mut self, is_touched: bool) {
        self.touched = if is_touched { " touched" } else { "" };
        self.allow();
        // An API server stores no empty map.
        let annotations = if is_touched { json!({"touched": "yes"}) } else { Value::Null };
        self.stage.patch_deployment(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await;
    }

    async fn set_steps(&self, steps: Value) {
        // The number of steps may change only through v1alpha1.
        let api = self.stage.api("rollouts.kruise.io", "v1alpha1", "Rollout");
        let patch = json!({"spec": {"strategy": {key(self.style): {"steps": steps}}}});
        api.patch("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn scale(&self, replicas: i64) {
        if self.way.row.is_on_nodes {
            self.stage.set_nodes(replicas as usize).await;
        } else {
            self.stage.patch_deployment(json!({"spec": {"replicas": replicas}})).await;
        }
    }

    async fn delete(&self, group: &str, version: &str, kind: &str, plural: &str, name: &str) {
        let api = self.stage.api(group, version, kind);
        api.delete(name, &Default::default()).await.unwrap();
        let gvr = Gvr::new(group, version, plural);
        self.stage.until("gone", |s| s.view.get(&gvr, NAMESPACE, name).is_none()).await;
    }

    fn create(&self, mut object: Value) {
        let metadata = object["metadata"].clone();
        let mut kept = json!({"name": metadata["name"], "namespace": NAMESPACE});
        for field in ["labels", "annotations"] {
            if !metadata[field].is_null() {
                kept[field] = metadata[field].clone();
            }
        }
        object["metadata"] = kept;
        object.as_object_mut().unwrap().remove("status");
        if let Some(spec) = object["spec"].as_object_mut() {
            for field in ["clusterIP", "clusterIPs"] {
                spec.remove(field);
            }
        }
        self.stage.cluster.create(object).unwrap();
    }

    pub(super) async fn sleep(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    pub(super) async fn act(&mut self, deed: Deed) {
        self.opens |= deed.opens();
        self.is_second_free = self.approvals > 1;
        if deed.opens() {
            self.log.lock().unwrap().allowed.clear();
        }
        match deed {
            ApproveBlindly => self.set_status(json!({"currentStepState": "StepReady"})).await,
            ApproveTwice => {
                for _ in 0..2 {
                    self.set_status(json!({"currentStepState": "StepReady"})).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            ApproveOld => {
                if self.waits() == Some(1) {
                    self.approve_what_waits().await;
                    self.sleep(30).await;
                }
                if let Some(patch) = self.old_read.as_ref().and_then(|read| approval_patch(read).ok()) {
                    let api = self.stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
                    let answer = api.patch_status("r", &PatchParams::default(), &Patch::Json::<()>(patch)).await;
                    assert!(answer.is_err(), "an old approval is taken");
                }
            }
            Freeze => {
                self.stage.patch_rollout(json!({"spec": {"strategy": {"paused": true}}})).await;
                self.sleep(5).await;
                let before = self.stage.sub()["currentStepIndex"].clone();
                self.sleep(60).await;
                assert_eq!(before, self.stage.sub()["currentStepIndex"]);
                self.stage.patch_rollout(json!({"spec": {"strategy": {"paused": false}}})).await;
            }
            FreezeAndRollBack => {
                self.stage.patch_rollout(json!({"spec": {"strategy": {"paused": true}}})).await;
                self.push("base").await;
            }
            JumpTo(step) => self.set_status(json!({"nextStepIndex": step})).await,
            EditStep => {
                let mut steps = steps(self.style);
                steps[1]["replicas"] = json!("100%");
                steps[0]["traffic"] = json!("30%");
                self.set_steps(steps).await;
            }
            AddStep => {
                let mut steps = steps(self.style);
                steps.as_array_mut().unwrap().push(json!({"replicas": "100%"}));
                self.set_steps(steps).await;
            }
            RemoveStep => {
                let steps = steps(self.style)[0].clone();
                self.set_steps(json!([steps])).await;
            }
            RollBack => self.push("base").await,
            Third => self.push("third").await,
            ThirdAndAllTheWayBack => {
                for version in ["third", "canary", "base"] {
                    self.push(version).await;
                    self.sleep(4).await;
                }
            }
            TouchTemplate => {
                self.approvals = 0;
                self.touch(true).await;
            }
            TouchWorkload => {
                self.stage.patch_deployment(json!({"metadata": {"annotations": {"team": "web"}}})).await;
                self.deployment["metadata"]["annotations"]["team"] = json!("web");
            }
            GiveId => {
                let label = json!({ROLLOUT_ID: "second"});
                self.stage.patch_deployment(json!({"metadata": {"labels": label}})).await;
                json_patch::merge(&mut self.deployment, &json!({"metadata": {"labels": label}}));
            }
            Scale(replicas) => self.scale(replicas).await,
            ScaleToZeroAndBack => {
                self.scale(0).await;
                self.sleep(30).await;
                self.scale(3).await;
            }
            Autoscale => {
                for n in 0..16 {
                    self.scale(2 + (n * 5) % 4).await;
                    self.sleep(3).await;
                }
            }
            Disable | DisableAndEnable => {
                self.stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
                if deed == DisableAndEnable {
                    self.sleep(10).await;
                    self.stage.patch_rollout(json!({"spec": {"disabled": false}})).await;
                }
            }
            Delete | DeleteAndCreate => {
                let rollout = self.stage.rollout();
                self.delete("rollouts.kruise.io", "v1beta1", "Rollout", "rollouts", "r").await;
                if deed == DeleteAndCreate {
                    self.create((*rollout).clone());
                }
            }
            WorkloadGone | WorkloadAgain => {
                let Row { api_version, kind, plural, .. } = self.way.row;
                let (group, version) = api_version.split_once('/').unwrap();
                self.delete(group, version, kind, plural, NAME).await;
                if deed == WorkloadAgain {
                    self.released = "base";
                    self.sleep(20).await;
                    self.create(self.deployment.clone());
                }
            }
            ServiceAgain => {
                self.delete("", "v1", "Service", "services", "nginx-service").await;
                self.sleep(20).await;
                self.create(self.service.clone());
            }
            EditService => {
                let patch = json!({"metadata": {"labels": {"team": "web"}}, "spec": {"sessionAffinity": "ClientIP"}});
                let api = self.stage.api("", "v1", "Service");
                api.patch("nginx-service", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                json_patch::merge(&mut self.service, &patch);
            }
            RouteAgain => {
                self.delete("networking.istio.io", "v1beta1", "VirtualService", "virtualservices", "nginx-vs").await;
                self.sleep(20).await;
                self.create(self.route.clone());
            }
            EditRoute => {
                let patch = json!({"metadata": {"labels": {"team": "web"}}, "spec": {"exportTo": ["."]}});
                let api = self.stage.api("networking.istio.io", "v1beta1", "VirtualService");
                api.patch("nginx-vs", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                json_patch::merge(&mut self.route, &patch);
            }
            Put => {
                let (group, version) = self.way.row.api_version.split_once('/').unwrap();
                let api = self.stage.api(group, version, self.way.row.kind);
                let mut object: DynamicObject = api.get(NAME).await.unwrap();
                if self.way.row.definition.is_none() {
                    object.metadata.resource_version = None;
                }
                let is_his_word = |key: &str| key == WORKLOAD_TYPE && self.way.row.behaves_as.is_some();
                object.labels_mut().retain(|key, _| !key.contains("kruise") || is_his_word(key));
                object.annotations_mut().retain(|key, _| !key.contains("kruise"));
                // What its author knows.
                for field in ["strategy", "updateStrategy", "minReadySeconds", "progressDeadlineSeconds"] {
                    object.data["spec"][field] = self.deployment["spec"][field].clone();
                }
                object.data["spec"]["paused"] = json!(false);
                object.data["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
                api.replace(NAME, &PostParams::default(), &object).await.unwrap();
            }
            NeverReadyThenFixed => {
                if self.style == "blueGreen" {
                    self.push("base").await;
                    self.stage.ends().await;
                }
                let broken = json!({"metadata": {"annotations": {NEVER_READY: "yes"}}});
                self.stage.patch_deployment(json!({"spec": {"template": broken}})).await;
                self.sleep(40).await;
                if self.style == "blueGreen" {
                    let fixed = json!({"metadata": {"annotations": null}});
                    self.stage.patch_deployment(json!({"spec": {"template": fixed}})).await;
                    self.stage.ends().await;
                } else {
                    let fixed = json!({"metadata": {"annotations": null}});
                    self.stage.patch_deployment(json!({"spec": {"template": fixed}})).await;
                }
                self.push("third").await;
            }
        }
    }
}
