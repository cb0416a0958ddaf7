//! The EndpointSlice controller.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::json::{self, deleting, items, text};
use super::super::objects::DeleteOptions;
use super::super::registry::{ENDPOINT_SLICES, PODS, SERVICES};
use super::super::selector::Labels;
use super::super::store::{Change, Key, Store};
use super::pods::{owner_reference, ready};
use super::{Access, Reconcile};

/// Endpoints in one slice, the real controller's default.
const SLICE: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(crate) struct Controller;

/// A Service concerns itself, a pod every Service that selects it (or did), a slice its Service.
pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    let namespace = &change.key.namespace;
    match change.key.kind {
        SERVICES => keys.push(change.key.clone()),
        ENDPOINT_SLICES => {
            for slice in [&change.before, &change.after].into_iter().flatten().take(1) {
                let service = text(slice, "/metadata/labels/kubernetes.io~1service-name");
                keys.push(Key::new(SERVICES, namespace, service));
            }
        }
        PODS => {
            for service in store.list(SERVICES, Some(namespace)) {
                let Some(selector) = Labels::of_map(service.pointer("/spec/selector")) else { continue };
                if [&change.before, &change.after].into_iter().flatten().any(|p| selector.selects(p)) {
                    keys.push(Key::new(SERVICES, namespace, json::name(service)));
                }
            }
        }
        _ => {}
    }
}

impl Reconcile for Controller {
    fn reconcile(&mut self, access: &Access<'_>, key: &Key) -> Option<Duration> {
        let service = access.at(key)?;
        if deleting(&service) || text(&service, "/spec/type") == "ExternalName" {
            return None;
        }
        let selector = Labels::of_map(service.pointer("/spec/selector"))?;
        let publish_unready = json::flag(&service, "/spec/publishNotReadyAddresses");
        let pods: Vec<Arc<Value>> = access
            .list(PODS, &key.namespace)
            .into_iter()
            .filter(|p| selector.selects(p) && !text(p, "/status/podIP").is_empty())
            .filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"))
            .collect();
        let endpoints: Vec<Value> = pods.iter().map(|p| endpoint(p, publish_unready)).collect();
        let ports = ports(&service, pods.first().map(Arc::as_ref));
        let slices: Vec<Arc<Value>> = access
            .list(ENDPOINT_SLICES, &key.namespace)
            .into_iter()
            .filter(|s| {
                text(s, "/metadata/labels/kubernetes.io~1service-name") == key.name
                    && text(s, "/metadata/labels/endpointslice.kubernetes.io~1managed-by")
                        == "endpointslice-controller.k8s.io"
            })
            .collect();
        let mut chunks: Vec<&[Value]> = endpoints.chunks(SLICE).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for (i, chunk) in chunks.iter().enumerate() {
            match slices.get(i) {
                Some(slice) if items(slice, "/endpoints") == *chunk && slice.get("ports") == Some(&ports) => {}
                Some(slice) => {
                    access.update(ENDPOINT_SLICES, &key.namespace, json::name(slice), |slice| {
                        json::set(slice, &["endpoints"], chunk.to_vec());
                        json::set(slice, &["ports"], ports.clone());
                    });
                }
                None => {
                    let mut labels = service.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
                    json::set(&mut labels, &[SERVICE_NAME], key.name.clone());
                    json::set(
                        &mut labels,
                        &["endpointslice.kubernetes.io/managed-by"],
                        "endpointslice-controller.k8s.io",
                    );
                    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                        "metadata": {"generateName": format!("{}-", key.name), "namespace": key.namespace,
                            "labels": labels, "ownerReferences": [owner_reference(&service)]},
                        "addressType": "IPv4", "endpoints": chunk, "ports": ports});
                    access.create(ENDPOINT_SLICES, &key.namespace, slice);
                }
            }
        }
        for slice in slices.iter().skip(chunks.len()) {
            access.delete(ENDPOINT_SLICES, &key.namespace, json::name(slice), &DeleteOptions::default());
        }
        None
    }
}

fn endpoint(pod: &Value, publish_unready: bool) -> Value {
    let serving = ready(pod);
    let terminating = deleting(pod);
    json!({
        "addresses": [text(pod, "/status/podIP")],
        "conditions": {"ready": publish_unready || (serving && !terminating), "serving": serving, "terminating": terminating},
        "nodeName": text(pod, "/spec/nodeName"),
        "targetRef": {"kind": "Pod", "namespace": json::namespace(pod), "name": json::name(pod), "uid": json::uid(pod)},
    })
}

/// The Service's ports as the pods have them: a named target port is looked up in a pod.
fn ports(service: &Value, pod: Option<&Value>) -> Value {
    let list: Vec<Value> = items(service, "/spec/ports")
        .iter()
        .map(|port| {
            let target = match port.get("targetPort") {
                Some(Value::String(name)) => pod.and_then(|p| named_port(p, name)),
                Some(number) => Some(number.clone()),
                None => port.get("port").cloned(),
            };
            json!({"name": text(port, "/name"), "port": target, "protocol": text(port, "/protocol")})
        })
        .collect();
    list.into()
}

fn named_port(pod: &Value, name: &str) -> Option<Value> {
    items(pod, "/spec/containers")
        .iter()
        .flat_map(|c| items(c, "/ports"))
        .find(|p| text(p, "/name") == name)
        .and_then(|p| p.get("containerPort").cloned())
}
