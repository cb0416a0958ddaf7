//! The people: one who changes things, and approves what waits, as a person would.

use std::time::Duration;

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    api::{keys, v1beta1::Rollout},
    cli::rollout::approve::approval_patch,
    sim::{Cluster, Rng},
};
use tokio::time::Instant;

use crate::{
    case::Case,
    judges::{Ending, Originals},
    scenario::{BASE, Deed, Moment, THINKING},
    world::{Eyes, NAMESPACE, ROLLOUT, ROUTE, RULE, WORKLOAD, rollout},
};

/// A step at which a release waits: revision and step.
type Waiting = (String, i64);

/// The person and what they have done.
pub struct Person {
    cluster: Cluster,
    eyes: Eyes,
    rng: Rng,
    case: Case,
    deed: usize,
    /// When the next deed is due, if time alone decides.
    due: Option<Instant>,
    /// Since when the person thinks about a step, and until when.
    thought: Option<(Waiting, Instant)>,
    approved: Vec<Waiting>,
    /// The version that the person wants.
    pub wanted: &'static str,
    pub ending: Ending,
    pub originals: Originals,
    /// When they last did anything.
    pub acted: Instant,
}

impl Person {
    pub fn new(cluster: &Cluster, case: &Case) -> Self {
        let eyes = Eyes::new(cluster);
        Person {
            cluster: cluster.clone(),
            originals: Originals::now(&eyes),
            eyes,
            rng: Rng::new(case.seed ^ 0x70e5),
            case: case.clone(),
            deed: 0,
            due: None,
            thought: None,
            approved: Vec::new(),
            wanted: BASE,
            ending: Ending::Healthy,
            acted: Instant::now(),
        }
    }

    /// Creates the Rollout.
    pub fn begin(&mut self) {
        self.cluster.create(rollout(&self.case)).expect("the Rollout is accepted");
    }

    /// The Rollout is healthy: the first deed may come.
    pub fn start(&mut self) {
        self.acted = Instant::now();
        self.plan();
    }

    /// Whether nothing is left to do but to approve.
    pub fn is_done(&self) -> bool {
        self.deed == self.case.scenario.deeds.len()
    }

    /// Whether the step at which the Rollout waits has its approval.
    pub fn has_approved_what_waits(&self) -> bool {
        self.waiting().is_some_and(|w| self.approved.contains(&w))
    }

    fn plan(&mut self) {
        self.due = match self.case.scenario.deeds.get(self.deed) {
            Some((Moment::Within(ms), _)) => Some(self.soon(*ms)),
            _ => None,
        };
    }

    fn soon(&mut self, ms: u64) -> Instant {
        Instant::now() + self.rng.duration(&(Duration::ZERO..=Duration::from_millis(ms)))
    }

    /// Looks, thinks, and does what is due.
    pub async fn act(&mut self) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            return self.do_next().await;
        }
        let Some(waiting) = self.waiting().filter(|w| !self.approved.contains(w)) else {
            self.thought = None;
            return;
        };
        match &self.thought {
            Some((about, until)) if *about == waiting => {
                if *until > Instant::now() {
                    return;
                }
            }
            _ => {
                let until = Instant::now() + self.rng.duration(&THINKING);
                self.thought = Some((waiting, until));
                return;
            }
        }
        self.thought = None;
        match self.case.scenario.deeds.get(self.deed) {
            Some((Moment::Paused(step), _)) if *step == waiting.1 => self.do_next().await,
            _ => self.approve(waiting).await,
        }
    }

    /// The step that waits for approval.
    fn waiting(&self) -> Option<Waiting> {
        let rollout = self.eyes.rollout()?;
        let status = &rollout["status"];
        let sub = &status["canaryStatus"];
        // Who reads the message does not approve what is being wound up.
        let winds_up = !["", "END"].contains(&sub["finalisingStep"].as_str().unwrap_or_default());
        (status["phase"] == "Progressing"
            && sub["currentStepState"] == "StepPaused"
            && !winds_up
            && rollout["spec"]["disabled"] != true)
            .then(|| {
                (
                    sub["canaryRevision"].as_str().unwrap_or_default().to_owned(),
                    sub["currentStepIndex"].as_i64().unwrap_or_default(),
                )
            })
    }

    fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client("user"), NAMESPACE, &resource)
    }

    /// By the plugin's patch or by a plain one, as the dice fall.
    async fn approve(&mut self, waiting: Waiting) {
        let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        let none = PatchParams::default();
        let answer = if self.rng.chance(0.5) {
            let plain = json!({"status": {"canaryStatus": {"currentStepState": "StepReady"}}});
            rollouts.patch_status(ROLLOUT, &none, &Patch::Merge(plain)).await
        } else {
            let rollout = rollouts.get(ROLLOUT).await.expect("the Rollout is there");
            // It went on meanwhile: look again.
            let Ok(patch) = approval_patch(&rollout) else { return };
            rollouts.patch_status(ROLLOUT, &none, &Patch::<Value>::Json(patch)).await
        };
        if answer.is_err() {
            return;
        }
        self.acted = Instant::now();
        if waiting.1 == 2
            && let Some((Moment::Approved(ms), _)) = self.case.scenario.deeds.get(self.deed)
            && self.due.is_none()
        {
            self.due = Some(self.soon(*ms));
        }
        self.approved.push(waiting);
    }

    async fn do_next(&mut self) {
        let (_, deed) = self.case.scenario.deeds[self.deed];
        self.deed += 1;
        self.acted = Instant::now();
        self.plan();
        match deed {
            Deed::Template(version) => self.change_template(version).await,
            Deed::TemplateAndLateApproval(version) => {
                self.change_template(version).await;
                let plain = json!({"status": {"canaryStatus": {"currentStepState": "StepReady"}}});
                let api = self.api("rollouts.kruise.io/v1beta1", "Rollout");
                api.patch_status(ROLLOUT, &PatchParams::default(), &Patch::Merge(plain)).await.expect("approved");
            }
            Deed::Delete => {
                self.ending = Ending::Gone;
                let api = self.api("rollouts.kruise.io/v1beta1", "Rollout");
                api.delete(ROLLOUT, &Default::default()).await.expect("deleted");
            }
            Deed::Disable => {
                self.ending = Ending::Disabled;
                let api = self.api("rollouts.kruise.io/v1beta1", "Rollout");
                let patch = Patch::Merge(json!({"spec": {"disabled": true}}));
                api.patch(ROLLOUT, &PatchParams::default(), &patch).await.expect("disabled");
            }
            Deed::EditRoutes => self.edit_routes().await,
            Deed::PutManifest => self.put_manifest().await,
        }
    }

    async fn change_template(&mut self, version: &'static str) {
        self.wanted = version;
        // Another release: what was approved counts no more, even if it comes back.
        self.approved.clear();
        let patch: json_patch::Patch = serde_json::from_value(json!([
            {"op": "replace", "path": "/spec/template/spec/volumes/0/configMap/name", "value": version}
        ]))
        .expect("a patch");
        let api = self.api("apps/v1", "Deployment");
        api.patch(WORKLOAD, &PatchParams::default(), &Patch::<Value>::Json(patch)).await.expect("changed");
    }

    async fn edit_routes(&mut self) {
        let patch = json!({"metadata": {"labels": {"edited": "yes"}}, "spec": {"exportTo": ["."]}});
        for (kind, name) in [("VirtualService", ROUTE), ("DestinationRule", RULE)] {
            let api = self.api("networking.istio.io/v1", kind);
            api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("edited");
        }
        self.originals.edit(|route| json_patch::merge(route, &patch), |rule| json_patch::merge(rule, &patch));
    }

    /// A tool that knows nothing of us writes the whole Deployment as it has it.
    async fn put_manifest(&mut self) {
        let api = self.api("apps/v1", "Deployment");
        let mut object = api.get(WORKLOAD).await.expect("the Deployment is there");
        object.metadata.resource_version = None;
        for map in [&mut object.metadata.labels, &mut object.metadata.annotations].into_iter().flatten() {
            map.retain(|key, _| ![keys::WORKLOAD_TYPE, keys::IN_PROGRESSING].contains(&key.as_str()));
        }
        object.data["spec"]["paused"] = json!(false);
        api.replace(WORKLOAD, &PostParams::default(), &object).await.expect("replaced");
    }
}
