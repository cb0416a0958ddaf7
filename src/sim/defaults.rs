//! Defaults of built-in kinds, as far as two reads of an object must agree with what the API server gives.

use serde_json::{Value, json};

use super::json::{self, default, text};
use super::registry::Kind;
use super::rng;

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
            template(object);
        }
        "Pod" => {
            if let Some(spec) = object.get_mut("spec") {
                pod_spec(spec);
                default(spec, &["serviceAccountName"], "default");
                default(spec, &["serviceAccount"], "default");
                default(spec, &["enableServiceLinks"], true);
                default(spec, &["preemptionPolicy"], "PreemptLowerPriority");
                default(spec, &["priority"], 0);
            }
        }
        "Service" => service(object),
        "Namespace" => {
            let name = json::name(object).to_owned();
            json::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
        "CustomResourceDefinition" => default(object, &["spec", "conversion", "strategy"], "None"),
        "Secret" => default(object, &["type"], "Opaque"),
        "HorizontalPodAutoscaler" => default(object, &["spec", "minReplicas"], 1),
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
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            default(object, &["status"], initial_status(&kind.kind));
        }
        "Service" => {
            default(object, &["status", "loadBalancer"], json!({}));
            if text(object, "/spec/type") != "ExternalName" && text(object, "/spec/clusterIP").is_empty() {
                let id = rng::hash(json::uid(object).as_bytes());
                let ip = format!("10.96.{}.{}", (id >> 8) & 0xff, 1 + id % 254);
                json::set(object, &["spec", "clusterIP"], ip.clone());
                json::set(object, &["spec", "clusterIPs"], json!([ip]));
            }
        }
        _ => {}
    }
}

fn initial_status(kind: &str) -> Value {
    match kind {
        "ReplicaSet" => json!({"replicas": 0}),
        "StatefulSet" => json!({"replicas": 0, "availableReplicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0
        }),
        _ => json!({}),
    }
}

/// What an update settles.
pub(crate) fn on_update(kind: &Kind, object: &mut Value) {
    if kind.kind == "Deployment" && text(object, "/spec/strategy/type") == "Recreate" {
        // A typed client that clears the pointer sends null; the server keeps no null.
        if object.pointer("/spec/strategy/rollingUpdate").is_some_and(Value::is_null) {
            json::remove(object, &["spec", "strategy", "rollingUpdate"]);
        }
    }
}

fn service(object: &mut Value) {
    default(object, &["spec", "sessionAffinity"], "None");
    default(object, &["spec", "type"], "ClusterIP");
    if text(object, "/spec/type") == "ExternalName" {
        return;
    }
    default(object, &["spec", "internalTrafficPolicy"], "Cluster");
    default(object, &["spec", "ipFamilies"], json!(["IPv4"]));
    default(object, &["spec", "ipFamilyPolicy"], "SingleStack");
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
