//! Defaults of built-in kinds, as far as two reads of an object must agree with what the API server gives.

use serde_json::{Value, json};

use super::json::{self, default, text};
use super::registry::{DAEMON_SETS, Kind, PODS, SERVICES};
use super::rng;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Fills absent fields.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    match kind.kind.as_str() {
        "Deployment" => {
            default(object, &["spec", "replicas"], 1);
            default(object, &["spec", "revisionHistoryLimit"], 10);
            default(object, &["spec", "progressDeadlineSeconds"], 600);
            default(object, &["spec", "strategy", "type"], "RollingUpdate");
            if text(object, "/spec/strategy/type") == "RollingUpdate" {
                default(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], "25%");
                default(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%");
            }
            condition_times(object, &["lastTransitionTime", "lastUpdateTime"]);
            template(object);
        }
        "ReplicaSet" => {
            default(object, &["spec", "replicas"], 1);
            template(object);
        }
        "StatefulSet" => {
            default(object, &["spec", "replicas"], 1);
            default(object, &["spec", "revisionHistoryLimit"], 10);
            default(object, &["spec", "podManagementPolicy"], "OrderedReady");
            default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
            if text(object, "/spec/updateStrategy/type") == "RollingUpdate" {
                default(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
            }
            default(object, &["spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted"], "Retain");
            default(object, &["spec", "persistentVolumeClaimRetentionPolicy", "whenScaled"], "Retain");
            template(object);
        }
        "DaemonSet" => {
            default(object, &["spec", "revisionHistoryLimit"], 10);
            default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
            if text(object, "/spec/updateStrategy/type") == "RollingUpdate" {
                default(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
                default(object, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], 0);
            }
            default(object, &["metadata", "annotations", TEMPLATE_GENERATION], "1");
            template(object);
        }
        "Pod" => {
            condition_times(object, &["lastProbeTime", "lastTransitionTime"]);
            let ip = text(object, "/status/podIP").to_owned();
            if !ip.is_empty() {
                default(object, &["status", "podIPs"], json!([{"ip": ip}]));
            }
            if let Some(spec) = object.get_mut("spec") {
                pod_spec(spec);
                default(spec, &["enableServiceLinks"], true);
            }
        }
        "Service" => service(object),
        "Namespace" => {
            let name = json::name(object).to_owned();
            json::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
        "CustomResourceDefinition" => default(object, &["spec", "conversion", "strategy"], "None"),
        "Secret" => {
            default(object, &["type"], "Opaque");
            if let Some(Value::Object(plain)) = json::remove(object, &["stringData"]) {
                for (key, value) in plain {
                    let text = value.as_str().unwrap_or_default();
                    json::set(object, &["data", &key], base64(text.as_bytes()));
                }
            }
        }
        "HorizontalPodAutoscaler" => {
            default(object, &["spec", "minReplicas"], 1);
            let target = json!({"averageUtilization": 80, "type": "Utilization"});
            let metric = json!({"resource": {"name": "cpu", "target": target}, "type": "Resource"});
            default(object, &["spec", "metrics"], json!([metric]));
        }
        "EndpointSlice" => {
            for endpoint in list_mut(object, "/endpoints") {
                default(endpoint, &["conditions"], json!({}));
            }
            for port in list_mut(object, "/ports") {
                default(port, &["name"], "");
                default(port, &["protocol"], "TCP");
            }
        }

        "MutatingAdmissionPolicy" => {
            default(object, &["spec", "failurePolicy"], "Fail");
            default(object, &["spec", "matchConstraints", "matchPolicy"], "Equivalent");
            default(object, &["spec", "matchConstraints", "namespaceSelector"], json!({}));
            default(object, &["spec", "matchConstraints", "objectSelector"], json!({}));
        }
        _ => {}
    }
}

/// What a new object starts with.
pub(crate) fn on_create(kind: &Kind, object: &mut Value) {
    match kind.kind.as_str() {
        "Namespace" => {
            default(object, &["status", "phase"], "Active");
            default(object, &["spec", "finalizers"], json!(["kubernetes"]));
        }
        "Pod" => {
            default(object, &["status", "phase"], "Pending");
            default(object, &["status", "qosClass"], "BestEffort");
            default(object, &["spec", "preemptionPolicy"], "PreemptLowerPriority");
            default(object, &["spec", "priority"], 0);
            let missing =
                |key: &str| json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300});
            let gone = [missing("node.kubernetes.io/not-ready"), missing("node.kubernetes.io/unreachable")];
            default(object, &["spec", "tolerations"], json!(gone));
        }
        "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "HorizontalPodAutoscaler"
        | "PodDisruptionBudget"
        | "Ingress" => {
            default(object, &["status"], initial_status(&kind.kind));
        }
        "Event" if kind.group == "events.k8s.io" => {
            default(object, &["deprecatedSource"], json!({}));
            for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
                json::object_mut(object, &[]).entry(field).or_insert(Value::Null);
            }
        }
        "Service" => {
            default(object, &["status", "loadBalancer"], json!({}));
            if text(object, "/spec/type") == "ExternalName" {
                return;
            }
            default(object, &["spec", "ipFamilies"], json!(["IPv4"]));
            default(object, &["spec", "ipFamilyPolicy"], "SingleStack");
            let headless = text(object, "/spec/clusterIP") == "None";
            if headless {
                json::set(object, &["spec", "clusterIPs"], json!(["None"]));
            } else if text(object, "/spec/clusterIP").is_empty() {
                let id = rng::hash(json::uid(object).as_bytes());
                let ip = format!("10.96.{}.{}", (id >> 8) & 0xff, 1 + id % 254);
                json::set(object, &["spec", "clusterIP"], ip.clone());
                json::set(object, &["spec", "clusterIPs"], json!([ip]));
            }
        }
        _ => {}
    }
}

/// What an object has if its status says nothing.
pub(crate) fn empty_status(kind: &Kind) -> Value {
    match kind.kind.as_str() {
        "Service" => json!({"loadBalancer": {}}),
        other => initial_status(other),
    }
}

fn initial_status(kind: &str) -> Value {
    match kind {
        "ReplicaSet" => json!({"replicas": 0}),
        "StatefulSet" => json!({"replicas": 0, "availableReplicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0
        }),
        "HorizontalPodAutoscaler" => json!({"currentMetrics": null, "desiredReplicas": 0}),
        "PodDisruptionBudget" => {
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
        }
        "Ingress" => json!({"loadBalancer": {}}),
        _ => json!({}),
    }
}

/// What an update settles.
pub(crate) fn on_update(kind: &Kind, object: &mut Value, old: &Value) {
    if kind.id == DAEMON_SETS {
        // Counted by the server, whatever the client says.
        let path = ["metadata", "annotations", TEMPLATE_GENERATION];
        json::restore(object, old, &path);
        if object.pointer("/spec/template") != old.pointer("/spec/template") {
            let before = old.pointer("/metadata/annotations").and_then(|a| a.get(TEMPLATE_GENERATION));
            let before: i64 = before.and_then(Value::as_str).and_then(|g| g.parse().ok()).unwrap_or(0);
            json::set(object, &path, (before + 1).to_string());
        }
    }
    if kind.id == SERVICES && text(object, "/spec/type") != "ExternalName" {
        // Whoever leaves out what the server chose means the same.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.pointer(&format!("/spec/{field}")) {
                default(object, &["spec", field], value.clone());
            }
        }
    }
    if kind.id == PODS {
        // Admission fills them in again.
        for field in ["priority", "preemptionPolicy", "tolerations"] {
            if let Some(value) = old.pointer(&format!("/spec/{field}")) {
                default(object, &["spec", field], value.clone());
            }
        }
    }
    if kind.kind == "Deployment" && text(object, "/spec/strategy/type") == "Recreate" {
        // A typed client that clears the pointer sends null; the server keeps no null.
        if object.pointer("/spec/strategy/rollingUpdate").is_some_and(Value::is_null) {
            json::remove(object, &["spec", "strategy", "rollingUpdate"]);
        }
    }
}

/// Times of conditions are written as null if they are not set.
fn condition_times(object: &mut Value, fields: &[&str]) {
    for condition in list_mut(object, "/status/conditions") {
        for field in fields {
            json::object_mut(condition, &[]).entry(*field).or_insert(Value::Null);
        }
    }
}

fn list_mut<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = ALPHABET.get((group >> (18 - 6 * i)) as usize & 63).copied().map_or('=', char::from);
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

fn service(object: &mut Value) {
    default(object, &["spec", "sessionAffinity"], "None");
    if text(object, "/spec/sessionAffinity") == "ClientIP" {
        default(object, &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"], 10_800);
    } else {
        json::remove(object, &["spec", "sessionAffinityConfig"]);
    }
    default(object, &["spec", "type"], "ClusterIP");
    if text(object, "/spec/type") == "ExternalName" {
        return;
    }
    default(object, &["spec", "internalTrafficPolicy"], "Cluster");
    if let Some(Value::Array(ports)) = object.pointer_mut("/spec/ports") {
        for port in ports {
            default(port, &["protocol"], "TCP");
            if let Some(number) = port.get("port").cloned() {
                default(port, &["targetPort"], number);
            }
        }
    }
}

fn template(object: &mut Value) {
    let Some(template) = object.pointer_mut("/spec/template") else { return };
    // The server writes an empty creation time into every stored template of a typed client; absent is the same.
    if template.pointer("/metadata/creationTimestamp").is_some_and(Value::is_null) {
        json::remove(template, &["metadata", "creationTimestamp"]);
    }
    if let Some(spec) = template.get_mut("spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    default(spec, &["restartPolicy"], "Always");
    default(spec, &["terminationGracePeriodSeconds"], 30);
    default(spec, &["dnsPolicy"], "ClusterFirst");
    default(spec, &["schedulerName"], "default-scheduler");
    default(spec, &["securityContext"], json!({}));
    if let Some(account) = spec.get("serviceAccountName").filter(|a| a.is_string()).cloned() {
        default(spec, &["serviceAccount"], account);
    }
    for list in ["containers", "initContainers"] {
        if let Some(Value::Array(containers)) = spec.get_mut(list) {
            containers.iter_mut().for_each(container);
        }
    }
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        for volume in volumes {
            for source in ["configMap", "secret", "projected", "downwardAPI"] {
                if volume.get(source).is_some_and(Value::is_object) {
                    default(volume, &[source, "defaultMode"], 420);
                }
            }
            let only_name = volume.as_object().is_some_and(|v| v.len() == 1 && v.contains_key("name"));
            if only_name {
                json::set(volume, &["emptyDir"], json!({}));
            }
            if volume.get("hostPath").is_some_and(Value::is_object) {
                default(volume, &["hostPath", "type"], "");
            }
        }
    }
}

fn container(container: &mut Value) {
    default(container, &["terminationMessagePath"], "/dev/termination-log");
    default(container, &["terminationMessagePolicy"], "File");
    default(container, &["resources"], json!({}));
    let image = text(container, "/image");
    let tag = image.rsplit('/').next().unwrap_or_default();
    let latest = !tag.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
    default(container, &["imagePullPolicy"], if latest { "Always" } else { "IfNotPresent" });
    if let Some(Value::Array(ports)) = container.get_mut("ports") {
        ports.iter_mut().for_each(|p| default(p, &["protocol"], "TCP"));
    }
    if let Some(Value::Array(env)) = container.get_mut("env") {
        for variable in env {
            if variable.pointer("/valueFrom/fieldRef").is_some_and(Value::is_object) {
                default(variable, &["valueFrom", "fieldRef", "apiVersion"], "v1");
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default(probe, &[field], value);
        }
        if probe.get("httpGet").is_some_and(Value::is_object) {
            default(probe, &["httpGet", "path"], "/");
            default(probe, &["httpGet", "scheme"], "HTTP");
        }
    }
}
