//! The DaemonSet controller (`apps/v1`), as in Kubernetes 1.36. Failed pods are replaced without a delay.

use serde_json::Value;

use super::super::super::json::{self, deleting, int, text};
use super::super::super::registry::PODS;
use super::super::super::store::{Change, Key, Store};
use super::super::pods::int_or_percent;
use super::daemons::{Bounds, Daemons, daemon_spec, should_run};
use super::revisions::{self, REVISION_LABEL};
use super::{Outcome, Owned, Workload, shell};

pub(crate) const KIND: Workload = Workload {
    group: "apps",
    plural: "daemonsets",
    kind: "DaemonSet",
    node_concerns: Some(node_concerns),
    adopts: |_, _| true,
    decide,
};

pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    shell::route(&KIND, store, change, keys);
}

fn decide(owned: &Owned) -> Outcome {
    let mut out = Outcome::default();
    if deleting(&owned.workload) {
        return out;
    }
    let update = revisions::settle(owned, REVISION_LABEL, &mut out.writes);
    let rolls = owned.text("/spec/updateStrategy/type") == "RollingUpdate";
    let rolling = owned.workload.pointer("/spec/updateStrategy/rollingUpdate").filter(|_| rolls);
    let most = |field: &str, of: i64| int_or_percent(rolling.and_then(|r| r.get(field)), of, true);
    let daemons = Daemons::new(owned, &update, most("maxSurge", 1) > 0);
    let plan = daemons.manage();
    if !plan.make.is_empty() || !plan.remove.is_empty() {
        daemons.write(&plan, &mut out.writes);
    } else if rolls {
        let desired = daemons.desired();
        let mut bounds = Bounds { surge: most("maxSurge", desired), unavailable: most("maxUnavailable", desired) };
        if bounds.surge == 0 && bounds.unavailable == 0 {
            // Both may round to zero; then one pod may be missing, or nothing would ever move.
            bounds.unavailable = 1;
        }
        daemons.write(&daemons.roll(&bounds, &|_| true), &mut out.writes);
    }
    out.status = Some(daemons.status());
    if let Some(left) = owned.next_available(daemons.min_ready) {
        out.look_again(left);
    }
    revisions::truncate(owned, &daemons.live().into_iter().collect(), true, &mut out.writes);
    out
}

/// A node concerns a DaemonSet when a pod is to be made or removed there. That a pod is no longer wanted, and may stay,
/// shows in the status only with the next change of something else.
fn node_concerns(store: &Store, set: &Value, before: Option<&Value>, node: &Value) -> bool {
    let same = |pointer: &str| before.is_some_and(|b| json::at(b, pointer) == json::at(node, pointer));
    if same("/metadata/labels") && same("/spec/taints") {
        return false;
    }
    let (should, stays) = should_run(&daemon_spec(set.pointer("/spec/template").unwrap_or(&Value::Null)), node);
    let pods = store.controlled_by(json::uid(set), PODS);
    let scheduled = pods.iter().any(|p| text(p, "/spec/nodeName") == json::name(node));
    let misscheduled = int(set, "/status/numberMisscheduled").unwrap_or(0) > 0;
    if scheduled { !stays || misscheduled } else { should }
}
