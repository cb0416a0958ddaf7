//! What DaemonSets of both groups have in common: which node is to have which pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::json::{self, deleting, items, text};
use super::super::nodes::{selected, tolerated};
use super::super::pods::{generation, pod_of, ready};
use super::revisions::{self, REVISION_LABEL, Revision};
use super::{Dependent, Owned, Write, count, in_place, label};

/// Pods made or removed in one look.
const BURST: usize = 250;
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

type Pod = Arc<Value>;

/// A DaemonSet with its pods by node.
pub(crate) struct Daemons<'a> {
    pub owned: &'a Owned,
    pub update: &'a Revision,
    pub min_ready: i64,
    /// More than one pod on a node is allowed for a while.
    pub surges: bool,
    /// New pods get the readiness gate of updates in place.
    gated: bool,
    spec: Value,
    by_node: BTreeMap<String, Vec<&'a Pod>>,
}

/// What is to be done: pods to make, by node, and pods to remove.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    pub make: Vec<String>,
    pub remove: Vec<&'a Pod>,
}

/// How far a rolling update may go at once.
pub(crate) struct Bounds {
    pub surge: i64,
    pub unavailable: i64,
}

/// The pods on one node that are not leaving.
enum OnNode<'a> {
    Pods {
        new: Option<&'a Pod>,
        old: Option<&'a Pod>,
    },
    /// More than one of a kind: they are put in order first.
    Excess,
}

/// The node that a pod is on or is made for.
fn node_of(pod: &Value) -> &str {
    let assigned = text(pod, "/spec/nodeName");
    if !assigned.is_empty() {
        return assigned;
    }
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let fields = items(pod, terms).iter().flat_map(|t| items(t, "/matchFields"));
    fields
        .filter(|f| text(f, "/key") == "metadata.name" && items(f, "/values").len() == 1)
        .find_map(|f| items(f, "/values").first()?.as_str())
        .unwrap_or_default()
}

/// The pod template with the tolerations that every daemon has.
pub(crate) fn daemon_spec(template: &Value) -> Value {
    let mut spec = template.get("spec").cloned().unwrap_or_else(|| json!({}));
    let mut tolerations = items(&spec, "/tolerations").to_vec();
    let no_schedule = ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"].map(|k| (k, "NoSchedule"));
    let network = json::flag(&spec, "/hostNetwork").then_some(("network-unavailable", "NoSchedule"));
    let all = [("not-ready", "NoExecute"), ("unreachable", "NoExecute")].into_iter().chain(no_schedule).chain(network);
    for (key, effect) in all {
        let toleration = json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    json::set(&mut spec, &["tolerations"], tolerations);
    spec
}

/// Whether a node should get a pod, and whether a pod that is there may stay.
pub(crate) fn should_run(spec: &Value, node: &Value) -> (bool, bool) {
    if !selected(spec, node) {
        return (false, false);
    }
    let tolerations = items(spec, "/tolerations");
    let stays = tolerated(tolerations, node, &["NoExecute"]);
    (stays && tolerated(tolerations, node, &["NoSchedule"]), stays)
}

impl<'a> Daemons<'a> {
    pub fn new(owned: &'a Owned, update: &'a Revision, surges: bool) -> Self {
        let mut by_node: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
        for pod in &owned.pods {
            let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
            let node = node_of(pod);
            let over = ended && deleting(pod);
            if !over && !node.is_empty() {
                by_node.entry(node.to_owned()).or_default().push(pod);
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by_key(|p| {
                (text(p, "/spec/nodeName").is_empty(), text(p, "/metadata/creationTimestamp"), json::name(p))
            });
        }
        let spec = daemon_spec(owned.workload.pointer("/spec/template").unwrap_or(&Value::Null));
        Self {
            owned,
            update,
            min_ready: owned.int("/spec/minReadySeconds").unwrap_or(0),
            surges,
            gated: false,
            spec,
            by_node,
        }
    }

    fn should_run(&self, node: &Value) -> (bool, bool) {
        should_run(&self.spec, node)
    }

    /// With the readiness gate of updates in place for new pods.
    pub fn gated(mut self, gated: bool) -> Self {
        self.gated = gated;
        self
    }

    /// Nodes that matter to an update and exist, in the order of their names.
    pub fn existing_nodes(&self) -> Vec<&str> {
        let exists = |node: &&str| self.owned.nodes.iter().any(|n| json::name(n) == *node);
        self.nodes().into_keys().filter(exists).collect()
    }

    /// Whether a node has an old pod, and whether it has a new one (or too many pods to tell).
    pub fn state(&self, node: &str) -> (bool, bool) {
        match self.on_node(self.by_node.get(node).map_or(&[], Vec::as_slice)) {
            OnNode::Excess => (false, true),
            OnNode::Pods { new, old } => (old.is_some(), new.is_some()),
        }
    }

    /// Number of nodes that should have a pod.
    pub fn desired(&self) -> i64 {
        self.owned.nodes.iter().filter(|n| self.should_run(n).0).count() as i64
    }

    fn template_generation(&self) -> &str {
        json::object_of(&self.owned.workload, "/metadata/annotations")
            .and_then(|a| a.get(TEMPLATE_GENERATION))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub fn is_updated(&self, pod: &Value) -> bool {
        let generation = self.template_generation();
        revisions::of_pod(pod) == self.update.hash
            || (!generation.is_empty() && label(pod, GENERATION_LABEL) == generation)
    }

    pub fn available(&self, pod: &Value) -> bool {
        self.owned.available(pod, self.min_ready) && in_place::open(pod)
    }

    fn on_node(&self, pods: &[&'a Pod]) -> OnNode<'a> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|p| !deleting(p)) {
            let slot = if self.is_updated(pod) { &mut new } else { &mut old };
            if slot.replace(*pod).is_some() {
                return OnNode::Excess;
            }
        }
        OnNode::Pods { new, old }
    }

    /// Nodes without their pod get one; pods that are not wanted go.
    pub fn manage(&self) -> Plan<'a> {
        let mut plan = Plan::default();
        for node in &self.owned.nodes {
            let (should, may_stay) = self.should_run(node);
            let name = json::name(node);
            match self.by_node.get(name) {
                None if should => plan.make.push(name.to_owned()),
                None => {}
                Some(pods) if !may_stay => plan.remove.extend(pods.iter().filter(|p| !deleting(p)).copied()),
                Some(pods) => self.order(name, should, pods, &mut plan),
            }
        }
        let gone = |node: &str| !self.owned.nodes.iter().any(|n| json::name(n) == node);
        for (_, pods) in self.by_node.iter().filter(|(node, _)| gone(node)) {
            plan.remove.extend(pods.iter().filter(|p| text(p, "/spec/nodeName").is_empty()).copied());
        }
        plan
    }

    /// Removes ended and surplus pods of a node.
    fn order(&self, node: &str, should: bool, pods: &[&'a Pod], plan: &mut Plan<'a>) {
        let mut running = Vec::new();
        for pod in pods.iter().copied().filter(|p| !deleting(p)) {
            if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
                plan.remove.push(pod);
            } else {
                running.push(pod);
            }
        }
        if !self.surges {
            plan.remove.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && should {
            plan.make.push(node.to_owned());
        }
        if running.len() < 2 {
            return;
        }
        // Two may be here while the old one is ready and the new one is not yet available.
        let (mut new, mut old) = (None, None);
        for pod in running {
            let slot = if revisions::of_pod(pod) == self.update.hash { &mut new } else { &mut old };
            if slot.is_some() {
                plan.remove.push(pod);
            } else {
                *slot = Some(pod);
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!ready(old) || self.available(new))
        {
            plan.remove.push(old);
        }
    }

    /// The nodes that matter to an update, with their pods: those that should run one and those that do.
    fn nodes(&self) -> BTreeMap<&str, &[&'a Pod]> {
        let should = self.owned.nodes.iter().filter(|n| self.should_run(n).0).map(|n| (json::name(n), &[][..]));
        let mut nodes: BTreeMap<&str, &[&Pod]> = should.collect();
        nodes.extend(self.by_node.iter().map(|(node, pods)| (node.as_str(), pods.as_slice())));
        nodes
    }

    /// The next step of a rolling update, on the nodes that `may` change.
    pub fn roll(&self, bounds: &Bounds, may: &dyn Fn(&str) -> bool) -> Plan<'a> {
        if bounds.surge == 0 {
            self.roll_in_place(bounds.unavailable, may)
        } else {
            self.roll_surging(bounds.surge, may)
        }
    }

    /// Removes old pods, so many that no more than `most` nodes are without an available one. Nodes whose old pod is not
    /// available lose nothing.
    fn roll_in_place(&self, most: i64, may: &dyn Fn(&str) -> bool) -> Plan<'a> {
        let (mut unavailable, mut useless, mut candidates) = (0, Vec::new(), Vec::new());
        for (_, pods) in self.nodes().into_iter().filter(|(node, _)| may(node)) {
            match self.on_node(pods) {
                OnNode::Excess
                | OnNode::Pods { new: None, old: None }
                | OnNode::Pods { new: Some(_), old: Some(_) } => unavailable += 1,
                OnNode::Pods { new: Some(new), old: None } => unavailable += i64::from(!self.available(new)),
                OnNode::Pods { new: None, old: Some(old) } if !self.available(old) => {
                    useless.push(old);
                    unavailable += 1;
                }
                OnNode::Pods { new: None, old: Some(old) } => candidates.push(old),
            }
        }
        let room = usize::try_from(most - unavailable).unwrap_or(0);
        useless.extend(candidates.into_iter().take(room));
        Plan { make: Vec::new(), remove: useless }
    }

    /// Makes new pods beside old ones on at most `most` nodes, and removes the old ones when the new ones are available.
    fn roll_surging(&self, most: i64, may: &dyn Fn(&str) -> bool) -> Plan<'a> {
        let mut plan = Plan::default();
        let (mut surging, mut available, mut candidates, mut misplaced) = (0, 0, Vec::new(), Vec::new());
        for (name, pods) in self.nodes().into_iter().filter(|(node, _)| may(node)) {
            let OnNode::Pods { new, old } = self.on_node(pods) else {
                surging += 1;
                continue;
            };
            available += i64::from(old.or(new).is_some_and(|p| self.available(p)));
            let node = self.owned.nodes.iter().find(|n| json::name(n) == name);
            let should = node.is_some_and(|n| self.should_run(n).0);
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) => match (self.available(old), should) {
                    (false, false) => plan.remove.push(old),
                    (false, true) => plan.make.push(name.to_owned()),
                    (true, false) => misplaced.push(old),
                    (true, true) => candidates.push(name.to_owned()),
                },
                (Some(new), Some(_)) if !self.available(new) => surging += 1,
                (Some(_), Some(old)) => plan.remove.push(old),
            }
        }
        // A pod that is on the wrong node goes when there are enough others.
        let spare = usize::try_from(available - self.desired()).unwrap_or(0);
        plan.remove.extend(misplaced.into_iter().take(spare));
        let room = usize::try_from(most - surging).unwrap_or(0);
        plan.make.extend(candidates.into_iter().take(room));
        plan
    }

    pub fn write(&self, plan: &Plan<'_>, writes: &mut Vec<Write>) {
        let made = plan.make.iter().take(BURST).map(|node| Write::Create(Dependent::Pod, self.make(node)));
        writes.extend(made);
        writes.extend(plan.remove.iter().take(BURST).map(|p| Write::delete(Dependent::Pod, p)));
    }

    fn make(&self, node: &str) -> Value {
        let mut pod = pod_of(&self.owned.workload, &self.update.template);
        json::set(&mut pod, &["spec"], self.spec.clone());
        if self.gated {
            in_place::add_gate(&mut pod);
        }
        let only = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
        let path = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        json::set(&mut pod, &path, json!({"nodeSelectorTerms": only}));
        json::set(&mut pod, &["metadata", "labels", REVISION_LABEL], self.update.hash.clone());
        let generation = self.template_generation();
        if !generation.is_empty() {
            json::set(&mut pod, &["metadata", "labels", GENERATION_LABEL], generation);
        }
        pod
    }

    /// Status as both groups have it.
    pub fn status(&self) -> Value {
        let [mut desired, mut current, mut misscheduled, mut ready_pods, mut updated, mut available] = [0_i64; 6];
        for node in &self.owned.nodes {
            let oldest = self.by_node.get(json::name(node)).and_then(|pods| pods.first());
            if !self.should_run(node).0 {
                misscheduled += i64::from(oldest.is_some());
                continue;
            }
            desired += 1;
            let Some(pod) = oldest else { continue };
            current += 1;
            ready_pods += i64::from(ready(pod));
            available += i64::from(self.available(pod));
            updated += i64::from(self.is_updated(pod));
        }
        let mut status = json!({"desiredNumberScheduled": desired, "currentNumberScheduled": current,
            "numberMisscheduled": misscheduled, "numberReady": ready_pods});
        for (field, n) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
            ("observedGeneration", generation(&self.owned.workload)),
        ] {
            count(&mut status, field, n);
        }
        let old = self.owned.workload.get("status").unwrap_or(&Value::Null);
        for field in ["collisionCount", "conditions"] {
            json::restore(&mut status, old, &[field]);
        }
        status
    }

    /// Names of the revisions that are in use.
    pub fn live(&self) -> Vec<&'a str> {
        let hashes: Vec<&str> = self.owned.pods.iter().map(|p| revisions::of_pod(p)).collect();
        let used = |r: &&Pod| {
            let hash = label(r, REVISION_LABEL);
            hash == self.update.hash || hashes.contains(&hash)
        };
        self.owned.revisions.iter().filter(used).map(|r| json::name(r)).collect()
    }
}
