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
    facts::{Read, Used},
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

/// Scripts of ConfigMaps.
#[derive(Default)]
struct Scripts {
    /// The controller's namespace.
    home: String,
    /// The administrator's, by key.
    of_home: BTreeMap<String, String>,
    /// Those of the namespaces that bring some, by namespace and key.
    of_places: BTreeMap<String, BTreeMap<String, String>>,
}

/// Who names a kind, and whether it routes.
#[derive(Default)]
struct Users {
    by: BTreeSet<String>,
    places: BTreeSet<String>,
    routes: bool,
}

impl Users {
    fn add(&mut self, by: &str, place: &str) {
        self.by.insert(by.to_owned());
        self.places.insert(place.to_owned());
    }
}

impl Look {
    /// What Rollouts and TrafficRoutings name, by kind.
    pub(super) async fn used(&self) -> Read<Vec<Used>> {
        let mut by_kind: BTreeMap<(String, String), Users> = BTreeMap::new();
        let mut classes: BTreeMap<String, Users> = BTreeMap::new();
        let mut all_places = BTreeSet::new();
        for (api_version, kind) in
            [("rollouts.kruise.io/v1beta1", "Rollout"), ("rollouts.kruise.io/v1alpha1", "TrafficRouting")]
        {
            for object in self.list(api_version, kind).await? {
                let by = format!("{kind} {}/{}", object::namespace(&object), object::name(&object));
                let place = object::namespace(&object);
                all_places.insert(place.to_owned());
                for target in targets(&object) {
                    let routes = routes(&target);
                    if target.kind == "CronJob" {
                        by_kind.entry(("batch/v1".to_owned(), "Job".to_owned())).or_default().add(&by, place);
                    }
                    let users = by_kind.entry((target.api_version, target.kind)).or_default();
                    users.add(&by, place);
                    users.routes |= routes;
                }
                for class in classes_of(&object) {
                    classes.entry(class).or_default().add(&by, place);
                }
            }
        }
        let (scripts, mut used) = self.scripts(&all_places).await;
        for ((api_version, kind), Users { by, places, routes }) in by_kind {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            let gvk = GroupVersionKind::gvk(group, version, &kind);
            let found = discovery::pinned_kind(&self.client, &gvk).await.ok();
            let plural = found
                .as_ref()
                .map_or_else(|| ApiResource::from_gvk(&gvk).plural, |(resource, _)| resource.plural.clone());
            let key = Library::key(group, &kind);
            let (place, lacking) = self.lacking(group, &plural, needed(group, &kind), &places).await;
            used.push(Used {
                kind: if group.is_empty() { kind.clone() } else { format!("{group}/{kind}") },
                by: by.first().cloned().unwrap_or_default(),
                place,
                is_served: found.is_some(),
                lacking,
                script: routes.then(|| scripts.whose(&key, Library::builtin(group, &kind).is_some(), &places)),
                mistake: routes
                    .then(|| scripts.mistake(&key, Library::builtin(group, &kind).is_some(), &places))
                    .flatten(),
            });
        }
        for (class, Users { by, places, .. }) in classes {
            let is_built_in = Library::ingress(&class).is_some();
            let key = format!("lua.traffic.routing.ingress.{class}");
            used.push(Used {
                kind: format!("ingress class {class}"),
                by: by.first().cloned().unwrap_or_default(),
                place: String::new(),
                is_served: true,
                lacking: Ok(Vec::new()),
                script: Some(scripts.whose(&key, is_built_in, &places)),
                mistake: scripts.mistake(&key, is_built_in, &places),
            });
        }
        Ok(used)
    }

    /// What the controller may not do with a kind: everywhere, or in the first of the namespaces where it is named and the
    /// controller watches.
    async fn lacking(
        &self,
        group: &str,
        plural: &str,
        needed: &[&str],
        places: &BTreeSet<String>,
    ) -> (String, Read<Vec<String>>) {
        let mut lacking = self.refused((group, plural, ""), needed, "").await;
        // Roles instead of a ClusterRole: what is refused everywhere may be granted where it is needed.
        for place in places.iter().filter(|place| self.namespaces.contains(place)) {
            if lacking.as_ref().is_ok_and(Vec::is_empty) {
                break;
            }
            lacking = self.refused((group, plural, ""), needed, place).await;
            if lacking.as_ref().is_ok_and(|verbs| !verbs.is_empty()) {
                return (place.clone(), lacking);
            }
        }
        (String::new(), lacking)
    }

    /// The scripts, and what is missing for those of namespaces to be read.
    async fn scripts(&self, places: &BTreeSet<String>) -> (Scripts, Vec<Used>) {
        let read = async |namespace: &str| {
            let found = Api::<ConfigMap>::namespaced(self.client.clone(), namespace).get_opt(SCRIPT_CONFIG_MAP).await;
            found.ok().flatten().and_then(|map| map.data).unwrap_or_default()
        };
        let mut scripts =
            Scripts { home: self.namespace.clone(), of_home: read(&self.namespace).await, of_places: BTreeMap::new() };
        let mut unread = Vec::new();
        let places = places.iter().filter(|place| **place != self.namespace && self.watches(place));
        for place in places.filter(|_| self.namespace_scripts) {
            scripts.of_places.insert(place.clone(), read(place).await);
            let lacking = self.refused(("", "configmaps", SCRIPT_CONFIG_MAP), &["get", "list", "watch"], place).await;
            if unread.is_empty() && lacking != Ok(Vec::new()) {
                unread.push(Used {
                    kind: "ConfigMap".to_owned(),
                    by: format!("scripts of namespace {place}"),
                    place: place.clone(),
                    is_served: true,
                    lacking,
                    script: None,
                    mistake: None,
                });
            }
        }
        (scripts, unread)
    }

    /// Verbs that the controller may not use on a resource (group, plural, name or "" for all) in a place.
    async fn refused(
        &self,
        (group, plural, name): (&str, &str, &str),
        needed: &[&str],
        place: &str,
    ) -> Read<Vec<String>> {
        let mut refused = Vec::new();
        for verb in needed {
            let attributes = ResourceAttributes {
                namespace: (!place.is_empty()).then(|| place.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(plural.to_owned()),
                name: (!name.is_empty()).then(|| name.to_owned()),
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
                refused.push((*verb).to_owned());
            }
        }
        Ok(refused)
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
        ("batch", "Job") => &["get", "list", "watch", "create", "patch"],
        _ => &["get", "list", "watch", "patch"],
    }
}

impl Scripts {
    /// Whose script there is, in every one of the places that need it.
    fn whose(&self, key: &str, is_built_in: bool, places: &BTreeSet<String>) -> Option<&'static str> {
        let own = self.of_home.contains_key(key).then_some("administrator's");
        let is_in = |place: &String| self.of_places.get(place).is_some_and(|scripts| scripts.contains_key(key));
        let brought = (!places.is_empty() && places.iter().all(is_in)).then_some("namespace's");
        own.or(is_built_in.then_some("built-in")).or(brought)
    }

    /// Why the script that counts is none: the administrator's, or where there is no other, those of places.
    fn mistake(&self, key: &str, is_built_in: bool, places: &BTreeSet<String>) -> Option<String> {
        let wrong = |namespace: &str, scripts: &BTreeMap<String, String>| {
            let source = scripts.get(key)?;
            let (name, shown) =
                (SCRIPT_CONFIG_MAP.to_owned(), format!("ConfigMap {namespace}/{SCRIPT_CONFIG_MAP}, {key}"));
            let origin = Origin::ConfigMap { namespace: namespace.to_owned(), name, key: key.to_owned() };
            Engine::new(1).check(&Script::new(shown, source.as_str(), origin)).err().map(|error| error.to_string())
        };
        if is_built_in || self.of_home.contains_key(key) {
            return wrong(&self.home, &self.of_home);
        }
        places.iter().find_map(|place| wrong(place, self.of_places.get(place)?))
    }
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
        let texts = |texts: &[(&str, &str)]| texts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let places = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let scripts = Scripts {
            home: "ops".to_owned(),
            of_home: texts(&[("good", "return obj.data"), ("bad", "\nreturn =")]),
            of_places: BTreeMap::from([
                ("shop".to_owned(), texts(&[("own", "return obj.data"), ("bad", "return obj.data")])),
                ("web".to_owned(), texts(&[("own", "return return")])),
            ]),
        };
        let shop = places(&["shop"]);
        for (key, is_built_in, by) in [
            ("good", true, Some("administrator's")),
            ("other", true, Some("built-in")),
            ("own", true, Some("built-in")),
            ("own", false, Some("namespace's")),
            ("other", false, None),
        ] {
            assert_eq!(scripts.whose(key, is_built_in, &shop), by, "{key}");
            assert_eq!(scripts.mistake(key, is_built_in, &shop), None, "{key}");
        }
        assert_eq!(scripts.whose("own", false, &places(&["shop", "elsewhere"])), None);
        assert_eq!(scripts.whose("own", false, &places(&[])), None);
        for (key, at) in [
            ("bad", "ConfigMap ops/kruise-rollout-configuration, bad:2: "),
            ("own", "ConfigMap web/kruise-rollout-configuration, own:1: "),
        ] {
            let mistake = scripts.mistake(key, false, &places(&["shop", "web"])).unwrap();
            assert!(mistake.starts_with(at), "{mistake}");
        }
    }
}
