//! The same requests to the in-memory server and to a real one. The real one is named by the environment:
//! `TIDEGATE_REAL_API=https://127.0.0.1:6443 TIDEGATE_REAL_TOKEN=… cargo test --lib sim::tests::differential -- --ignored --nocapture`

use http::Request;
use http_body_util::BodyExt;

use super::*;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

struct Step(&'static str, &'static str, &'static str, Value);

fn steps() -> Vec<Step> {
    let d = "/apis/apps/v1/namespaces/diff/deployments";
    let web = "/apis/apps/v1/namespaces/diff/deployments/web";
    let cm = "/api/v1/namespaces/diff/configmaps";
    let a = "/api/v1/namespaces/diff/configmaps/a";
    let b = "/api/v1/namespaces/diff/configmaps/b?fieldManager=one";
    let b2 = "/api/v1/namespaces/diff/configmaps/b?fieldManager=two";
    let b2f = "/api/v1/namespaces/diff/configmaps/b?fieldManager=two&force=true";
    let t = "/apis/g.example/v1/namespaces/diff/things";
    let t1 = "/apis/g.example/v1/namespaces/diff/things/t";
    let mut deployment = deployment("web", 2, "web:1");
    deployment["spec"]["template"]["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "a"}}]);
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    let apply_d =
        |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec});
    let thing =
        |spec: Value| json!({"apiVersion": "g.example/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec});
    let none = Value::Null;
    vec![
        Step(
            "POST",
            "/api/v1/namespaces",
            JSON,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "diff"}}),
        ),
        Step("GET", a, JSON, none.clone()),
        Step("POST", cm, JSON, config_map("a", json!({"k": "1"}))),
        Step("POST", cm, JSON, config_map("a", json!({"k": "1"}))),
        Step("GET", a, JSON, none.clone()),
        Step("POST", cm, JSON, json!({"kind": "ConfigMap", "metadata": {"name": "x"}})),
        Step("POST", cm, JSON, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})),
        Step("POST", cm, JSON, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})),
        Step(
            "POST",
            cm,
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "other"}}),
        ),
        Step(
            "POST",
            cm,
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "resourceVersion": "1"}}),
        ),
        Step("POST", "/api/v1/namespaces/nowhere/configmaps", JSON, config_map("a", json!({}))),
        Step("PUT", a, JSON, config_map("a", json!({"k": "2"}))),
        Step(
            "PUT",
            a,
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "1"}}),
        ),
        Step("PUT", a, JSON, config_map("b", json!({"k": "2"}))),
        Step("PATCH", a, MERGE, json!({"data": {"k": "3", "z": "1"}})),
        Step("PATCH", a, MERGE, json!({"data": {"z": null}, "metadata": {"labels": {"x": "y"}}})),
        Step("PATCH", a, MERGE, json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "9"}})),
        Step(
            "PATCH",
            a,
            PATCH,
            json!([{"op": "test", "path": "/data/k", "value": "3"}, {"op": "add", "path": "/data/j", "value": "j"}]),
        ),
        Step(
            "PATCH",
            a,
            PATCH,
            json!([{"op": "test", "path": "/data/k", "value": "4"}, {"op": "add", "path": "/data/j", "value": "j"}]),
        ),
        Step("PATCH", a, PATCH, json!([{"op": "remove", "path": "/data/nothing"}])),
        Step("PATCH", a, PATCH, json!([{"op": "replace", "path": "/data/nothing", "value": "x"}])),
        Step("PATCH", a, PATCH, json!([{"op": "test", "path": "/data/nothing", "value": "x"}])),
        Step("PATCH", a, PATCH, json!([{"op": "test", "path": "/data/nothing", "value": null}])),
        Step("PATCH", a, PATCH, json!([{"op": "wrong", "path": "/data/nothing", "value": "x"}])),
        Step("PATCH", a, PATCH, json!({"op": "wrong"})),
        Step("PATCH", a, "text/plain", json!({"op": "wrong"})),
        Step("PATCH", "/api/v1/namespaces/diff/configmaps/none", MERGE, json!({"data": {}})),
        // Server-side apply.
        Step("PATCH", b, APPLY, config_map("b", json!({"x": "1", "y": "1"}))),
        Step("PATCH", b2, APPLY, config_map("b", json!({"x": "1", "z": "1"}))),
        Step("PATCH", b2, APPLY, config_map("b", json!({"x": "2", "y": "2"}))),
        Step("PATCH", b2, APPLY, config_map("b", json!({"x": "2", "z": "1"}))),
        Step("PATCH", b2f, APPLY, config_map("b", json!({"x": "2"}))),
        Step("PATCH", b, APPLY, config_map("b", json!({}))),
        Step("PATCH", b, APPLY, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}})),
        Step("PATCH", "/api/v1/namespaces/diff/configmaps/b", APPLY, config_map("b", json!({}))),
        Step(
            "PATCH",
            "/api/v1/namespaces/diff/configmaps/b?fieldManager=hand",
            MERGE,
            json!({"data": {"h": "1"}, "metadata": {"labels": {"l": "1"}}}),
        ),
        Step("PATCH", "/api/v1/namespaces/diff/configmaps/b?fieldManager=hand", MERGE, json!({"data": {"h": null}})),
        // Deployments.
        Step("POST", d, JSON, deployment.clone()),
        Step("GET", web, JSON, none.clone()),
        Step("PUT", web, JSON, deployment.clone()),
        Step(
            "PATCH",
            web,
            STRATEGIC,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}}),
        ),
        Step(
            "PATCH",
            web,
            STRATEGIC,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}}),
        ),
        Step(
            "PATCH",
            web,
            STRATEGIC,
            json!({"spec": {"template": {"spec": {"containers": [{"$patch": "delete", "name": "side"}]}}}}),
        ),
        Step("PATCH", web, STRATEGIC, json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}})),
        Step("PATCH", web, MERGE, json!({"spec": {"strategy": {"type": "Recreate"}}})),
        Step("PATCH", web, MERGE, json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}})),
        Step("PATCH", web, MERGE, json!({"spec": {"strategy": {"type": "RollingUpdate"}}})),
        Step(
            "PATCH",
            web,
            MERGE,
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
        ),
        Step("PATCH", web, MERGE, json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "120%"}}}})),
        Step("PATCH", web, MERGE, json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}})),
        Step("PATCH", web, MERGE, json!({"spec": {"replicas": -1}})),
        Step("PATCH", web, MERGE, json!({"spec": {"minReadySeconds": 700}})),
        Step("PATCH", web, MERGE, json!({"spec": {"paused": true}, "status": {"replicas": 5}})),
        Step(
            "PATCH",
            &*format!("{web}/status").leak(),
            MERGE,
            json!({"spec": {"replicas": 7}, "status": {"replicas": 5, "observedGeneration": 2}}),
        ),
        Step("GET", &*format!("{web}/scale").leak(), JSON, none.clone()),
        Step("PATCH", &*format!("{web}/scale").leak(), MERGE, json!({"spec": {"replicas": 4}})),
        Step("PATCH", &*format!("{web}/scale").leak(), MERGE, json!({"spec": {"replicas": -4}})),
        Step("PATCH", &*format!("{web}?fieldManager=tide").leak(), APPLY, apply_d(json!({"replicas": 9}))),
        Step(
            "PATCH",
            &*format!("{web}?fieldManager=tide&force=true").leak(),
            APPLY,
            apply_d(json!({"replicas": 9, "minReadySeconds": 5})),
        ),
        Step("PATCH", &*format!("{web}?fieldManager=tide").leak(), APPLY, apply_d(json!({"replicas": 9}))),
        Step(
            "PATCH",
            &*format!("{web}?fieldManager=tide").leak(),
            APPLY,
            apply_d(
                json!({"template": {"spec": {"containers": [{"name": "side", "image": "side:1", "env": [{"name": "A", "value": "1"}]}]}}}),
            ),
        ),
        Step(
            "PATCH",
            &*format!("{web}?fieldManager=tide").leak(),
            APPLY,
            apply_d(json!({"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}})),
        ),
        Step("PATCH", &*format!("{web}?fieldManager=tide").leak(), APPLY, apply_d(json!({"paused": true}))),
        Step("PATCH", &*format!("{web}?dryRun=All").leak(), MERGE, json!({"spec": {"replicas": 1}})),
        Step("GET", web, JSON, none.clone()),
        // Custom resources.
        Step("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", JSON, definition()),
        Step("WAIT", t, JSON, none.clone()),
        Step("POST", t, JSON, thing(json!({"name": "ab", "junk": 1, "steps": [{"n": 1}, {}], "labels": {"a": "b"}}))),
        Step("PUT", t1, JSON, thing(json!({"name": "ab"}))),
        Step("PATCH", t1, MERGE, json!({"spec": {"name": "a"}})),
        Step("PATCH", t1, MERGE, json!({"spec": {"mode": "C", "count": 9}})),
        Step("PATCH", t1, MERGE, json!({"spec": {"name": null}})),
        Step("PATCH", t1, MERGE, json!({"spec": {"count": "x"}})),
        Step("PATCH", t1, MERGE, json!({"spec": {"count": 3}, "status": {"x": 1}})),
        Step(
            "PATCH",
            &*format!("{t1}/status").leak(),
            MERGE,
            json!({"spec": {"count": 4}, "status": {"phase": "Good"}, "metadata": {"labels": {"q": "r"}}}),
        ),
        Step("PATCH", t1, STRATEGIC, json!({"spec": {"count": 3}})),
        Step(
            "PATCH",
            &*format!("{t1}?fieldManager=tide").leak(),
            APPLY,
            thing(json!({"count": 5, "steps": [{"n": 7}]})),
        ),
        Step(
            "PATCH",
            &*format!("{t1}?fieldManager=tide&force=true").leak(),
            APPLY,
            thing(json!({"count": 5, "labels": {"c": "d"}, "byname": [{"name": "x", "v": 1}]})),
        ),
        Step(
            "PATCH",
            &*format!("{t1}?fieldManager=tide&force=true").leak(),
            APPLY,
            thing(json!({"byname": [{"name": "y", "v": 1}]})),
        ),
        Step("GET", "/apis/g.example/v1alpha1/namespaces/diff/things/t", JSON, none.clone()),
        Step("PATCH", "/apis/g.example/v1alpha1/namespaces/diff/things/t", MERGE, json!({"spec": {"count": 1}})),
        Step("PATCH", t1, MERGE, json!({"metadata": {"finalizers": ["g.example/f"]}})),
        Step("PATCH", t1, MERGE, json!({"metadata": {"finalizers": ["g.example/f", "nogroup"]}})),
        Step("DELETE", t1, JSON, none.clone()),
        Step("DELETE", t1, JSON, none.clone()),
        Step("PATCH", t1, MERGE, json!({"metadata": {"finalizers": ["g.example/f", "g.example/g"]}})),
        Step("PATCH", t1, MERGE, json!({"spec": {"count": 2}})),
        Step("PATCH", t1, MERGE, json!({"metadata": {"finalizers": null}})),
        Step("GET", t1, JSON, none.clone()),
        // Deletion.
        Step(
            "DELETE",
            a,
            JSON,
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}}),
        ),
        Step(
            "DELETE",
            a,
            JSON,
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": "1"}}),
        ),
        Step("DELETE", a, JSON, none.clone()),
        Step("DELETE", a, JSON, none.clone()),
        Step("DELETE", &*format!("{web}?propagationPolicy=Foreground").leak(), JSON, none.clone()),
        Step("GET", &*format!("{d}?labelSelector=app%20in%20(web)").leak(), JSON, none.clone()),
        Step("GET", &*format!("{d}?labelSelector=app%20of%20(web)").leak(), JSON, none.clone()),
        Step("GET", &*format!("{d}?fieldSelector=spec.x%3D1").leak(), JSON, none.clone()),
        Step("GET", "/apis/none.io/v1/things", JSON, none.clone()),
        // More of the kinds.
        Step(
            "POST",
            "/api/v1/namespaces/diff/services",
            JSON,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "name": "http"}, {"port": 81, "name": "b", "targetPort": "x"}]}}),
        ),
        Step(
            "PATCH",
            "/api/v1/namespaces/diff/services/s",
            STRATEGIC,
            json!({"spec": {"ports": [{"port": 82, "name": "c"}]}}),
        ),
        Step("PATCH", "/api/v1/namespaces/diff/services/s", MERGE, json!({"spec": {"selector": {"extra": "1"}}})),
        Step("PATCH", "/api/v1/namespaces/diff/services/s", MERGE, json!({"spec": {"clusterIP": "10.96.1.1"}})),
        Step(
            "PATCH",
            "/api/v1/namespaces/diff/services/s?fieldManager=tide",
            APPLY,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"selector": {"mine": "1"}}}),
        ),
        Step(
            "POST",
            "/api/v1/namespaces/diff/services",
            JSON,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
            "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        ),
        Step(
            "POST",
            "/api/v1/namespaces/diff/pods",
            JSON,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "p"}},
            "spec": {"containers": [{"name": "main", "image": "web:1", "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80}}}]}}),
        ),
        Step(
            "PATCH",
            "/api/v1/namespaces/diff/pods/p/status",
            MERGE,
            json!({"status": {"phase": "Running", "podIP": "10.1.1.1", "conditions": [{"type": "Ready", "status": "True"}]}}),
        ),
        Step(
            "PATCH",
            "/api/v1/namespaces/diff/pods/p/status",
            STRATEGIC,
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other", "status": "True"}]}}),
        ),
        Step("DELETE", "/api/v1/namespaces/diff/pods/p", JSON, none.clone()),
        Step("GET", "/api/v1/namespaces/diff/pods/p", JSON, none.clone()),
        Step(
            "POST",
            "/apis/apps/v1/namespaces/diff/statefulsets",
            JSON,
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "st"},
            "spec": {"serviceName": "headless", "selector": {"matchLabels": {"app": "st"}}, "template": {"metadata": {"labels": {"app": "st"}}, "spec": {"containers": [{"name": "m", "image": "x"}]}}}}),
        ),
        Step(
            "POST",
            "/apis/apps/v1/namespaces/diff/daemonsets",
            JSON,
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "ds"},
            "spec": {"selector": {"matchLabels": {"app": "ds"}}, "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {"containers": [{"name": "m", "image": "x:latest"}]}}}}),
        ),
        Step(
            "POST",
            "/apis/apps/v1/namespaces/diff/replicasets",
            JSON,
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs"},
            "spec": {"selector": {"matchLabels": {"app": "rs"}}, "template": {"metadata": {"labels": {"app": "rs"}}, "spec": {"containers": [{"name": "m", "image": "x@sha256:0123456789012345678901234567890123456789012345678901234567890123"}]}}}}),
        ),
        Step(
            "POST",
            d,
            JSON,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bad"},
            "spec": {"selector": {"matchLabels": {"app": "rs"}}, "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": []}}}}),
        ),
        Step(
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/diff/leases",
            JSON,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}}),
        ),
        Step(
            "POST",
            "/apis/autoscaling/v2/namespaces/diff/horizontalpodautoscalers",
            JSON,
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        ),
        Step(
            "POST",
            "/apis/policy/v1/namespaces/diff/poddisruptionbudgets",
            JSON,
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ),
        Step(
            "POST",
            "/apis/networking.k8s.io/v1/namespaces/diff/ingresses",
            JSON,
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
            "spec": {"rules": [{"host": "x.io", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
        ),
        Step(
            "POST",
            "/apis/discovery.k8s.io/v1/namespaces/diff/endpointslices",
            JSON,
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "es"},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"port": 80}]}),
        ),
        Step(
            "POST",
            "/apis/events.k8s.io/v1/namespaces/diff/events",
            JSON,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "R", "action": "A", "type": "Normal", "reportingController": "c.io/x", "reportingInstance": "i",
            "regarding": {"kind": "Deployment", "name": "web", "namespace": "diff"}}),
        ),
        Step(
            "POST",
            "/api/v1/namespaces/diff/secrets",
            JSON,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "data": {"a": "Yg=="}}),
        ),
        Step(
            "POST",
            "/api/v1/namespaces/diff/secrets",
            JSON,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec2"}, "stringData": {"a": "b"}}),
        ),
        Step(
            "PUT",
            &*format!("{web}/scale").leak(),
            JSON,
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web", "namespace": "diff"}, "spec": {"replicas": 3}}),
        ),
        Step("DELETE", "/api/v1/namespaces/diff/configmaps?labelSelector=x%3Dnothing", JSON, none.clone()),
        Step("DELETE", "/api/v1/namespaces/diff/configmaps?fieldSelector=metadata.name%3Db", JSON, none.clone()),
        Step(
            "POST",
            cm,
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gen", "finalizers": ["bad"]}}),
        ),
        Step("POST", cm, JSON, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Bad_Name"}})),
        Step(
            "POST",
            cm,
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lab", "labels": {"a": "not ok!"}}}),
        ),
    ]
}

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {"status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "spec": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 2},
            "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
            "count": {"type": "integer", "minimum": 1, "maximum": 5},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "byname": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
            "steps": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}}}}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.g.example"},
        "spec": {"group": "g.example", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [version("v1", true), version("v1alpha1", false)]}})
}

/// A namespace of its own for each run: without controllers the real server never finishes deleting one.
async fn ask(client: &kube::Client, namespace: &str, step: &Step) -> (u16, Value) {
    let Step(method, path, content, body) = step;
    let path = path.replace("/diff", &format!("/{namespace}"));
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let bytes = text.replace("\"diff\"", &format!("\"{namespace}\"")).into_bytes();
    let request = Request::builder()
        .method(*method)
        .uri(path)
        .header("content-type", *content)
        .header("accept", "application/json")
        .header("user-agent", "differ/1")
        .body(kube::client::Body::from(bytes))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).replace(namespace, "diff");
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn normal(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in
                ["uid", "resourceVersion", "creationTimestamp", "time", "deletionTimestamp", "lastTransitionTime"]
            {
                if map.contains_key(key) {
                    map.insert(key.into(), "*".into());
                }
            }
            map.values_mut().for_each(normal);
        }
        Value::Array(list) => {
            list.iter_mut().for_each(normal);
            // The order in which fields are found wrong is not fixed; that of managers hangs on the second of the day.
            if list.iter().any(|v| v.get("fieldsType").is_some()) {
                // A difference: the real server drops what `scale` owns when it is written by PUT.
                list.retain(|v| v.get("subresource").is_none_or(|s| s != "scale"));
                list.sort_by_key(Value::to_string);
            }
            if list.iter().any(|v| v.get("field").is_some() && v.get("reason").is_some()) {
                list.sort_by_key(Value::to_string);
            }
        }
        Value::String(text) if text.starts_with("10.96.") => *text = "*".into(),
        Value::String(text) => {
            let words: Vec<String> =
                text.split_inclusive([' ', '(', ')'])
                    .map(|w| {
                        if w.trim_end_matches([')', ' ', ',']).len() == 36 && w.contains('-') {
                            "<uid>".into()
                        } else {
                            w.to_owned()
                        }
                    })
                    .map(|w: String| {
                        if w.trim_end_matches(')').parse::<u64>().is_ok_and(|n| n > 1) { "<version>".into() } else { w }
                    })
                    .collect();
            *text = words.concat();
        }
        _ => {}
    }
}

#[test]
#[ignore = "needs a real API server"]
#[allow(clippy::disallowed_methods, clippy::print_stdout)]
fn answers_are_those_of_a_real_server() {
    let url = std::env::var("TIDEGATE_REAL_API").expect("TIDEGATE_REAL_API");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = kube::Config::new(url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(std::env::var("TIDEGATE_REAL_TOKEN").expect("TIDEGATE_REAL_TOKEN").into());
        let real = kube::Client::try_from(config).unwrap();
        let cluster = cluster();
        for name in [
            "deployment-controller",
            "replicaset-controller",
            "kubelet",
            "endpointslice-controller",
            "garbage-collector",
        ] {
            cluster.enable_controller(name, false);
        }
        let ours = cluster.client("user");
        let namespace = format!("diff-{}", std::process::id());
        let mut different = 0;
        let mut starts = [String::new(), String::new()];
        for (i, step) in steps().iter().enumerate() {
            if step.0 == "WAIT" {
                while ask(&real, &namespace, &Step("GET", step.1, step.2, Value::Null)).await.0 != 200 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
            let (mut theirs, mut mine) = (ask(&real, &namespace, step).await, ask(&ours, &namespace, step).await);
            // By design: here a definition is served, and says so, in the write that makes it.
            for v in [&mut theirs.1, &mut mine.1] {
                if v.pointer("/details/causes").and_then(Value::as_array).is_some_and(|c| c.len() > 1) {
                    super::json::remove(v, &["message"]);
                }
            }
            if step.1.ends_with("/customresourcedefinitions") {
                for v in [&mut theirs.1, &mut mine.1] {
                    super::json::remove(v, &["status"]);
                }
            }
            if i == 0 {
                starts = [&theirs, &mine].map(|v| super::json::text(&v.1, "/metadata/resourceVersion").to_owned());
            }
            normal(&mut theirs.1);
            normal(&mut mine.1);
            if std::env::var("SKIP_MANAGED").is_ok() {
                for v in [&mut theirs.1, &mut mine.1] {
                    super::json::remove(v, &["metadata", "managedFields"]);
                }
            }
            if theirs != mine {
                different += 1;
                let text = |v: &(u16, Value)| format!("{}\n{}", v.0, crate::yaml::to_string(&v.1).unwrap());
                let diff = similar::TextDiff::from_lines(text(&theirs), text(&mine))
                    .unified_diff()
                    .context_radius(2)
                    .to_string();
                println!("=== {i} {} {} {} {}\n{diff}", step.0, step.1, step.2, step.3);
            }
        }
        // What watches tell of all that, with and without a selector.
        for path in [
            "/api/v1/namespaces/diff/configmaps?",
            "/api/v1/namespaces/diff/configmaps?labelSelector=x%3Dy&",
            "/api/v1/namespaces/diff/services?",
            "/apis/apps/v1/namespaces/diff/deployments?",
            "/apis/apps/v1/namespaces/diff/deployments?labelSelector=!app&",
        ] {
            let events = async |client: &kube::Client, start: &str| {
                let path = format!("{path}watch=true&timeoutSeconds=2&resourceVersion={start}").leak();
                let (code, text) = ask(client, &namespace, &Step("GET", path, JSON, Value::Null)).await;
                let one = text.is_object().then(|| text.to_string());
                let text = one.unwrap_or_else(|| text.as_str().unwrap_or_default().to_owned());
                let mut list: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
                list.iter_mut().for_each(normal);
                (code, Value::from(list))
            };
            let (theirs, mine) = (events(&real, &starts[0]).await, events(&ours, &starts[1]).await);
            if theirs != mine {
                different += 1;
                let text = |v: &(u16, Value)| format!("{}\n{}", v.0, crate::yaml::to_string(&v.1).unwrap());
                let diff = similar::TextDiff::from_lines(text(&theirs), text(&mine)).unified_diff().to_string();
                println!("=== watch {path}\n{diff}");
            } else {
                println!("watch {path}: {} events are equal", theirs.1.as_array().map_or(0, Vec::len));
            }
        }
        let _ = ask(
            &real,
            &namespace,
            &Step(
                "DELETE",
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.g.example",
                JSON,
                Value::Null,
            ),
        )
        .await;
        assert_eq!(different, 0, "answers that differ");
    });
}
