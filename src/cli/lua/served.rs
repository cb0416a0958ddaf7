//! What a cluster has of the kinds that scripts are for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::{api::keys::SCRIPT_CONFIG_MAP, lua::Library};

/// Beginning of the ConfigMap's keys of scripts for networkRefs.
const KEY: &str = "lua.traffic.routing.";
/// What follows it in keys for classes of Ingresses.
const INGRESS: &str = "ingress.";

/// Kinds that an API server serves, and the scripts of its ConfigMap.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Versions of each kind, by `<group>/<Kind>`, of the groups that some script is for.
    pub kinds: BTreeMap<String, Vec<String>>,
    /// `<group>/<Kind>`, or `Ingress of class <class>`, of each script of the ConfigMap.
    pub scripts: Vec<String>,
}

impl Served {
    /// Asks an API server. `namespace` is the controller's, which has the ConfigMap.
    ///
    /// # Errors
    /// No answer. A ConfigMap that is not there, or may not be read, counts as empty.
    pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<Served> {
        let config_map = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(SCRIPT_CONFIG_MAP).await;
        let data = config_map.ok().flatten().and_then(|map| map.data).unwrap_or_default();
        let scripts: Vec<String> = data.keys().filter_map(|key| target(key)).collect();
        let of_scripts = scripts.iter().filter_map(|target| Some(target.split_once('/')?.0.to_owned()));
        let groups: BTreeSet<String> = Library::kinds().into_iter().map(|(group, _)| group).chain(of_scripts).collect();
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let all = client.list_api_groups().await.context("cannot list the kinds of the cluster")?;
        for group in all.groups.iter().filter(|group| groups.contains(&group.name)) {
            for version in &group.versions {
                let resources = client.list_api_group_resources(&version.group_version).await;
                let resources = resources.with_context(|| format!("cannot list the kinds of {}", group.name))?;
                for resource in resources.resources.iter().filter(|resource| !resource.name.contains('/')) {
                    let kind = format!("{}/{}", group.name, resource.kind);
                    kinds.entry(kind).or_default().push(version.version.clone());
                }
            }
        }
        Ok(Served { kinds, scripts })
    }

    /// Versions that are served of a kind; none where it is not installed, or is no kind but a class.
    pub fn versions(&self, target: &str) -> &[String] {
        self.kinds.get(target).map_or(&[], Vec::as_slice)
    }

    /// Kinds beside those of scripts, which a Rollout cannot name as long as nobody writes one.
    pub fn without_script(&self, built_in: &[String]) -> Vec<&str> {
        let has_script = |kind: &String| built_in.contains(kind) || self.scripts.contains(kind);
        self.kinds.keys().filter(|kind| !has_script(kind)).map(String::as_str).collect()
    }
}

/// What a key of the ConfigMap is for: `lua.traffic.routing.<Kind>.<group>`, `lua.traffic.routing.ingress.<class>`.
fn target(key: &str) -> Option<String> {
    let rest = key.strip_prefix(KEY)?;
    if let Some(class) = rest.strip_prefix(INGRESS) {
        return Some(format!("Ingress of class {class}"));
    }
    let (kind, group) = rest.split_once('.')?;
    Some(format!("{group}/{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Cluster;
    use serde_json::json;

    #[test]
    fn keys_of_the_config_map() {
        assert_eq!(target("lua.traffic.routing.Route.mesh.example.com").as_deref(), Some("mesh.example.com/Route"));
        assert_eq!(target("lua.traffic.routing.ingress.nginx").as_deref(), Some("Ingress of class nginx"));
        assert_eq!(target("lua.traffic.accepted.Route.mesh.example.com"), None);
    }

    #[tokio::test]
    async fn kinds_of_a_cluster() {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": SCRIPT_CONFIG_MAP, "namespace": "rollouts"},
            "data": {"lua.traffic.routing.Route.mesh.example.com": "return obj.data"}});
        let cluster = Cluster::builder()
            .namespace("rollouts")
            .kind("networking.istio.io", &["v1", "v1beta1"], "virtualservices", "VirtualService", true)
            .kind("networking.istio.io", &["v1"], "gateways", "Gateway", true)
            .kind("mesh.example.com", &["v1"], "routes", "Route", true)
            .kind("other.example.com", &["v1"], "others", "Other", true)
            .object(config)
            .build()
            .unwrap();
        let served = Served::read(&cluster.client("user"), "rollouts").await.unwrap();
        assert_eq!(served.scripts, ["mesh.example.com/Route"]);
        let mut versions = served.versions("networking.istio.io/VirtualService").to_vec();
        versions.sort();
        assert_eq!(versions, ["v1", "v1beta1"]);
        assert_eq!(served.versions("mesh.example.com/Route"), ["v1"]);
        assert_eq!(served.versions("kuma.io/MeshHTTPRoute"), [""; 0]);
        let built_in = ["networking.istio.io/VirtualService".to_owned()];
        assert_eq!(served.without_script(&built_in), ["networking.istio.io/Gateway"]);
    }
}
