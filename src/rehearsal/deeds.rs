//! The people and chance: they change, approve, break and mend things.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    barriers::GATE,
    judges::{Bench, Originals, Topic, is_winding_up, sit},
    process::{CONTROLLER, Processes},
    run::{Ending, strikes_later},
    script::{Act, Gateway, Kind, Managed, Route, Script, Setup, Step, Style},
    world::{self, CANARY, Eyes, NAMESPACE, SERVICE, Version, WORKLOAD, is_ready, name_of},
};
use crate::{
    api::{
        keys,
        object::{self, at, int, text},
        v1beta1::Rollout,
    },
    cli::rollout::approve::approval_patch,
    sim::{Cluster, Fault, NEVER_READY, Rng, Rule, Verb},
};

/// A step at which a release waits: revision and step.
type Waiting = (String, i64);

/// What is still to be done.
#[derive(Clone, Debug)]
enum Todo {
    Approve(Waiting),
    PassGate(Waiting),
    Thaw,
    Enable,
    CreateRollout,
    CreateWorkload,
    CreateService,
    CreateRoute,
    Heal(String),
    Autoscale(Instant),
}

/// The people and what they have done.
pub struct People {
    cluster: Cluster,
    bench: Bench,
    eyes: Eyes,
    processes: Processes,
    setup: Setup,
    rng: Rng,
    /// The plan as people wrote it last.
    plan: Vec<Step>,
    version: Version,
    agenda: BTreeMap<(Instant, u64), Todo>,
    number: u64,
    approved: Vec<Waiting>,
    /// A Rollout as somebody read it when a step waited.
    old_read: Option<Rollout>,
    /// Until then no controller runs.
    away_until: Option<Instant>,
    has_mended: bool,
    /// What was refused until the release before is rolled back, and is pushed again then.
    refused: Option<Version>,
    /// A first new version was pushed.
    pub has_pushed: bool,
    pub originals: Originals,
    pub exercised: BTreeMap<&'static str, u64>,
    /// For the timeline.
    pub said: Vec<(Timestamp, String)>,
}

const NONE: PatchParams = PatchParams { dry_run: false, force: false, field_manager: None, field_validation: None };

impl People {
    pub fn new(cluster: &Cluster, bench: &Bench, processes: &Processes, script: &Script) -> People {
        let eyes = Eyes::new(cluster, &script.setup);
        People {
            cluster: cluster.clone(),
            bench: bench.clone(),
            processes: processes.clone(),
            setup: script.setup.clone(),
            rng: Rng::new(script.seed ^ 0x70e5),
            plan: script.setup.steps.clone(),
            version: Version::FIRST,
            agenda: BTreeMap::new(),
            number: 0,
            approved: Vec::new(),
            old_read: None,
            away_until: None,
            has_mended: false,
            refused: None,
            has_pushed: false,
            originals: Originals::now(&eyes),
            eyes,
            exercised: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// Creates the Rollout.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        self.originals = Originals::now(&self.eyes);
        let created = self.cluster.create(world::rollout(&self.setup, &self.plan));
        created.map_err(|s| anyhow::anyhow!("the Rollout is refused: {}", s.message))?;
        Ok(())
    }

    /// The Rollout is healthy.
    pub fn start(&mut self) {
        self.say("the curtain rises");
    }

    /// The version that people want.
    pub fn wanted(&self) -> String {
        name_of(&self.version)
    }

    fn say(&mut self, what: impl Into<String>) {
        self.said.push((self.cluster.clock().now(), what.into()));
    }

    fn plan_to(&mut self, after: Duration, todo: Todo) {
        self.number += 1;
        self.agenda.insert((Instant::now() + after, self.number), todo);
    }

    /// Something other than an approval is still to be done.
    pub fn is_busy(&self) -> bool {
        self.refused.is_some()
            || self.away_until.is_some_and(|until| Instant::now() < until)
            || self.agenda.values().any(|t| !matches!(t, Todo::Approve(_) | Todo::PassGate(_)))
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    fn excuse(&self, topics: &[Topic], seconds: i64) {
        // While nobody is there who could put things in order, they stay as they are.
        let away = self.away_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let away = i64::try_from(away.as_secs()).unwrap_or_default();
        let until = self.cluster.clock().now() + SignedDuration::from_secs(seconds + away);
        let mut court = sit(&self.bench);
        topics.iter().for_each(|t| court.record.excuse(*t, until));
    }

    /// The step that waits for approval.
    fn waiting(&self) -> Option<Waiting> {
        let rollout = self.eyes.rollout()?;
        let sub = world::release(&rollout);
        let index = int(sub, &["currentStepIndex"]).unwrap_or_default();
        let pause = usize::try_from(index - 1).ok().and_then(|i| self.plan.get(i)).and_then(|s| s.pause);
        // A step that was late waits for a person, whatever it says of its pause.
        let is_late = int(sub, &["failedStepIndex"]) == Some(index);
        // Who reads the message does not approve what is being wound up, or what passes by itself.
        let waits = text(&rollout, &["status", "phase"]) == "Progressing"
            && text(sub, &["currentStepState"]) == "StepPaused"
            && (pause.is_none() || is_late)
            && !is_winding_up(&rollout)
            && at(&rollout, &["spec", "disabled"]) != Some(&json!(true));
        waits.then(|| (world::revision(&rollout).to_owned(), index))
    }

    /// The step whose gate is closed.
    fn closed_gate(&self) -> Option<Waiting> {
        let rollout = self.eyes.rollout().filter(|_| self.setup.barriers.has_gates)?;
        let sub = world::release(&rollout);
        let gates = at(sub, &["gates"]).and_then(Value::as_array);
        let is_closed = gates.into_iter().flatten().any(|gate| gate.get("isPassed") != Some(&json!(true)));
        let index = int(sub, &["currentStepIndex"]).unwrap_or_default();
        is_closed.then(|| (world::revision(&rollout).to_owned(), index))
    }

    /// Whether the step at which the Rollout waits has its approval.
    pub fn has_approved_what_waits(&self) -> bool {
        self.waiting().is_some_and(|w| self.approved.contains(&w))
    }

    /// Does what is due, or begins to think about what waits. Whether anything was done.
    pub async fn do_next(&mut self) -> bool {
        if let Some(waiting) = self.waiting() {
            let thinks = self.agenda.values().any(|t| matches!(t, Todo::Approve(w) if *w == waiting));
            if !thinks {
                let thinking = self.rng.duration(&(Duration::from_millis(200)..=Duration::from_secs(8)));
                self.plan_to(thinking, Todo::Approve(waiting));
            }
        }
        if let Some(closed) = self.closed_gate()
            && !self.agenda.values().any(|t| matches!(t, Todo::PassGate(w) if *w == closed))
        {
            let thinking = self.rng.duration(&(Duration::from_millis(200)..=Duration::from_secs(12)));
            self.plan_to(thinking, Todo::PassGate(closed));
        }
        self.follow();
        if self.heed_refusal().await {
            return true;
        }
        if self.has_mended && self.lacks_pods() {
            self.scale("user", self.setup.replicas).await;
            return true;
        }
        let Some(entry) = self.agenda.first_entry().filter(|e| e.key().0 <= Instant::now()) else { return false };
        let todo = entry.remove();
        match todo {
            Todo::Approve(waiting) => {
                if self.waiting().as_ref() == Some(&waiting) {
                    self.approve(waiting).await;
                }
            }
            Todo::PassGate(closed) => {
                if self.closed_gate().as_ref() == Some(&closed) {
                    self.say("the gate is passed");
                    self.set_status(json!({"gates": [{"name": GATE, "isPassed": true}]})).await;
                }
            }
            Todo::Thaw => self.edit_rollout(json!({"spec": {"strategy": {"paused": false}}})).await,
            Todo::Enable => self.edit_rollout(json!({"spec": {"disabled": false}})).await,
            // Somebody who deleted it as well has made it anew already.
            Todo::CreateRollout if self.eyes.rollout().is_some_and(|rollout| !object::is_deleting(&rollout)) => {}
            Todo::CreateRollout => {
                if self.cluster.create(world::rollout(&self.setup, &self.plan)).is_err() {
                    self.plan_to(Duration::from_secs(20), Todo::CreateRollout);
                }
            }
            Todo::CreateWorkload => self.create_workload(),
            Todo::CreateService => match self.cluster.create(world::service()) {
                Ok(service) => self.originals.service = (*service).clone(),
                Err(_) => self.plan_to(Duration::from_secs(2), Todo::CreateService),
            },
            Todo::CreateRoute => {
                if let Some(route) = world::route(&self.setup) {
                    match self.cluster.create(route) {
                        Ok(route) => self.originals.route = Some((*route).clone()),
                        Err(_) => self.plan_to(Duration::from_secs(2), Todo::CreateRoute),
                    }
                }
            }
            Todo::Heal(pod) => {
                let patch = json!({"metadata": {"annotations": {NEVER_READY: null}}});
                let _ = self.api("chaos", "v1", "Pod").patch(&pod, &NONE, &Patch::Merge(patch)).await;
            }
            Todo::Autoscale(until) => {
                let replicas = 1 + i64::try_from(self.rng.below(8)).unwrap_or_default();
                self.scale("hpa", replicas).await;
                if Instant::now() < until {
                    self.plan_to(Duration::from_secs(3), Todo::Autoscale(until));
                }
            }
        }
        true
    }

    /// A step that failed was rolled back: that is what is wanted now.
    fn follow(&mut self) {
        let wanted = sit(&self.bench).record.wanted.clone();
        if !self.setup.rolls_back || wanted == self.wanted() {
            return;
        }
        let Some(version) = Version::of(&wanted) else { return };
        self.say(format!("{wanted} is what is wanted now"));
        self.version = version;
        self.approved.clear();
        let workload = self.eyes.workload();
        if let Some(template) = workload.as_deref().and_then(|w| at(w, &["spec", "template"])) {
            self.keep_template(template.clone());
        }
    }

    fn keep_template(&mut self, template: Value) {
        if let Some(slot) = self.originals.workload.pointer_mut("/spec/template") {
            *slot = template;
        }
    }

    /// Does what a Rollout asks for that refuses a version.
    async fn heed_refusal(&mut self) -> bool {
        let Some(rollout) = self.eyes.rollout() else { return false };
        let message = text(&rollout, &["status", "message"]);
        if let Some(version) = self.refused.take_if(|_| text(&rollout, &["status", "phase"]) != "Progressing") {
            self.say(format!("{} is pushed again", name_of(&version)));
            return self.push(version).await;
        }
        let is_releasing = text(&rollout, &["status", "phase"]) == "Progressing";
        if is_releasing && message.ends_with("please rollback first") {
            // Somebody may have pushed another one meanwhile, which is refused like the first.
            let stable = self.eyes.version_of(text(world::release(&rollout), &["stableRevision"]));
            let Some(stable) = Version::of(&stable).filter(|stable| *stable != self.version) else { return false };
            self.say("it is rolled back first");
            self.refused = Some(self.version.clone());
            return self.push(stable).await;
        }
        if self.has_mended && message.contains("was rolled back because a step failed") {
            let touched = self.version.touched + 10;
            self.say("another template is tried");
            return self.push(Version { touched, ..self.version.clone() }).await;
        }
        false
    }

    /// A release that was scaled to nothing says that it waits for pods.
    fn lacks_pods(&self) -> bool {
        let message = self.eyes.rollout().map(|r| text(&r, &["status", "message"]).to_owned()).unwrap_or_default();
        let asks = ["waiting for pods of the stable revision", "waiting for canary endpoints"];
        self.eyes.replicas() == Some(0) && asks.iter().any(|asks| message.starts_with(asks))
    }

    fn create_workload(&mut self) {
        let is_ordered = matches!(self.setup.workload, Managed::StatefulSet | Managed::AdvancedStatefulSet);
        if is_ordered && !self.version.runs() {
            // Kubernetes does not bring such a set up by another template either: its first pod stays, and no other is
            // made before it is ready. Who makes one anew takes a version that runs.
            self.version = Version { number: 4, touched: 0 };
        }
        match self.cluster.create(world::workload(&self.setup, &self.version, self.setup.replicas)) {
            Ok(workload) => self.originals.workload = (*workload).clone(),
            Err(_) => self.plan_to(Duration::from_secs(2), Todo::CreateWorkload),
        }
    }

    fn api(&self, who: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client(who), NAMESPACE, &resource)
    }

    fn workloads(&self, who: &str) -> Api<DynamicObject> {
        let (api_version, kind, _) = self.setup.workload.resource();
        self.api(who, api_version, kind)
    }

    fn rollouts(&self) -> Api<DynamicObject> {
        let version = if self.setup.is_old_api { "v1alpha1" } else { "v1beta1" };
        self.api("user", &format!("rollouts.kruise.io/{version}"), "Rollout")
    }

    async fn edit_rollout(&mut self, patch: Value) {
        if let Err(error) = self.rollouts().patch(WORKLOAD, &NONE, &Patch::Merge(&patch)).await {
            self.say(format!("the Rollout cannot be edited: {error}"));
        }
    }

    async fn set_status(&mut self, patch: Value) -> bool {
        let patch = json!({"status": {self.setup.status_key(): patch}});
        self.rollouts().patch_status(WORKLOAD, &NONE, &Patch::Merge(&patch)).await.is_ok()
    }

    async fn say_ready(&mut self) -> bool {
        self.set_status(json!({"currentStepState": "StepReady"})).await
    }

    /// By the plugin's patch or by a plain one, as the dice fall.
    async fn approve(&mut self, waiting: Waiting) {
        let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        let Ok(rollout) = rollouts.get(WORKLOAD).await else { return };
        self.old_read = Some(rollout.clone());
        let is_done = if self.rng.chance(0.5) {
            self.say_ready().await
        } else {
            // It went on meanwhile: look again.
            let Ok(patch) = approval_patch(&rollout) else { return };
            rollouts.patch_status(WORKLOAD, &NONE, &Patch::<Value>::Json(patch)).await.is_ok()
        };
        if is_done {
            self.approved.push(waiting);
        }
    }

    /// Does something. Whether there was anything to do it with.
    pub async fn act(&mut self, act: Act) -> bool {
        let name = act.kind.as_str();
        self.say(format!("{name} {}", act.arg));
        let is_done = if act.kind.is_fault() { self.strike(act).await } else { self.play(act).await };
        if is_done && !strikes_later(act.kind) {
            *self.exercised.entry(name).or_default() += 1;
        }
        is_done
    }

    async fn play(&mut self, act: Act) -> bool {
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

    async fn push(&mut self, version: Version) -> bool {
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

    async fn scale(&mut self, who: &str, replicas: i64) -> bool {
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
            map.retain(|key, _| ![keys::WORKLOAD_TYPE, keys::IN_PROGRESSING].contains(&key.as_str()));
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

    async fn strike(&mut self, act: Act) -> bool {
        const WRITES: [Verb; 3] = [Verb::Create, Verb::Patch, Verb::Delete];
        let Act { kind, arg } = act;
        let ms = Duration::from_millis;
        let until = Instant::now() + Duration::from_secs(arg.unsigned_abs());
        let rule = |fault| Rule::new(CONTROLLER, fault).until(until);
        match kind {
            Kind::Conflict => self.cluster.add_fault(rule(Fault::Conflict).on(&WRITES).chance(0.3)),
            Kind::TooManyRequests => self.cluster.add_fault(rule(Fault::TooManyRequests).chance(0.3)),
            Kind::InternalError => self.cluster.add_fault(rule(Fault::InternalError).chance(0.3)),
            Kind::TimeoutBefore => self.cluster.add_fault(rule(Fault::TimeoutBefore).chance(0.3)),
            Kind::TimeoutAfter => self.cluster.add_fault(rule(Fault::TimeoutAfter).on(&WRITES).chance(0.4)),
            Kind::Latency => self.cluster.add_fault(rule(Fault::Latency(ms(1)..=ms(900))).chance(0.5)),
            Kind::WatchGap => {
                let events = u32::try_from(self.rng.below(8)).unwrap_or_default();
                self.cluster.add_fault(rule(Fault::WatchGap(events)).chance(0.6));
                self.cluster.break_watches(CONTROLLER);
            }
            Kind::WatchBreak => self.cluster.break_watches(CONTROLLER),
            Kind::Stale => {
                self.cluster.add_fault(rule(Fault::WatchDelay(ms(100)..=ms(6000))).chance(0.6));
                self.cluster.break_watches(CONTROLLER);
            }
            Kind::Duplicate => {
                self.cluster.add_fault(rule(Fault::WatchRepeat));
                self.cluster.break_watches(CONTROLLER);
            }
            Kind::Flap | Kind::Evict => return self.hit_a_pod(act).await,
            Kind::Crash => self.cluster.crash_after(CONTROLLER, arg.unsigned_abs()),
            Kind::Away => {
                self.away_until = Some(Instant::now() + Duration::from_secs(arg.unsigned_abs() * 60 + 1));
                sit(&self.bench).record.excuse_longer(self.cluster.clock().now(), arg * 60 + 1);
                self.processes.away.store(arg.unsigned_abs() * 60_000, Ordering::Relaxed);
                self.cluster.crash_after(CONTROLLER, 0);
            }
            Kind::Twins => {
                // Without a Lease between them, one may take away what the other has just routed to.
                self.excuse(&[Topic::Requests], arg + 30);
                let period = Duration::from_secs(arg.unsigned_abs());
                tokio::spawn(self.processes.clone().run_twin(period));
            }
            Kind::Clock => {
                self.excuse(&[Topic::Grace], 180);
                self.processes.skew.fetch_add(arg * 1000, Ordering::Relaxed);
            }
            _ => return false,
        }
        true
    }

    async fn hit_a_pod(&mut self, act: Act) -> bool {
        let ready: Vec<String> =
            self.eyes.pods().iter().filter(|p| is_ready(p)).map(|p| object::name(p).to_owned()).collect();
        let choice = usize::try_from(self.rng.below(ready.len() as u64)).unwrap_or_default();
        let Some(pod) = ready.get(choice) else { return false };
        let api = self.api("chaos", "v1", "Pod");
        if act.kind == Kind::Evict {
            self.excuse(&[Topic::Requests, Topic::Pods], 60);
            return api.delete(pod, &DeleteParams::default()).await.is_ok();
        }
        self.excuse(&[Topic::Requests, Topic::Pods], act.arg + 60);
        let patch = json!({"metadata": {"annotations": {NEVER_READY: "true"}}});
        self.plan_to(Duration::from_secs(act.arg.unsigned_abs()), Todo::Heal(pod.clone()));
        api.patch(pod, &NONE, &Patch::Merge(patch)).await.is_ok()
    }

    /// Faults stop, and what people broke for good is mended.
    pub async fn mend(&mut self) {
        self.has_mended = true;
        self.say("faults stop, and people want it to end well");
        self.cluster.clear_faults(CONTROLLER);
        sit(&self.bench).server.mend();
        if self.processes.skew.swap(0, Ordering::Relaxed) != 0 {
            self.excuse(&[Topic::Grace], 180);
        }
        if !self.version.runs() {
            self.push(Version { number: 4, touched: 0 }).await;
        }
    }

    /// What the deeds so far must lead to.
    pub fn ending(&self) -> Ending {
        match self.eyes.rollout() {
            None => Ending::Gone,
            Some(rollout) if object::is_deleting(&rollout) => Ending::Gone,
            Some(rollout) if at(&rollout, &["spec", "disabled"]) == Some(&json!(true)) => Ending::Disabled,
            Some(_) => Ending::Healthy,
        }
    }
}
