//! What Rollouts and TrafficRoutings name, and whether the controller can do its work on it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::ConfigMap,
};
use kube::{
    Api,
    api::{ApiResource, GroupVersionKind, PostParams},
    discovery,
};
use serde_json::Value;

use super::{
    judge::{Read, Used},
    look::{Look, read},
};
use crate::{
    api::{
        keys::SCRIPT_CONFIG_MAP,
        object::{self, text},
    },
    lua::{Engine, Library, Origin, Script},
    webhook::authority::{Target, targets},
};

/// Scripts of the administrator's, by key.
type Scripts = BTreeMap<String, String>;

/// Who names a kind, and whether it routes.
#[derive(Default)]
struct Users {
    by: BTreeSet<String>,
    routes: bool,
}

impl Look {
    /// What Rollouts and TrafficRoutings name, by kind.
    pub(super) async fn used(&self) -> Read<Vec<Used>> {
        let mut by_kind: BTreeMap<(String, String), Users> = BTreeMap::new();
        let mut classes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (api_version, kind) in
            [("rollouts.kruise.io/v1beta1", "Rollout"), ("rollouts.kruise.io/v1alpha1", "TrafficRouting")]
        {
            for object in self.list(api_version, kind).await? {
                let by = format!("{kind} {}/{}", object::namespace(&object), object::name(&object));
                for target in targets(&object) {
                    let routes = routes(&target);
                    let users = by_kind.entry((target.api_version, target.kind)).or_default();
                    users.by.insert(by.clone());
                    users.routes |= routes;
                }
                for class in classes_of(&object) {
                    classes.entry(class).or_default().insert(by.clone());
                }
            }
        }
        let scripts =
            Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace).get_opt(SCRIPT_CONFIG_MAP).await;
        let scripts = scripts.ok().flatten().and_then(|map| map.data).unwrap_or_default();
        let mut used = Vec::new();
        for ((api_version, kind), Users { by, routes }) in by_kind {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            let gvk = GroupVersionKind::gvk(group, version, &kind);
            let found = discovery::pinned_kind(&self.client, &gvk).await.ok();
            let plural = found
                .as_ref()
                .map_or_else(|| ApiResource::from_gvk(&gvk).plural, |(resource, _)| resource.plural.clone());
            let key = Library::key(group, &kind);
            used.push(Used {
                kind: if group.is_empty() { kind.clone() } else { format!("{group}/{kind}") },
                by: by.first().cloned().unwrap_or_default(),
                is_served: found.is_some(),
                lacking: self.lacking(group, &plural, needed(group, &kind)).await,
                script: routes.then(|| whose(&scripts, &key, Library::builtin(group, &kind).is_some())),
                mistake: routes.then(|| mistake(&scripts, &key)).flatten(),
            });
        }
        for (class, by) in classes {
            let key = format!("lua.traffic.routing.ingress.{class}");
            used.push(Used {
                kind: format!("ingress class {class}"),
                by: by.first().cloned().unwrap_or_default(),
                is_served: true,
                lacking: Ok(Vec::new()),
                script: Some(whose(&scripts, &key, Library::ingress(&class).is_some())),
                mistake: mistake(&scripts, &key),
            });
        }
        Ok(used)
    }

    /// What the controller may not do with a kind.
    async fn lacking(&self, group: &str, plural: &str, needed: &[&str]) -> Read<Vec<String>> {
        let mut lacking = Vec::new();
        for verb in needed {
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(plural.to_owned()),
                verb: Some((*verb).to_owned()),
                ..ResourceAttributes::default()
            };
            let spec = SubjectAccessReviewSpec {
                user: Some(self.user.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let api = Api::<SubjectAccessReview>::all(self.client.clone());
            let answer = read(api.create(&PostParams::default(), &review).await)?;
            if !answer.status.is_some_and(|s| s.allowed) {
                lacking.push((*verb).to_owned());
            }
        }
        Ok(lacking)
    }
}

/// Whether a script changes what is named here: Services, Ingresses and workloads are the controller's own matter.
fn routes(target: &Target) -> bool {
    target.field.contains("etworkRefs[") || target.field.ends_with("gateway.httpRouteName")
}

/// What the controller does with a kind. Of a CronJob it makes Jobs.
fn needed(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("batch", "CronJob") => &["get", "list", "watch"],
        _ => &["get", "list", "watch", "patch"],
    }
}

/// Whose script there is.
fn whose(scripts: &Scripts, key: &str, is_built_in: bool) -> Option<&'static str> {
    let own = scripts.contains_key(key).then_some("administrator's");
    own.or(is_built_in.then_some("built-in"))
}

/// Why the administrator's script is none.
fn mistake(scripts: &Scripts, key: &str) -> Option<String> {
    let source = scripts.get(key)?;
    let (namespace, name) = (String::new(), SCRIPT_CONFIG_MAP.to_owned());
    let script = Script::new(key, source.as_str(), Origin::ConfigMap { namespace, name, key: key.to_owned() });
    Engine::new(1).check(&script).err().map(|error| error.to_string())
}

/// Classes of the Ingresses that an object names.
fn classes_of(object: &Value) -> BTreeSet<String> {
    let lists =
        ["/spec/strategy/canary/trafficRoutings", "/spec/strategy/blueGreen/trafficRoutings", "/spec/objectRef"];
    let routings = lists.into_iter().filter_map(|pointer| object.pointer(pointer)?.as_array()).flatten();
    let class = |ingress: &Value| {
        let class = text(ingress, &["classType"]);
        if class.is_empty() { "nginx".to_owned() } else { class.to_owned() }
    };
    routings.filter_map(|routing| routing.get("ingress")).map(class).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_routes_needs_a_script() {
        let rollout = json!({"kind": "Rollout", "spec": {
        "workloadRef": {"apiVersion": "game.kruise.io/v1alpha1", "kind": "GameServerSet", "name": "web"},
        "strategy": {"canary": {
            "steps": [{"gates": [{"name": "load", "job": {"cronJob": "load"}}]}],
            "trafficRoutings": [{"service": "web", "ingress": {"name": "web"}, "gateway": {"httpRouteName": "web"},
                "customNetworkRefs": [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "web"}]}],
        }}}});
        let routed: Vec<String> = targets(&rollout).iter().filter(|t| routes(t)).map(|t| t.kind.clone()).collect();
        assert_eq!(routed, ["HTTPRoute", "VirtualService"]);
        let kinds: Vec<String> = targets(&rollout).iter().map(|t| t.kind.clone()).collect();
        assert!(kinds.contains(&"CronJob".to_owned()) && kinds.contains(&"GameServerSet".to_owned()), "{kinds:?}");
        assert!(!needed("batch", "CronJob").contains(&"patch") && needed("apps", "Deployment").contains(&"patch"));
    }

    #[test]
    fn a_script_that_does_not_compile_is_told_with_its_line() {
        let scripts = Scripts::from([
            ("good".to_owned(), "return obj.data".to_owned()),
            ("bad".to_owned(), "\nreturn =".to_owned()),
        ]);
        assert_eq!((mistake(&scripts, "good"), mistake(&scripts, "other")), (None, None));
        assert!(mistake(&scripts, "bad").unwrap().starts_with("bad:2: "));
        assert_eq!(
            (whose(&scripts, "good", true), whose(&scripts, "other", true)),
            (Some("administrator's"), Some("built-in"))
        );
        assert_eq!(whose(&scripts, "other", false), None);
    }
}
