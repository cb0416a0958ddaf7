//! Deliberately bad writes, each stopped by the rule that it breaks, beside good ones that pass.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    gather::Lookup,
    rollout::plan::Purpose,
    traffic::routes::{Missing, RouteWrite},
};

const UID: &str = "rollout-uid";

#[derive(Default)]
struct Cluster(BTreeMap<ObjectRef, Arc<Value>>);

impl Objects for Cluster {
    fn get(&self, target: &ObjectRef) -> Result<Arc<Value>, Lookup> {
        self.0.get(target).cloned().ok_or(Lookup::Missing(Missing::Object))
    }

    fn list_all(&self, api_version: &str, kind: &str) -> Option<Vec<Arc<Value>>> {
        self.list(api_version, kind, "")
    }

    fn list(&self, _: &str, kind: &str, _: &str) -> Option<Vec<Arc<Value>>> {
        Some(self.0.values().filter(|o| text(o, &["kind"]) == kind).cloned().collect())
    }

    fn pods(&self, _: &(String, String), _: &str) -> Option<Vec<Arc<Value>>> {
        Some(Vec::new())
    }
}

fn owner(uid: &str) -> Value {
    json!([{"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "name": "demo", "uid": uid, "controller": true}])
}

fn object(api_version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "7"}});
    json_patch::merge(&mut object, &more);
    object
}

fn target(object: &Value) -> ObjectRef {
    ObjectRef::new(
        text(object, &["apiVersion"]),
        text(object, &["kind"]),
        object::namespace(object),
        object::name(object),
    )
}

fn cluster() -> Cluster {
    let route = json!([{"destination": {"host": "web"}, "weight": 100}]);
    let objects = [
        object(
            "apps/v1",
            "Deployment",
            "web",
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"paused": true}}),
        ),
        object("apps/v1", "Deployment", "web-canary", json!({"metadata": {"ownerReferences": owner(UID)}})),
        object("apps/v1", "Deployment", "other", json!({"metadata": {"ownerReferences": owner("another")}})),
        object(
            "apps/v1",
            "ReplicaSet",
            "web-1",
            json!({"metadata": {"ownerReferences": owner("uid-web"), "labels": {"pod-template-hash": "1"}},
                "spec": {"template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "1"}}, "spec": {"v": 1}}}}),
        ),
        object("v1", "Pod", "web-x", json!({"metadata": {"ownerReferences": owner("uid-web")}})),
        object("v1", "Pod", "other-x", json!({"metadata": {"ownerReferences": owner("uid-other")}})),
        object("v1", "Service", "web", json!({"spec": {"selector": {"app": "web"}}})),
        object("v1", "Service", "other", json!({})),
        object("rollouts.kruise.io/v1beta1", "Rollout", "demo", json!({"metadata": {"finalizers": ["theirs"]}})),
        object(
            "networking.istio.io/v1",
            "VirtualService",
            "vs",
            json!({"spec": {"hosts": ["*"], "http": [
            {"name": "mine", "route": route}, {"name": "other", "route": [{"destination": {"host": "other"}}]}]}}),
        ),
        object("networking.istio.io/v1", "VirtualService", "foreign", json!({"spec": {}})),
    ];
    Cluster(objects.into_iter().map(|o| (target(&o), Arc::new(o))).collect())
}

fn reach() -> Reach {
    let rollout = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
        "metadata": {"name": "demo", "namespace": "shop", "uid": UID},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "strategy": {"canary": {
            "enableExtraWorkloadForCanary": true, "steps": [{"traffic": "20%"}], "trafficRoutings": [{"service": "web",
                "customNetworkRefs": [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "vs"}]}]}}}});
    Reach::of(&serde_json::from_value(rollout).unwrap())
}

fn judged(effect: Effect) -> Option<Rule> {
    check(&effect, &reach(), &cluster()).err().map(|violation| violation.rule)
}

fn patch(api_version: &str, kind: &str, name: &str, operations: Value) -> Effect {
    Effect::Patch {
        purpose: Purpose::ResumeWorkload,
        target: ObjectRef::new(api_version, kind, "shop", name),
        resource_version: "7".to_owned(),
        operations: operations.as_array().unwrap().clone(),
    }
}

#[test]
fn a_template_comes_from_any_revision_of_the_workload() {
    let template = |v: i64| json!({"metadata": {"labels": {"app": "db"}}, "spec": {"v": v}});
    let revision = |name: &str, of: &str, v: i64| {
        let more = json!({"metadata": {"ownerReferences": owner(of)}, "data": {"spec": {"template": template(v)}}});
        object("apps/v1", "ControllerRevision", name, more)
    };
    // The first revision has no pods, so that the status names it no more.
    let status = json!({"replicas": 1, "currentRevision": "db-2", "updateRevision": "db-3"});
    let objects = [
        object(
            "apps/v1",
            "StatefulSet",
            "db",
            json!({"spec": {"replicas": 1, "template": template(3)}, "status": status}),
        ),
        revision("db-1", "uid-db", 1),
        revision("db-2", "uid-db", 2),
        revision("other-4", "uid-other", 4),
    ];
    let cluster = Cluster(objects.into_iter().map(|o| (target(&o), Arc::new(o))).collect());
    let reach = Reach { workload: Some(ObjectRef::new("apps/v1", "StatefulSet", "shop", "db")), ..reach() };
    for (v, rule) in [(1, None), (2, None), (4, Some(Rule::Fields))] {
        let back = json!([{"op": "replace", "path": "/spec/template", "value": template(v)}]);
        let judged = check(&patch("apps/v1", "StatefulSet", "db", back), &reach, &cluster);
        assert_eq!(judged.err().map(|violation| violation.rule), rule, "{v}");
    }
}

#[test]
fn patches_keep_to_our_fields_of_what_is_named() {
    let set = |path: &str| json!([{"op": "add", "path": path, "value": "x"}]);
    let ours = "/metadata/annotations/rollouts.kruise.io~1in-progressing";
    for (kind, name, operations, rule) in [
        ("Deployment", "web", set("/spec/paused"), None),
        ("Deployment", "web", set("/spec/strategy"), None),
        ("Deployment", "web", set(ours), None),
        (
            "Deployment",
            "web",
            json!([{"op": "add", "path": "/metadata/annotations", "value": {"rollouts.kruise.io/a": ""}}]),
            None,
        ),
        (
            "Deployment",
            "web",
            json!([{"op": "add", "path": "/metadata/labels", "value": {"rollouts.kruise.io/a": ""}}]),
            Some(Rule::Fields),
        ),
        (
            "Deployment",
            "web",
            json!([{"op": "add", "path": "/metadata/annotations", "value": {"theirs": ""}}]),
            Some(Rule::Fields),
        ),
        ("Deployment", "web", set("/metadata/labels/app"), Some(Rule::Fields)),
        ("Deployment", "web", set("/spec/replicas"), Some(Rule::Fields)),
        ("Deployment", "web", set("/spec/template/spec"), Some(Rule::Fields)),
        ("Deployment", "web", set("/spec/template"), Some(Rule::Fields)),
        (
            "Deployment",
            "web",
            json!([{"op": "replace", "path": "/spec/template", "value": {"metadata": {"labels": {"app": "web"}}, "spec": {"v": 1}}}]),
            None,
        ),
        (
            "Deployment",
            "web",
            json!([{"op": "replace", "path": "/spec/template", "value": {"metadata": {"labels": {"app": "web"}}, "spec": {"v": 2}}}]),
            Some(Rule::Fields),
        ),
        ("Deployment", "web", json!([{"op": "remove", "path": "/spec/template"}]), Some(Rule::Fields)),
        ("Deployment", "web", set("/spec"), Some(Rule::Fields)),
        ("Deployment", "web", set(""), Some(Rule::Fields)),
        ("Deployment", "web-canary", set("/spec/replicas"), None),
        ("Deployment", "web-canary", set("/metadata/ownerReferences"), Some(Rule::Fields)),
        ("Deployment", "other", set("/spec/paused"), Some(Rule::Named)),
        ("ReplicaSet", "web-1", set("/spec/minReadySeconds"), None),
        ("ReplicaSet", "web-1", set("/spec/replicas"), Some(Rule::Fields)),
        ("ReplicaSet", "web-2", set("/spec/minReadySeconds"), Some(Rule::Named)),
    ] {
        assert_eq!(judged(patch("apps/v1", kind, name, operations.clone())), rule, "{kind} {name} {operations}");
    }
    for (name, path, rule) in [
        ("web", "/spec/selector/pod-template-hash", None),
        ("web", "/spec/selector/app", Some(Rule::Fields)),
        ("web", "/spec/selector", Some(Rule::Fields)),
        ("web", "/spec/type", Some(Rule::Fields)),
        ("web", ours, Some(Rule::Fields)),
        ("other", "/spec/selector/pod-template-hash", Some(Rule::Named)),
    ] {
        assert_eq!(judged(patch("v1", "Service", name, set(path))), rule, "{name} {path}");
    }
}

#[test]
fn a_patch_is_of_the_version_that_was_read_and_in_the_namespace() {
    let mut effect =
        patch("apps/v1", "Deployment", "web", json!([{"op": "add", "path": "/spec/paused", "value": true}]));
    if let Effect::Patch { resource_version, .. } = &mut effect {
        resource_version.clear();
    }
    assert_eq!(judged(effect.clone()), Some(Rule::Version));
    if let Effect::Patch { resource_version, target, .. } = &mut effect {
        *resource_version = "7".to_owned();
        target.namespace = "elsewhere".to_owned();
    }
    assert_eq!(judged(effect), Some(Rule::Named));
    let rollout = ObjectRef::new("rollouts.kruise.io/v1beta1", "Rollout", "shop", "demo");
    assert_eq!(status(&rollout, "").unwrap_err().rule, Rule::Version);
    assert_eq!(status(&rollout, "8"), Ok(()));
}

#[test]
fn finalizers_of_others_stay() {
    for (value, rule) in [
        (json!(["theirs", "rollouts.kruise.io/rollout"]), None),
        (json!(["theirs"]), None),
        (json!(["rollouts.kruise.io/rollout"]), Some(Rule::Fields)),
        (json!(["theirs", "rollouts.kruise.io/rollout", "more"]), Some(Rule::Fields)),
    ] {
        let operations = json!([{"op": "add", "path": "/metadata/finalizers", "value": value}]);
        assert_eq!(judged(patch("rollouts.kruise.io/v1beta1", "Rollout", "demo", operations)), rule, "{value}");
    }
    let operations = json!([{"op": "add", "path": "/spec/disabled", "value": true}]);
    assert_eq!(judged(patch("rollouts.kruise.io/v1beta1", "Rollout", "demo", operations)), Some(Rule::Fields));
}

#[test]
fn only_our_own_is_created_and_deleted() {
    let apply = |object: Value| judged(Effect::Apply { purpose: Purpose::ScaleCanary, object });
    let owned = |uid: &str| json!({"metadata": {"ownerReferences": owner(uid)}});
    assert_eq!(apply(object("apps/v1", "Deployment", "web-canary", owned(UID))), None);
    assert_eq!(apply(object("v1", "Service", "web-canary", owned(UID))), None);
    assert_eq!(apply(object("v1", "Service", "web-canary", owned("another"))), Some(Rule::Owned));
    assert_eq!(apply(object("v1", "Service", "web-canary", json!({}))), Some(Rule::Owned));
    assert_eq!(apply(object("v1", "Service", "other", owned(UID))), Some(Rule::Named));
    assert_eq!(apply(object("v1", "Secret", "new", owned(UID))), Some(Rule::Owned));
    let mut with_status = object("v1", "Service", "web-canary", owned(UID));
    with_status["status"] = json!({});
    assert_eq!(apply(with_status), Some(Rule::Fields));
    let record = |uid: &str| {
        let mut record = object("rollouts.kruise.io/v1alpha1", "RolloutHistory", "web-0123456789", owned(uid));
        record["status"] = json!({"phase": "completed"});
        record
    };
    assert_eq!(apply(record(UID)), None, "whose status is ours");
    assert_eq!(apply(record("another")), Some(Rule::Owned));

    for (name, uid, rule) in [
        ("web-canary", "uid-web-canary", None),
        ("web-canary", "", Some(Rule::Owned)),
        ("web", "uid-web", Some(Rule::Owned)),
        ("other", "uid-other", Some(Rule::Owned)),
        ("gone", "uid-gone", None),
    ] {
        let target = ObjectRef::new("apps/v1", "Deployment", "shop", name);
        let effect = Effect::Delete { purpose: Purpose::DeleteCanary, target, uid: uid.to_owned(), foreground: true };
        assert_eq!(judged(effect), rule, "{name} {uid:?}");
    }
    for (name, uid, rule) in [
        ("web-x", "uid-web-x", None),
        ("web-x", "", Some(Rule::Owned)),
        ("other-x", "uid-other-x", Some(Rule::Owned)),
        ("gone", "uid-gone", None),
    ] {
        let target = ObjectRef::new("v1", "Pod", "shop", name);
        let effect = Effect::Delete { purpose: Purpose::ReplacePod, target, uid: uid.to_owned(), foreground: false };
        assert_eq!(judged(effect), rule, "{name} {uid:?}");
    }
}

fn routes(name: &str, operations: Value) -> Option<Rule> {
    let write = RouteWrite {
        target: ObjectRef::new("networking.istio.io/v1", "VirtualService", "shop", name),
        change: Change::Patch { resource_version: "7".to_owned(), operations: operations.as_array().unwrap().clone() },
        is_definition: false,
    };
    judged(Effect::Routes { purpose: Purpose::RouteStep, writes: vec![write], tried: Vec::new() })
}

/// The annotation and the change of a step, with a share for the canary.
fn step(canary: i64, spec: impl Fn(&mut Value)) -> Value {
    let original = json!({"hosts": ["*"], "http": [
        {"name": "mine", "route": [{"destination": {"host": "web"}, "weight": 100}]},
        {"name": "other", "route": [{"destination": {"host": "other"}}]}]});
    let change = json!([
        {"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 80},
        {"op": "add", "path": "/spec/http/0/route/1", "value": {"destination": {"host": "web-canary"}, "weight": canary}},
    ]);
    let mut kept = json!({"spec": original, "written": change});
    spec(&mut kept);
    let annotation = json!({"rollouts.kruise.io/original-spec-configuration": kept.to_string()});
    let mut operations = vec![json!({"op": "add", "path": "/metadata/annotations", "value": annotation})];
    operations.extend(change.as_array().unwrap().clone());
    json!(operations)
}

#[test]
fn routes_are_what_a_script_returned_and_can_be_put_back() {
    assert_eq!(routes("vs", step(20, |_| {})), None);
    assert_eq!(routes("foreign", step(20, |_| {})), Some(Rule::Named));
    assert_eq!(routes("vs", step(30, |_| {})), Some(Rule::Traffic));
    let lost = |kept: &mut Value| kept["spec"]["hosts"] = json!([]);
    assert_eq!(routes("vs", step(20, lost)), Some(Rule::Leaves));
    let mut beside = step(20, |_| {});
    beside.as_array_mut().unwrap().push(json!({"op": "add", "path": "/spec/gateways", "value": ["g"]}));
    assert_eq!(routes("vs", beside), Some(Rule::Leaves));
    let mut other = step(20, |kept| {
        let op = json!({"op": "remove", "path": "/spec/http/1"});
        kept["written"].as_array_mut().unwrap().push(op);
    });
    other.as_array_mut().unwrap().push(json!({"op": "remove", "path": "/spec/http/1"}));
    assert_eq!(routes("vs", other), Some(Rule::Traffic));
    for path in ["", "/spec", "/metadata/name", "/status/x"] {
        assert_eq!(routes("vs", json!([{"op": "replace", "path": path, "value": {}}])), Some(Rule::Leaves), "{path}");
    }
    // Without a change of ours there is nothing to put back.
    assert_eq!(routes("vs", json!([{"op": "remove", "path": "/spec/http/1"}])), Some(Rule::Restore));
    assert_eq!(routes("vs", json!([])), None);
}
