//! The stable Service's pin, the canary Service, and the endpoints that stand behind them.

use serde_json::{Map, Value, json};

use crate::api::{
    keys,
    object::{self, at, text},
    v1beta1::PatchPodTemplateMetadata,
};

/// The revision that a Service is pinned to by a label of pods.
pub fn pinned_to<'a>(service: &'a Value, label: &str) -> Option<&'a str> {
    at(service, &["spec", "selector", label]).and_then(Value::as_str)
}

/// Operations that pin a Service to a revision.
pub fn pin(service: &Value, label: &str, revision: &str) -> Vec<Value> {
    if pinned_to(service, label) == Some(revision) {
        return Vec::new();
    }
    vec![json!({"op": "add", "path": format!("/spec/selector/{label}"), "value": revision})]
}

/// Operations that take any pin away: the workload that it was made for may be gone, and with it the word which label
/// it was.
pub fn unpin(service: &Value) -> Vec<Value> {
    keys::REVISION_LABELS
        .iter()
        .filter(|label| pinned_to(service, label).is_some())
        .map(|label| json!({"op": "remove", "path": format!("/spec/selector/{label}")}))
        .collect()
}

/// The canary's twin of a Service: the same ports and session settings, but never a second load balancer, node port or
/// address of the user's; headless when the original is.
pub fn canary_service(
    stable: &Value,
    name: &str,
    (label, revision): (&str, &str),
    patch: Option<&PatchPodTemplateMetadata>,
    owner: Value,
) -> Value {
    let mut spec = Map::new();
    for key in [
        "sessionAffinity",
        "sessionAffinityConfig",
        "publishNotReadyAddresses",
        "internalTrafficPolicy",
        "trafficDistribution",
    ] {
        if let Some(value) = at(stable, &["spec", key]) {
            spec.insert(key.to_owned(), value.clone());
        }
    }
    let ports = at(stable, &["spec", "ports"]).and_then(Value::as_array).into_iter().flatten();
    let ports: Vec<Value> = ports
        .map(|port| {
            let mut port = port.clone();
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
            port
        })
        .collect();
    spec.insert("ports".to_owned(), Value::Array(ports));
    if text(stable, &["spec", "clusterIP"]) == "None" {
        spec.insert("clusterIP".to_owned(), json!("None"));
    }
    spec.insert("type".to_owned(), json!("ClusterIP"));
    let mut selector = at(stable, &["spec", "selector"]).and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in patch.iter().flat_map(|p| &p.labels) {
        if selector.contains_key(key) {
            selector.insert(key.clone(), json!(value));
        }
    }
    selector.insert(label.to_owned(), json!(revision));
    spec.insert("selector".to_owned(), Value::Object(selector));
    let mut metadata = json!({
        "name": name,
        "namespace": object::namespace(stable),
        "ownerReferences": [owner],
    });
    if let Some(labels) = at(stable, &["metadata", "labels"]).filter(|l| l.is_object())
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.insert("labels".to_owned(), labels.clone());
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Ready endpoints behind a Service of the pods that are asked for.
pub fn ready_endpoints<'a>(
    slices: impl IntoIterator<Item = &'a Value>,
    service: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> std::collections::BTreeSet<&'a str> {
    endpoints(slices, service)
        .filter(|e| text(e, &["targetRef", "kind"]) == "Pod")
        .map(|e| text(e, &["targetRef", "name"]))
        .filter(|pod| is_wanted(pod))
        .collect()
}

fn endpoints<'a>(slices: impl IntoIterator<Item = &'a Value>, service: &str) -> impl Iterator<Item = &'a Value> {
    slices
        .into_iter()
        .filter(move |slice| object::label(slice, keys::SERVICE_NAME) == Some(service))
        .flat_map(|slice| at(slice, &["endpoints"]).and_then(Value::as_array).into_iter().flatten())
        // An unknown readiness counts as ready (EndpointSlice API).
        .filter(|e| at(e, &["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_40_the_twin_of_a_load_balancer_is_a_plain_service_and_of_a_headless_one_headless() {
        let stable = json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"lb": "x"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "healthCheckNodePort": 3,
                "loadBalancerIP": "1.2.3.4", "sessionAffinity": "ClientIP", "selector": {"app": "web", "version": "base"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}]},
        });
        let patch = PatchPodTemplateMetadata {
            labels: [("version".to_owned(), "canary".to_owned())].into(),
            ..Default::default()
        };
        let twin =
            canary_service(&stable, "web-canary", ("pod-template-hash", "h2"), Some(&patch), json!({"uid": "r"}));
        assert_eq!(
            twin["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "ClientIP",
                "selector": {"app": "web", "version": "canary", "pod-template-hash": "h2"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
        );
        assert_eq!(twin["metadata"].get("annotations"), None);
        let headless = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}});
        assert_eq!(
            canary_service(&headless, "web-canary", ("controller-revision-hash", "h"), None, json!({}))["spec"]["clusterIP"],
            "None"
        );
    }

    #[test]
    fn pins_and_unpins() {
        let free = json!({"spec": {"selector": {"app": "web"}}});
        let pinned = json!({"spec": {"selector": {"app": "web", "pod-template-hash": "h1"}}});
        assert_eq!(
            pin(&free, "pod-template-hash", "h1"),
            vec![json!({"op": "add", "path": "/spec/selector/pod-template-hash", "value": "h1"})]
        );
        assert_eq!(pin(&pinned, "pod-template-hash", "h1"), Vec::<Value>::new());
        assert_eq!(unpin(&pinned), vec![json!({"op": "remove", "path": "/spec/selector/pod-template-hash"})]);
        assert_eq!(unpin(&free), Vec::<Value>::new());
    }

    #[test]
    fn counts_only_ready_endpoints_of_the_revision() {
        let endpoint = |pod: &str, ready: Option<bool>| json!({"targetRef": {"kind": "Pod", "name": pod}, "conditions": {"ready": ready}});
        let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "endpoints": [
            endpoint("web-h1-aaaaa", Some(true)), endpoint("web-h1-bbbbb", Some(false)), endpoint("web-h1-ccccc", None),
            endpoint("web-h1-canary-ddddd", Some(true)), endpoint("web-h2-eeeee", Some(true))]});
        assert_eq!(ready_endpoints([&slice], "web", |pod| pod.starts_with("web-h1")).len(), 3);
        assert!(ready_endpoints([&slice], "other", |_| true).is_empty());
    }
}
