//! What may be written, and what may run.

use serde_json::{Map, Value, json};

use super::{Sight, record::Topic, routes};
use crate::{
    api::{
        keys,
        object::{self, at, int, text},
    },
    rehearsal::{
        script::{Managed, Style},
        world::{
            CANARY, CANARY_INGRESS, CANARY_SERVICE, NAMESPACE, SERVICE, WORKLOAD, is_canary, is_ready, release, version,
        },
    },
};

/// The controller writes only objects that the Rollout names or that carry its owner reference.
pub fn ours(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() {
        return Ok(());
    }
    let object = if sight.after().is_null() { sight.before() } else { sight.after() };
    let (resource, name) = (sight.resource(), sight.write.name.as_str());
    let named = [("rollouts", WORKLOAD), ("services", SERVICE), ("destinationrules", WORKLOAD)];
    let is_route = resource == sight.eyes.routes.resource && name == WORKLOAD;
    let is_named =
        (named.contains(&(resource, name)) || is_route || sight.is_of_workload()) && !sight.before().is_null();
    let made = [("deployments", CANARY), ("services", CANARY_SERVICE), ("ingresses", CANARY_INGRESS)];
    let is_record = resource == "rollouthistories" && sight.setup.keeps_history;
    let is_owned = (made.contains(&(resource, name)) || is_record) && is_owned_by(object, "Rollout");
    // What the workload owns is its controller's, but for what says of a version whether its pods are to be counted, or
    // what step brought them.
    let is_inner = is_inner(sight, object);
    let is_event = resource == "events";
    let goes = sight.after().is_null() && resource != "rollouts" && !is_owned && !is_inner;
    if sight.write.namespace != NAMESPACE || goes || !(is_named || is_owned || is_inner || is_event) {
        let verb = sight.write.verb.as_str();
        return Err(format!("{verb} {resource}/{name} in namespace {:?}", sight.write.namespace));
    }
    Ok(())
}

fn is_owned_by(object: &Value, kind: &str) -> bool {
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    owners.is_some_and(|o| {
        o.iter().any(|o| {
            text(o, &["kind"]) == kind && text(o, &["name"]) == WORKLOAD && o.get("controller") == Some(&json!(true))
        })
    })
}

/// ReplicaSets and pods of the workload, in a style that opens it.
fn is_inner(sight: &Sight<'_>, object: &Value) -> bool {
    let opens = sight.setup.style != Style::Canary;
    match sight.resource() {
        "replicasets" => opens && is_owned_by(object, "Deployment"),
        "pods" => true,
        _ => false,
    }
}

/// The controller changes only the fields that it has to.
pub fn leaves(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() || sight.before().is_null() || sight.after().is_null() {
        return Ok(());
    }
    let pointers: &[&str] = match (sight.resource(), sight.write.name.as_str()) {
        ("rollouts", _) => &["/status", "/metadata/finalizers"],
        ("deployments", WORKLOAD) if sight.setup.style == Style::Canary => &["/spec/paused"],
        ("deployments", WORKLOAD) => {
            &["/spec/paused", "/spec/strategy", "/spec/minReadySeconds", "/spec/progressDeadlineSeconds"]
        }
        _ if sight.is_of_workload() && sight.setup.style == Style::BlueGreen => {
            &["/spec/updateStrategy", "/spec/minReadySeconds"]
        }
        _ if sight.is_of_workload() => &["/spec/updateStrategy"],
        ("replicasets", _) => &["/spec/minReadySeconds"],
        ("pods", _) => &["/metadata/labels"],
        ("httproutes", WORKLOAD) => &["/spec/rules"],
        ("services", SERVICE) => match sight.setup.workload {
            Managed::Deployment | Managed::CloneSet => &["/spec/selector/pod-template-hash"],
            _ => &["/spec/selector/controller-revision-hash"],
        },
        ("virtualservices", WORKLOAD) => &["/spec/http"],
        ("destinationrules", WORKLOAD) => &["/spec/subsets"],
        _ => return Ok(()),
    };
    let is_rollback = sight.is_of_workload() && rolls_back(sight)?;
    let rest = |object: &Value| {
        let mut object = plain(object);
        for pointer in pointers.iter().chain(is_rollback.then_some(&"/spec/template")) {
            remove(&mut object, pointer);
        }
        object
    };
    let (before, after) = differing(sight.before(), sight.after(), 2);
    if rest(&before) != rest(&after) {
        return Err(format!("of {} more changed than {}", sight.write.name, pointers.join(", ")));
    }
    unrelated(sight)
}

/// Two objects less the fields that are the same in both, down to some depth.
fn differing(before: &Value, after: &Value, depth: usize) -> (Value, Value) {
    let (Some(old), Some(new), 1..) = (before.as_object(), after.as_object(), depth) else {
        return (before.clone(), after.clone());
    };
    let (mut left, mut right) = (Map::new(), Map::new());
    for (key, old) in old.iter().filter(|(key, old)| new.get(*key) != Some(old)) {
        match new.get(key).map(|new| differing(old, new, depth - 1)) {
            Some((old, new)) => {
                left.insert(key.clone(), old);
                right.insert(key.clone(), new);
            }
            None => {
                left.insert(key.clone(), old.clone());
            }
        }
    }
    right.extend(new.iter().filter(|(key, _)| !old.contains_key(*key)).map(|(k, v)| (k.clone(), v.clone())));
    (left.into(), right.into())
}

/// Whether the controller sets the template back, and may: a step has failed that is to be rolled back.
fn rolls_back(sight: &Sight<'_>) -> Result<bool, String> {
    let template = |o: &Value| at(o, &["spec", "template"]).map(version).unwrap_or_default();
    let (before, after) = (template(sight.before()), template(sight.after()));
    if before == after {
        return Ok(false);
    }
    let may_roll_back = sight.eyes.rollout().is_some_and(|rollout| {
        let sub = release(&rollout);
        int(sub, &["failedStepIndex"]).is_some() && sight.eyes.version_of(text(sub, &["stableRevision"])) == after
    });
    if may_roll_back && sight.setup.rolls_back {
        return Ok(true);
    }
    Err(format!("the template goes from {before} to {after}, and no step has failed that would be rolled back"))
}

/// Rules and subsets that are not the workload's stay equal, in their order.
fn unrelated(sight: &Sight<'_>) -> Result<(), String> {
    let list = |object: &Value, field: &str| at(object, &["spec", field]).and_then(Value::as_array).cloned();
    let rules = |object: &Value| -> Vec<Value> {
        let rules = list(object, "http").or_else(|| list(object, "rules")).unwrap_or_default();
        let first = |r: &Value| {
            let host = r.pointer("/route/0/destination/host").or_else(|| r.pointer("/backendRefs/0/name"));
            host.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        rules.into_iter().filter(|r| ![SERVICE, CANARY_SERVICE].contains(&first(r).as_str())).collect()
    };
    let subsets = |object: &Value| -> Vec<Value> {
        let subsets = list(object, "subsets").unwrap_or_default();
        subsets.into_iter().filter(|s| text(s, &["name"]) != "canary").collect()
    };
    if rules(sight.before()) != rules(sight.after()) {
        return Err("a rule that routes elsewhere changed".to_owned());
    }
    if subsets(sight.before()) != subsets(sight.after()) {
        return Err("a subset that is not the canary's changed".to_owned());
    }
    Ok(())
}

fn remove(object: &mut Value, pointer: &str) {
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(map) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        map.remove(key);
    }
}

/// An object without what the server keeps, and without our marks.
pub fn plain(object: &Value) -> Value {
    let Some(map) = object.as_object() else { return Value::Null };
    // The version that was asked for, and what the server says, are left out.
    let mut object: Value = map
        .iter()
        .filter(|(key, _)| !["apiVersion", "status"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<Map<_, _>>()
        .into();
    for pointer in [
        "/metadata/resourceVersion",
        "/metadata/generation",
        "/metadata/managedFields",
        "/metadata/uid",
        "/metadata/creationTimestamp",
        "/metadata/deletionTimestamp",
        "/metadata/deletionGracePeriodSeconds",
    ] {
        remove(&mut object, pointer);
    }
    for (map, keys) in [
        (
            "/metadata/annotations",
            &[
                keys::ORIGINAL_SPEC,
                keys::IN_PROGRESSING,
                keys::DEPLOYMENT_REVISION,
                "deprecated.daemonset.template.generation",
                keys::ORIGINAL_PARTITION,
                keys::ORIGINAL_STRATEGY_TYPE,
                keys::WANTED_FIELDS,
            ][..],
        ),
        ("/metadata/labels", &[keys::WORKLOAD_TYPE, keys::MANAGED][..]),
    ] {
        if let Some(map) = object.pointer_mut(map).and_then(Value::as_object_mut) {
            map.retain(|key, _| !keys.contains(&key.as_str()));
        }
        if object.pointer(map).is_some_and(|m| m == &json!({})) {
            remove(&mut object, map);
        }
    }
    object
}

/// No more pods of the workload than the steps allow have a template whose steps are not all approved.
pub fn held(sight: &Sight<'_>) -> Result<(), String> {
    let after = sight.after();
    let owner = after.pointer("/metadata/ownerReferences/0/name").and_then(Value::as_str);
    if owner != Some(WORKLOAD) || object::is_deleting(after) {
        return Ok(());
    }
    let replicas = |o: &Value| int(o, &["spec", "replicas"]).unwrap_or_default();
    let (version, pods) = match (sight.setup.workload, sight.resource()) {
        (Managed::Deployment, "replicasets") if replicas(after) > replicas(sight.before()) => {
            (version(at(after, &["spec", "template"]).unwrap_or(&Value::Null)), replicas(after))
        }
        (Managed::Deployment, _) => return Ok(()),
        (_, "pods") if version(after) != version(sight.before()) => {
            let new = version(after);
            let is_its = |p: &Value| !object::is_deleting(p) && version(p) == new;
            let pods = sight.eyes.pods().iter().filter(|p| is_its(p)).count();
            (new, i64::try_from(pods).unwrap_or(i64::MAX))
        }
        _ => return Ok(()),
    };
    // Pods that ran before the word was taken back are scaled with the others; and who scales while pods are replaced
    // has them shared out by the Deployment's own controller.
    // Pods that come behind the partition of a StatefulSet are new ones.
    let was_there = (replicas(sight.before()) > 0 || sight.setup.workload.is_numbered())
        && (sight.record.revoked.contains_key(&version)
            || sight.is_excused(Topic::Pods)
            || sight.is_excused(Topic::Sharing));
    let most = match sight.setup.style {
        Style::Canary if sight.record.may_run(&version) => None,
        Style::Canary => Some(0),
        Style::Partition | Style::BlueGreen => routes::most(sight, &version),
    };
    // A pod that goes from a DaemonSet, of either kind, comes back with the present template, whoever deleted it.
    let most = most.map(|most| most + sight.record.lost);
    // The same share of old pods of another number of pods, by a CloneSet's own controller at once: of one pod that may be
    // none.
    let shared = if sight.is_excused(Topic::Pods) { shared_out(sight) } else { 0 };
    let is_forgotten = sight.setup.workload.is_numbered() && knows_one_version(sight);
    match most.filter(|most| pods > *most.max(&shared) && !was_there && !is_forgotten) {
        Some(most) => Err(format!(
            "{} {} of version {version} makes {pods} pods of it; the steps that may be executed allow {most}",
            sight.resource(),
            sight.write.name
        )),
        None => Ok(()),
    }
}

/// Every pod of a StatefulSet was new and ready, as after scaling down to those of a step: its own controller has forgotten
/// the version before, and whatever it makes from then on is new.
fn knows_one_version(sight: &Sight<'_>) -> bool {
    let Some(workload) = sight.eyes.workload() else { return false };
    let [current, update] = ["currentRevision", "updateRevision"].map(|field| text(&workload, &["status", field]));
    current == update
}

/// New pods that the partition of a CloneSet allows as it is written.
fn shared_out(sight: &Sight<'_>) -> i64 {
    let Some(workload) = sight.eyes.workload().filter(|_| sight.setup.workload == Managed::CloneSet) else { return 0 };
    let replicas = int(&workload, &["spec", "replicas"]).unwrap_or_default();
    let strategy = at(&workload, &["spec", "updateStrategy"]);
    let partition = strategy.and_then(|s| at(s, &["rollingUpdate", "partition"]).or_else(|| s.get("partition")));
    let percent = |text: &str| text.trim_end_matches('%').parse::<i64>().ok().map(|p| (p * replicas + 99) / 100);
    let old = partition.and_then(|p| p.as_i64().or_else(|| percent(p.as_str()?))).unwrap_or_default();
    (replicas - old).max(0)
}

/// Ready pods of the workload never fall below replicas − maxUnavailable while it is held. What rolls natively is the
/// Deployment controller's, which counts by statuses that lag behind and may take one pod too many.
pub fn ready(sight: &Sight<'_>) -> Result<(), String> {
    let falls = sight.resource() == "pods" && is_ready(sight.before()) && !is_ready(sight.after());
    if !falls || is_canary(sight.before()) || sight.is_excused(Topic::Pods) {
        return Ok(());
    }
    let is_held = sight.eyes.workload().is_some_and(|w| match object::annotation(&w, keys::IN_PROGRESSING) {
        Some(mark) => !mark.contains(r#""released":true"#),
        None => at(&w, &["spec", "paused"]) == Some(&json!(true)),
    });
    if !is_held {
        return Ok(());
    }
    let pods = sight.eyes.pods();
    let ready = pods.iter().filter(|p| is_ready(p) && !is_canary(p)).count();
    // The Deployment's own controller cannot tell ready pods of an overtaken version from those that never became ready.
    let is_overtaken = |p: &Value| {
        let version = version(p);
        version != sight.record.wanted && version != sight.record.stable && !is_ready(p) && !is_canary(p)
    };
    if pods.iter().any(|p| is_overtaken(p) && !object::is_deleting(p)) {
        return Ok(());
    }
    let least = routes::least(sight);
    if i64::try_from(ready).unwrap_or(i64::MAX) < least {
        let name = object::name(sight.before());
        return Err(format!("pod {name} goes, and {ready} pods of the workload are ready; {least} are promised"));
    }
    Ok(())
}
