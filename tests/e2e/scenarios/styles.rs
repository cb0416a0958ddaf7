//! Releases of a Deployment in every style on the real Deployment controller, under a steady load: one row each.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::api::keys::{IN_PROGRESSING, MANAGED, ROLLOUT_ID, WORKLOAD_TYPE};

use super::story::{BASE, CANARY};
use crate::rig::{
    Rig,
    ledger::Ledger,
    load::Steady,
    poll::{SOON, until},
    space::{Space, example},
};

pub const THIRD: &str = "nginx-configmap-third";
const NAME: &str = "nginx-deployment";
const ROLLOUT: (&str, &str, &str) = ("rollouts.kruise.io/v1beta1", "Rollout", "rollouts-demo");
const REPLICAS: usize = 6;

/// What is released.
pub struct On {
    pub api_version: &'static str,
    pub kind: &'static str,
    /// What its spec has beside selector and template.
    pub spec: fn() -> Value,
    pub pods: usize,
    /// So many of them are Ready at every moment.
    pub least: usize,
    /// One pod on each of so many nodes of its own.
    pub is_on_nodes: bool,
    /// What its owner says that it behaves as; known kinds need nobody's word.
    pub behaves_as: Option<&'static str>,
}

impl On {
    /// Label by which it is held.
    fn switch(&self) -> &'static str {
        if self.behaves_as.is_some() { MANAGED } else { WORKLOAD_TYPE }
    }
}

/// Of six pods one may be surplus and none missing.
const DEPLOYMENT: On = On {
    api_version: "apps/v1",
    kind: "Deployment",
    spec: || json!({"replicas": REPLICAS, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}),
    pods: REPLICAS,
    least: REPLICAS,
    is_on_nodes: false,
    behaves_as: None,
};

/// One namespace with a workload behind two Services.
struct Play {
    on: &'static On,
    space: Space,
    load: Steady,
    ledger: Ledger,
    /// The Deployment's spec and the route before the release.
    before: (Value, Value),
}

impl Play {
    async fn begin(rig: &Arc<Rig>, on: &'static On, namespace: &str, strategy: Value) -> Result<Play> {
        let space = rig.space(namespace).await?;
        let on_nodes =
            json!({"nodeSelector": {"story": namespace}, "tolerations": [{"key": "story", "operator": "Exists"}]});
        for i in 0..if on.is_on_nodes { on.pods } else { 0 } {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("{namespace}-{i}"), "labels": {"story": namespace}},
                "spec": {"taints": [{"key": "story", "effect": "NoSchedule"}]}});
            rig.objects.apply(&node).await?;
        }
        let mut third = None;
        for mut object in example("istio")? {
            match object["kind"].as_str() {
                Some("Rollout" | "DestinationRule") => continue,
                Some("Deployment") => {
                    (object["apiVersion"], object["kind"]) = (json!(on.api_version), json!(on.kind));
                    object["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
                    if let Some(behaves_as) = on.behaves_as {
                        json_patch::merge(&mut object["metadata"], &json!({"labels": {WORKLOAD_TYPE: behaves_as}}));
                    }
                    json_patch::merge(&mut object["spec"], &(on.spec)());
                    if on.is_on_nodes {
                        json_patch::merge(&mut object["spec"]["template"]["spec"], &on_nodes);
                    }
                }
                Some("VirtualService") => {
                    let route = &mut object["spec"]["http"][0]["route"][0]["destination"];
                    route.as_object_mut().map(|r| r.remove("subset"));
                }
                Some("ConfigMap") => {
                    let mut copy = object.clone();
                    copy["metadata"]["name"] = json!(THIRD);
                    third = Some(copy);
                }
                _ => {}
            }
            space.apply(&object).await?;
        }
        space.apply(&third.unwrap_or_default()).await?;
        is_rolled_out(&space, on).await?;
        space.gateway().settles("the gateway answers", |_| Ok(())).await?;
        space
            .apply(&json!({"apiVersion": ROLLOUT.0, "kind": ROLLOUT.1, "metadata": {"name": ROLLOUT.2}, "spec": {
                "workloadRef": {"apiVersion": on.api_version, "kind": on.kind, "name": NAME}, "strategy": strategy}}))
            .await?;
        let load = space.gateway().steady(60);
        let ledger = Ledger::open(&space).await?;
        let play = Play { on, before: (Value::Null, Value::Null), load, ledger, space };
        let api = play.space.rig.objects.api(on.api_version, on.kind, &play.space.name);
        let dry = PatchParams { dry_run: true, ..Default::default() };
        let probe = Patch::Merge(json!({"spec": {"template": {"metadata": {"annotations": {"probe": "yes"}}}}}));
        until("the workload is under the hold", SOON, async || {
            let labels = play.deployment().await?["metadata"]["labels"].clone();
            ensure!(!labels[on.switch()].is_null(), "labels: {labels}");
            let status = play.status().await?;
            ensure!(status["phase"] == "Healthy", "status: {status}");
            // The server takes some seconds to act on a policy of a kind that has just come.
            let answer = serde_json::to_value(api.patch(NAME, &dry, &probe).await?)?;
            ensure!(!answer["metadata"]["annotations"][IN_PROGRESSING].is_null(), "a write would not be held yet");
            Ok(())
        })
        .await?;
        let before = (play.deployment().await?["spec"].clone(), play.route().await?);
        Ok(Play { before, ..play })
    }

    async fn deployment(&self) -> Result<Value> {
        self.space.get(self.on.api_version, self.on.kind, NAME).await
    }

    async fn status(&self) -> Result<Value> {
        Ok(self.space.get(ROLLOUT.0, ROLLOUT.1, ROLLOUT.2).await?["status"].clone())
    }

    async fn route(&self) -> Result<Value> {
        let (api_version, kind, name) = super::story::VIRTUAL_SERVICE;
        Ok(self.space.get(api_version, kind, name).await?["spec"].clone())
    }

    async fn mount(&self, version: &str, node_selector: Value) -> Result<()> {
        let api = self.space.rig.objects.api(self.on.api_version, self.on.kind, &self.space.name);
        let mut patch =
            json!([{"op": "replace", "path": "/spec/template/spec/volumes/0/configMap/name", "value": version}]);
        if let (Some(patch), "Deployment") = (patch.as_array_mut(), self.on.kind) {
            patch.push(json!({"op": "add", "path": "/spec/template/spec/nodeSelector", "value": node_selector}));
        }
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        let answer = serde_json::to_value(api.patch(NAME, &PatchParams::default(), &patch).await?)?;
        ensure!(
            !answer["metadata"]["annotations"][IN_PROGRESSING].is_null(),
            "the write was not held: {}",
            answer["spec"]
        );
        Ok(())
    }

    async fn paused_at(&self, step: u64) -> Result<()> {
        until(&format!("step {step} waits"), 2 * SOON, async || {
            let status = self.status().await?;
            let sub =
                if status["canaryStatus"].is_null() { &status["blueGreenStatus"] } else { &status["canaryStatus"] };
            ensure!(sub["currentStepIndex"] == step && sub["pausedStepIndex"] == step, "status: {status}");
            Ok(())
        })
        .await?;
        self.load.check(&format!("step {step}")).await
    }

    /// As `kubectl patch --subresource status` does it.
    async fn patch_release(&self, field: &str, value: Value) -> Result<()> {
        let sub = if self.status().await?["canaryStatus"].is_null() { "blueGreenStatus" } else { "canaryStatus" };
        let api = self.space.rig.objects.api(ROLLOUT.0, ROLLOUT.1, &self.space.name);
        let patch = Patch::Merge(json!({"status": {sub: {field: value}}}));
        api.patch_status(ROLLOUT.2, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Ready pods of each version, and that it stays so for a while.
    async fn has(&self, expected: &[(&str, usize)]) -> Result<()> {
        let right = async || {
            let pods = self.space.pods("app=nginx").await?;
            let of = |version: &str| {
                let ready = |p: &&Value| {
                    let conditions = p["status"]["conditions"].as_array();
                    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
                };
                let mounts = |p: &&Value| p["spec"]["volumes"][0]["configMap"]["name"] == version;
                pods.iter().filter(mounts).filter(ready).count()
            };
            let counts: Vec<_> =
                [BASE, CANARY, THIRD].map(|v| (v, of(v))).into_iter().filter(|(_, n)| *n > 0).collect();
            ensure!(counts == expected, "ready: {counts:?}");
            Ok(())
        };
        until(&format!("pods are {expected:?}"), SOON, async || right().await).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        right().await
    }

    /// The share of requests that a version answers, once the route has arrived.
    async fn answers(&self, version: &str, share: f64) -> Result<()> {
        until(&format!("{version} answers {share}"), SOON, async || {
            let tally = self.space.gateway().send(400).await;
            eprintln!("e2e: {}: {share} to {version}: {tally}", self.space.name);
            tally.has_share(version, share)
        })
        .await
    }

    async fn deed(self, deed: Deed) -> Result<Option<Play>> {
        match deed {
            Mount(version) => self.mount(version, json!({})).await?,
            MountBroken(version) => self.mount(version, json!({"no-such": "node"})).await?,
            Paused(step) => self.paused_at(step).await?,
            Approve => self.patch_release("currentStepState", json!("StepReady")).await?,
            Jump(step) => self.patch_release("nextStepIndex", json!(step)).await?,
            Has(pods) => self.has(pods).await?,
            Answers(version, share) => self.answers(version, share).await?,
            Asked((header, value), version) => {
                let target = self.space.gateway().with(header, value);
                target.settles(&format!("{version} answers {header}: {value}"), |tally| tally.only(version)).await?;
            }
            Id(id) => {
                let labels = json!({"metadata": {"labels": {ROLLOUT_ID: id}}});
                self.space.merge(self.on.api_version, self.on.kind, NAME, labels).await?;
            }
            Labelled(id, wanted) => {
                until(&format!("{wanted} pods carry {id}"), SOON, async || {
                    let found = self.space.pods(&format!("{ROLLOUT_ID}={id}")).await?.len();
                    ensure!(found == wanted, "{found} do");
                    Ok(())
                })
                .await?;
            }
            Deployment(spec) => {
                self.space.merge(self.on.api_version, self.on.kind, NAME, json!({"spec": spec})).await?;
            }
            Rollout(operations) => {
                let api = self.space.rig.objects.api(ROLLOUT.0, ROLLOUT.1, &self.space.name);
                let patch = Patch::Json::<()>(serde_json::from_value(operations)?);
                api.patch(ROLLOUT.2, &PatchParams::default(), &patch).await?;
            }
            Says(words) => {
                until(&format!("the Rollout says {words:?}"), SOON, async || {
                    let status = self.status().await?;
                    ensure!(status["message"].as_str().is_some_and(|m| m.contains(words)), "{status}");
                    Ok(())
                })
                .await?;
            }
            Delete => self.space.rig.objects.kill(ROLLOUT.0, ROLLOUT.1, &self.space.name, ROLLOUT.2).await?,
            End(version) => {
                self.ended(version).await?;
                return Ok(None);
            }
            Left(version) => {
                self.left(version).await?;
                return Ok(None);
            }
        }
        Ok(Some(self))
    }

    /// The Rollout has let go, and the Deployment is an ordinary one.
    async fn left(self, version: &str) -> Result<()> {
        until("the Rollout has let go", 2 * SOON, async || {
            let labels = self.deployment().await?["metadata"]["labels"].clone();
            ensure!(labels[self.on.switch()].is_null(), "labels: {labels}");
            ensure!(labels[WORKLOAD_TYPE].as_str() == self.on.behaves_as, "what its owner says stays: {labels}");
            Ok(())
        })
        .await?;
        self.matches_before(version).await
    }

    /// The release is over: all is as before but for the version, and nobody noticed.
    async fn ended(self, version: &str) -> Result<()> {
        until("the release ends", 2 * SOON, async || {
            let status = self.status().await?;
            let done = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Progressing" && c["reason"] == "Completed");
            ensure!(status["phase"] == "Healthy" && done, "status: {status}");
            Ok(())
        })
        .await?;
        self.matches_before(version).await
    }

    async fn matches_before(self, version: &str) -> Result<()> {
        let deployment = is_rolled_out(&self.space, self.on).await?;
        let pods = deployment["spec"]["replicas"].as_u64().map_or(Ok(self.on.pods), usize::try_from)?;
        self.has(&[(version, pods)]).await?;
        let mut before = self.before.0.clone();
        before["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(version);
        if !self.on.is_on_nodes {
            before["replicas"] = deployment["spec"]["replicas"].clone();
        }
        ensure!(
            before == deployment["spec"],
            "the Deployment is not as it was\nbefore: {before}\nafter: {}",
            deployment["spec"]
        );
        ensure!(deployment["metadata"]["annotations"][IN_PROGRESSING].is_null(), "the mark is still there");
        ensure!(self.before.1 == self.route().await?, "the route is not as it was");
        for set in self.space.rig.objects.list("apps/v1", "ReplicaSet", &self.space.name, "app=nginx").await? {
            ensure!(set["spec"]["minReadySeconds"].as_i64().unwrap_or(0) == 0, "{}", set["spec"]);
        }
        let moments = self.ledger.capacity_before_traffic(self.on.least)?;
        let tally = self.load.stop().await?;
        eprintln!(
            "e2e: {}: {} pods Ready at each of {moments} moments; steady load: {tally}",
            self.space.name, self.on.least
        );
        tally.none_failed()
    }
}

/// Waits until every pod of a workload is of its template and available.
async fn is_rolled_out(space: &Space, on: &On) -> Result<Value> {
    until(&format!("{} {NAME} has rolled out", on.kind), 2 * SOON, async || {
        let workload = space.get(on.api_version, on.kind, NAME).await?;
        let status = &workload["status"];
        let fields: &[&str] = if on.is_on_nodes {
            &["currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"]
        } else {
            &["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
        };
        let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(on.pods as u64);
        let is_current = workload["metadata"]["generation"] == status["observedGeneration"];
        ensure!(is_current && fields.iter().all(|field| status[field] == wanted), "{status}");
        Ok(workload.clone())
    })
    .await
}

/// What is done or looked at, in order.
pub enum Deed {
    /// The template mounts another ConfigMap; the write is held.
    Mount(&'static str),
    /// The same, with pods that no node takes.
    MountBroken(&'static str),
    /// A step waits for approval.
    Paused(u64),
    Approve,
    /// `nextStepIndex`, as `kubectl patch` writes it.
    Jump(u64),
    /// Ready pods of each version, now and two seconds later.
    Has(&'static [(&'static str, usize)]),
    /// The share of requests that a version answers.
    Answers(&'static str, f64),
    /// Who answers all requests with this header.
    Asked((&'static str, &'static str), &'static str),
    /// The id of the release, on the workload.
    Id(&'static str),
    /// So many pods carry this id.
    Labelled(&'static str, usize),
    /// A merge patch of the Deployment's spec.
    Deployment(Value),
    /// A JSON patch of the Rollout.
    Rollout(Value),
    /// The Rollout's message says so.
    Says(&'static str),
    /// The Rollout is deleted.
    Delete,
    /// All is as before but for the version, and nobody noticed.
    End(&'static str),
    /// The Rollout is gone or disabled, the Deployment has rolled to the version by itself, and nobody noticed.
    Left(&'static str),
}

use Deed::*;

/// A release and the strategy of its Rollout.
pub struct Row {
    pub name: &'static str,
    pub strategy: fn() -> Value,
    pub deeds: fn() -> Vec<Deed>,
}

pub fn routing(mut strategy: Value) -> Value {
    let (api_version, kind, name) = super::story::VIRTUAL_SERVICE;
    for part in ["canary", "blueGreen"] {
        if let Some(part) = strategy.get_mut(part) {
            part["trafficRoutings"] = json!([{"service": "nginx-service",
                "networkRefs": [{"apiVersion": api_version, "kind": kind, "name": name}]}]);
        }
    }
    strategy
}

fn steps() -> Value {
    json!([{"replicas": "30%", "traffic": "20%"}, {"replicas": 3, "traffic": "50%"}, {"replicas": "100%"}])
}

fn in_place() -> Value {
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps()}}))
}

fn in_place_without_traffic() -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [{"replicas": "50%"}, {"replicas": "60%"}, {"replicas": "100%"}]}})
}

fn canary() -> Value {
    routing(json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps()}}))
}

fn blue_green() -> Value {
    routing(json!({"blueGreen": {"steps": [
        {"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]}}))
}

/// Who a user is says which version answers him.
pub fn by_header() -> Value {
    let header = json!({"type": "Exact", "name": USER.0, "value": USER.1});
    let beta = json!([{"headers": [header]}]);
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [
        {"replicas": 1, "matches": beta}, {"replicas": "50%", "traffic": "50%"}, {"replicas": "100%"}]}}))
}

const USER: (&str, &str) = ("x-user", "beta");

/// Its deeds, on a workload of so many pods.
pub fn asked_by_header() -> Vec<Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Asked(USER, CANARY),
        Asked(("x-user", "other"), BASE),
        Answers(BASE, 1.0),
        Approve,
        Paused(2),
        Answers(CANARY, 0.5),
        Approve,
        End(CANARY),
    ]
}

/// Another id and nothing else: the pods of the step are labelled anew, and none is made anew.
pub fn named_anew() -> Vec<Deed> {
    vec![
        Id("first"),
        Mount(CANARY),
        Paused(1),
        Labelled("first", 1),
        Id("second"),
        Labelled("second", 1),
        Labelled("first", 0),
        Paused(1),
        Approve,
        Paused(2),
        Approve,
        End(CANARY),
    ]
}

fn five_steps() -> Value {
    let step = |share: &str| json!({"replicas": share, "traffic": share, "pause": {"duration": 1}});
    routing(json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": [
        step("20%"), step("40%"), step("60%"), step("80%"), {"replicas": "100%", "traffic": "100%"}]}}))
}

const BOTH: &[(&str, usize)] = &[(BASE, REPLICAS), (CANARY, REPLICAS)];

/// A blue-green release of three steps, with a third version in between that is refused. `both`: pods of both versions.
pub(super) fn switch(both: &'static [(&'static str, usize)]) -> Vec<Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Has(both),
        Answers(CANARY, 0.0),
        Mount(THIRD),
        Says("please rollback first"),
        Has(both),
        Mount(CANARY),
        Paused(1),
        Approve,
        Paused(2),
        Answers(CANARY, 0.5),
        Approve,
        Paused(3),
        Answers(CANARY, 1.0),
        Has(both),
        Approve,
        End(CANARY),
    ]
}

/// The scenarios that users of OpenKruise Rollouts know for Deployments.
pub const ROWS: &[Row] = &[
    Row { name: "canary_five_steps_by_time", strategy: five_steps, deeds: || vec![Mount(CANARY), End(CANARY)] },
    Row {
        name: "canary_third_version_and_back",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Has(&[(BASE, 6), (CANARY, 2)]),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Mount(THIRD),
                Has(&[(BASE, 6), (THIRD, 2)]),
                Paused(1),
                Answers(THIRD, 0.2),
                Mount(BASE),
                End(BASE),
            ]
        },
    },
    Row {
        name: "canary_scaled_up_and_down",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Deployment(json!({"replicas": 10})),
                Has(&[(BASE, 10), (CANARY, 3)]),
                Deployment(json!({"replicas": 6})),
                Paused(1),
                Answers(CANARY, 0.2),
                Approve,
                Paused(2),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_jumps",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Jump(1),
                Paused(1),
                Answers(CANARY, 0.2),
                Jump(1),
                Paused(1),
                Jump(3),
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_paused_resumed_and_edited",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Rollout(json!([{"op": "add", "path": "/spec/strategy/paused", "value": true}])),
                Says("has been paused"),
                Approve,
                Answers(CANARY, 0.2),
                Rollout(json!([{"op": "replace", "path": "/spec/strategy/paused", "value": false}])),
                Paused(2),
                Rollout(json!([{"op": "replace", "path": "/spec/strategy/canary/steps/1/traffic", "value": "70%"}])),
                Paused(2),
                Answers(CANARY, 0.7),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_that_never_gets_ready_then_a_good_one",
        strategy: canary,
        deeds: || {
            vec![
                MountBroken(CANARY),
                Says("waiting for canary pods"),
                Has(&[(BASE, 6)]),
                Mount(THIRD),
                Paused(1),
                Answers(THIRD, 0.2),
                Approve,
                Paused(2),
                Approve,
                End(THIRD),
            ]
        },
    },
    Row {
        name: "in_place_step_by_step",
        strategy: in_place,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Has(&[(BASE, 4), (CANARY, 2)]),
                Answers(CANARY, 0.2),
                Approve,
                Paused(2),
                Has(&[(BASE, 3), (CANARY, 3)]),
                Answers(CANARY, 0.5),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "in_place_third_version_and_back",
        strategy: in_place,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                // Pods of the version that goes are replaced first.
                Mount(THIRD),
                Has(&[(BASE, 3), (CANARY, 1), (THIRD, 2)]),
                Paused(1),
                Answers(THIRD, 0.2),
                Mount(BASE),
                End(BASE),
            ]
        },
    },
    Row {
        name: "in_place_scaled_and_edited",
        strategy: in_place_without_traffic,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Has(&[(BASE, 3), (CANARY, 3)]),
                Deployment(json!({"replicas": 10})),
                Has(&[(BASE, 5), (CANARY, 5)]),
                Rollout(json!([{"op": "replace", "path": "/spec/strategy/canary/steps/0/replicas", "value": "60%"}])),
                Has(&[(BASE, 4), (CANARY, 6)]),
                Paused(1),
                Approve,
                Paused(2),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "in_place_jumps",
        strategy: in_place,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Has(&[(BASE, 3), (CANARY, 3)]),
                Jump(1),
                Paused(1),
                // Pods do not come back; requests do.
                Has(&[(BASE, 3), (CANARY, 3)]),
                Answers(CANARY, 0.2),
                Jump(3),
                End(CANARY),
            ]
        },
    },
    Row { name: "in_place_by_header", strategy: by_header, deeds: asked_by_header },
    Row { name: "in_place_named_anew", strategy: by_header, deeds: named_anew },
    Row {
        name: "in_place_deleted_midway",
        strategy: in_place,
        deeds: || vec![Mount(CANARY), Paused(1), Answers(CANARY, 0.2), Delete, Left(CANARY)],
    },
    Row {
        name: "in_place_that_never_gets_ready_rolled_back",
        strategy: in_place,
        deeds: || vec![MountBroken(CANARY), Says("waiting for new pods"), Mount(BASE), End(BASE)],
    },
    Row { name: "blue_green_switch", strategy: blue_green, deeds: || switch(BOTH) },
    Row {
        name: "blue_green_and_back",
        strategy: blue_green,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Approve,
                Paused(3),
                Answers(CANARY, 1.0),
                Mount(BASE),
                Answers(BASE, 1.0),
                End(BASE),
            ]
        },
    },
    Row {
        name: "blue_green_scaled",
        strategy: blue_green,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Deployment(json!({"replicas": 8})),
                Has(&[(BASE, 8), (CANARY, 8)]),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Approve,
                Paused(3),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "blue_green_disabled_midway",
        strategy: blue_green,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Rollout(json!([{"op": "add", "path": "/spec/disabled", "value": true}])),
                Left(CANARY),
            ]
        },
    },
];

/// Plays one row.
pub async fn play(rig: Arc<Rig>, row: &'static Row) -> Result<()> {
    play_on(rig, &DEPLOYMENT, row).await
}

/// Plays one row with a workload of some kind.
pub async fn play_on(rig: Arc<Rig>, on: &'static On, row: &'static Row) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let mut play = Play::begin(&rig, on, &row.name.replace('_', "-"), (row.strategy)()).await?;
    for (i, deed) in (row.deeds)().into_iter().enumerate() {
        play = match play.deed(deed).await.with_context(|| format!("deed {}", i + 1))? {
            Some(play) => play,
            None => return Ok(()),
        };
    }
    anyhow::bail!("the row does not end")
}
