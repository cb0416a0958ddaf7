//! OpenKruise's Advanced DaemonSet controller, after the documentation of its API (v1beta1 and v1alpha1).
//!
//! Left out: lifecycle hooks, progressive creation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::super::json::{self, deleting, flag, text};
use super::super::super::selector::Labels;
use super::super::super::store::{Change, Key, Store};
use super::super::pods::int_or_percent;
use super::daemons::{Bounds, Daemons, daemon_spec, should_run};
use super::revisions::{self, REVISION_LABEL};
use super::{Outcome, Owned, Workload, in_place, shell};

pub(crate) const KIND: Workload = Workload {
    group: "apps.kruise.io",
    plural: "daemonsets",
    kind: "DaemonSet",
    node_concerns: Some(node_concerns),
    adopts: |_, _| true,
    decide,
};

pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    shell::route(&KIND, store, change, keys);
}

fn rolling(set: &Value) -> &Value {
    set.pointer("/spec/updateStrategy/rollingUpdate").unwrap_or(&Value::Null)
}

/// A node concerns a set when it is new, when it comes to (not) want a pod, or when it comes to be (not) chosen for
/// updates.
fn node_concerns(_: &Store, set: &Value, before: Option<&Value>, node: &Value) -> bool {
    let spec = daemon_spec(set.pointer("/spec/template").unwrap_or(&Value::Null));
    let chosen = Labels::of_object(rolling(set).get("selector"));
    let state = |node: &Value| (should_run(&spec, node), chosen.as_ref().is_some_and(|s| s.selects(node)));
    match before {
        None => should_run(&spec, node).0,
        Some(before) => state(before) != state(node),
    }
}

fn decide(owned: &Owned) -> Outcome {
    let mut out = Outcome::default();
    if deleting(&owned.workload) {
        return out;
    }
    let update = revisions::settle(owned, REVISION_LABEL, &mut out.writes);
    let rolls = owned.text("/spec/updateStrategy/type") != "OnDelete";
    let rolling = rolling(&owned.workload);
    let kind = text(rolling, "/rollingUpdateType");
    let one = json!(1);
    // `Surging`, which v1alpha1 had at first, surges by one pod unless told otherwise.
    let surge = rolling.get("maxSurge").or((kind == "Surging").then_some(&one)).filter(|_| rolls);
    let in_place = rolls && kind == "InPlaceIfPossible";
    let daemons = Daemons::new(owned, &update, int_or_percent(surge, 1, true) > 0).gated(in_place);
    let plan = daemons.manage();
    let before = out.writes.len();
    if !plan.make.is_empty() || !plan.remove.is_empty() {
        daemons.write(&plan, &mut out.writes);
    } else {
        for pod in owned.pods.iter().filter(|p| !deleting(p)) {
            if let Some(left) = in_place::refresh(owned, pod, &mut out.writes) {
                out.look_again(left);
            }
        }
        if rolls && !flag(rolling, "/paused") && out.writes.len() == before {
            let desired = daemons.desired();
            let unavailable = rolling.get("maxUnavailable").or(surge.is_none().then_some(&one));
            let mut bounds = Bounds {
                surge: int_or_percent(surge, desired, true),
                unavailable: int_or_percent(unavailable, desired, true),
            };
            if bounds.surge == 0 && bounds.unavailable == 0 {
                bounds.unavailable = 1;
            }
            let chosen = chosen(owned, &daemons, rolling, desired);
            let mut plan = daemons.roll(&bounds, &|node| chosen.contains(node));
            if in_place && bounds.surge == 0 {
                plan.remove.retain(|pod| !renew(owned, &update, pod, &mut out));
            }
            daemons.write(&plan, &mut out.writes);
        }
    }
    let mut status = daemons.status();
    // The hash of the new revision goes by another name in each version.
    let name = if owned.text("/apiVersion").ends_with("/v1alpha1") { "daemonSetHash" } else { "updateRevision" };
    json::set(&mut status, &[name], update.hash.clone());
    out.status = Some(status);
    if let Some(left) = owned.next_available(daemons.min_ready) {
        out.look_again(left);
    }
    revisions::truncate(owned, &daemons.live().into_iter().collect(), true, &mut out.writes);
    out
}

/// The nodes whose pods may be new: those that are, those without a pod, and, up to the partition, the others, from the
/// last name to the first. With a selector only nodes that it selects are among the others.
fn chosen(owned: &Owned, daemons: &Daemons<'_>, rolling: &Value, desired: i64) -> BTreeSet<String> {
    let old_wanted = int_or_percent(rolling.get("partition"), desired, true);
    let selector = rolling.get("selector").and_then(|s| Labels::of_object(Some(s)));
    let nodes = daemons.existing_nodes();
    let most = usize::try_from(nodes.len() as i64 - old_wanted).unwrap_or(0);
    let (mut updated, mut updating, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for name in nodes.into_iter().rev() {
        match daemons.state(name) {
            (_, true) => updated.push(name),
            (false, _) => updating.push(name),
            (true, false) => {
                let node = owned.nodes.iter().find(|n| json::name(n) == name);
                if selector.as_ref().is_none_or(|s| node.is_some_and(|n| s.selects(n))) {
                    others.push(name);
                }
            }
        }
    }
    updated.into_iter().chain(updating).chain(others).take(most).map(str::to_owned).collect()
}

/// Updates a pod in place if that is possible.
fn renew(owned: &Owned, update: &revisions::Revision, pod: &Value, out: &mut Outcome) -> bool {
    if !in_place::has_gate(pod) {
        return false;
    }
    let of = revisions::of_pod(pod);
    let from = owned.revisions.iter().map(|r| revisions::read(owned, r)).find(|r| r.hash == of);
    let Some(change) = from.and_then(|from| in_place::change(&from, update)) else { return false };
    in_place::start(owned, pod, &change, &json!({REVISION_LABEL: update.hash}), 0, &mut out.writes);
    true
}
