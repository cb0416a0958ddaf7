//! What a recipe has to be told about the gateway of the rig: its class, its port, a host name of its own.

use serde_json::{Value, json};

use super::Via;
use crate::rig::{contour, istio, load::Target, space::Space, traefik};

/// The host that users of a space ask for.
fn host(space: &Space) -> String {
    format!("{}.example.com", space.name)
}

/// A route of the recipe hangs on a gateway's only Gateway.
fn parent(route: &mut Value, (namespace, name): (&str, &str)) {
    route["spec"]["parentRefs"] = json!([{"namespace": namespace, "name": name}]);
}

impl Via {
    /// A user's requests.
    pub fn target(self, space: &Space, service: &str) -> Target {
        let port = match self {
            Via::Istio => istio::GATEWAY_API_PORT,
            Via::Mesh => istio::MESH_PROXY,
            Via::Contour | Via::ContourGateway => contour::PORT,
            Via::Traefik | Via::TraefikGateway => traefik::PORT,
        };
        let host = if self == Via::Mesh { format!("{service}.{}.svc.cluster.local", space.name) } else { host(space) };
        let own_failure = matches!(self, Via::Contour | Via::ContourGateway).then_some(contour::NO_CLUSTER);
        Target { own_failure, ..space.target(port).with("host", &host) }
    }

    /// A manifest of the recipe as this gateway needs it; none when it has no use for it.
    pub fn adapt(self, object: &Value, space: &Space) -> Option<Value> {
        // All recipes share the gateway, so that each has to have a host of its own.
        let text = object.to_string();
        let text = ["shop", "web"].iter().fold(text, |t, name| t.replace(&format!("{name}.example.com"), &host(space)));
        let mut object: Value = serde_json::from_str(&text).ok()?;
        match (object["kind"].as_str()?, self) {
            ("Gateway", Via::TraefikGateway) => {
                object["spec"]["gatewayClassName"] = json!("traefik");
                object["spec"]["listeners"][0]["port"] = json!(traefik::PORT);
            }
            // It has one of its own, or needs none.
            ("Gateway", _) => return None,
            ("HTTPRoute", Via::Istio) => parent(&mut object, istio::PARENT),
            ("HTTPRoute", Via::ContourGateway) => parent(&mut object, contour::PARENT),
            ("HTTPRoute", Via::Mesh) => {
                object["spec"]["parentRefs"] = json!([{"group": "", "kind": "Service", "name": "shop"}]);
                // Only a Service's own names count in a mesh.
                object["spec"].as_object_mut()?.remove("hostnames");
            }
            // Who asks counts the answers of two versions.
            ("TraefikService", _) => {
                object["spec"]["weighted"]["services"].as_array_mut()?.retain(|s| s["name"] == "shop");
            }
            _ => {}
        }
        Some(object)
    }
}
