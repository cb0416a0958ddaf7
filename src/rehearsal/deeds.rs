//! The people and chance: they change, approve, break and mend things.

mod approvals;
mod faults;
mod moments;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    barriers::GATE,
    judges::{Bench, Originals, Topic, sit},
    process::{CONTROLLER, Processes},
    run::{Ending, strikes_later},
    script::{Act, Script, Setup, Step},
    world::{self, Eyes, NAMESPACE, Version, WORKLOAD, name_of},
};
use crate::{
    api::{
        object::{self, at, text},
        v1beta1::Rollout,
    },
    sim::{Cluster, NEVER_READY, Rng},
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
                // It went twice and was made anew once already.
                Err(_) if self.eyes.service(world::SERVICE).is_some_and(|s| !object::is_deleting(&s)) => {}
                Err(_) => self.plan_to(Duration::from_secs(2), Todo::CreateService),
            },
            Todo::CreateRoute => {
                if let Some(route) = world::route(&self.setup) {
                    match self.cluster.create(route) {
                        Ok(route) => self.originals.route = Some((*route).clone()),
                        Err(_) if self.eyes.route().is_some_and(|r| !object::is_deleting(&r)) => {}
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
        if self.has_mended && message.contains("was rolled back because a step") {
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
        if self.setup.workload.is_numbered() && !self.version.runs() {
            // Kubernetes does not bring such a set up by another template either: its first pod stays, and no other is
            // made before it is ready. Who makes one anew takes a version that runs.
            self.version = Version { number: 4, touched: 0 };
        }
        match self.cluster.create(world::workload(&self.setup, &self.version, self.setup.replicas)) {
            Ok(workload) => self.originals.workload = (*workload).clone(),
            // It went twice and was made anew once already.
            Err(_) if self.eyes.workload().is_some_and(|w| !object::is_deleting(&w)) => {}
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

    /// Faults stop, and what people broke for good is mended.
    pub async fn mend(&mut self) {
        self.has_mended = true;
        self.say("faults stop, and people want it to end well");
        self.cluster.clear_faults(CONTROLLER);
        sit(&self.bench).servers.mend();
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
