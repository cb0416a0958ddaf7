//! What a class's script is given, and the canary Ingress that is made of what it returns.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    api::{
        object::{at, text},
        v1beta1::PatchPodTemplateMetadata,
    },
    lua::Script,
    traffic::{Names, Original, OutputError, Parts, Strategy, input},
};

/// Metadata by which other controllers take the stable Ingress for theirs. On a copy it would have a DNS record, a
/// certificate or an application fought over by two objects. Keys end in `/`: a whole prefix.
const FOREIGN: [&str; 19] = [
    "acme.cert-manager.io/",
    "argocd.argoproj.io/",
    "cert-manager.io/",
    "certmanager.k8s.io/",
    "config.k8s.io/",
    "config.kubernetes.io/",
    "external-dns.alpha.kubernetes.io/",
    "external-dns.kubernetes.io/",
    "field.cattle.io/",
    "fluxcd.io/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kapp.k14s.io/",
    "kubectl.kubernetes.io/",
    "kubernetes.io/tls-acme",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "objectset.rio.cattle.io/",
    "rollouts.kruise.io/",
];

/// Whether a script changes the user's Ingress itself.
pub fn is_in_place(script: &Script) -> bool {
    says(script, "ingress", "in-place") == Some(true)
}

/// Whether a line of a script's header has a word. The original controller's scripts have no header.
fn says(script: &Script, line: &str, word: &str) -> Option<bool> {
    script.header(line).map(|words| words.split(',').any(|w| w.trim() == word))
}

/// Whether a class has no shares, so that a share of 0 is the absence of a canary Ingress.
pub fn only_matches(script: &Script) -> bool {
    says(script, "caps", "weight") == Some(false)
}

/// The global `obj` of a class's script: what a script of a networkRef sees, and the fields of the original
/// controller's contract for Ingresses, `annotations` and `weight` (a string, `-1` without a share). `controller`, where it
/// is known, is an addition: `spec.controller` of the IngressClass, which tells gateways apart whose classes have one name.
pub fn script_input(
    stable: &Original,
    names: &Names,
    patch_pod_metadata: Option<&PatchPodTemplateMetadata>,
    strategy: &Strategy,
    controller: Option<&str>,
) -> Value {
    let mut obj = input::script_input(stable, names, patch_pod_metadata, strategy);
    let own = own(&stable.annotations);
    if let Some(map) = obj.as_object_mut() {
        map.insert("weight".to_owned(), json!(strategy.weight.map_or(-1, i64::from).to_string()));
        if !own.is_empty() {
            map.insert("annotations".to_owned(), json!(own));
        }
        if let Some(controller) = controller {
            map.insert("controller".to_owned(), json!(controller));
        }
    }
    obj
}

/// Without what belongs to other controllers.
fn own(entries: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_foreign = |key: &str| FOREIGN.iter().any(|f| if f.ends_with('/') { key.starts_with(f) } else { key == *f });
    entries.iter().filter(|(key, _)| !is_foreign(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Takes the value that a class's script returned for an Ingress, and makes the canary Ingress of it.
///
/// # Errors
/// When the value is no table of strings, or the Ingress has nothing to route to the canary. Names the field.
pub fn canary(stable: &Original, names: &Names, script: &Script, value: Value) -> Result<Parts, String> {
    let annotations = annotations(value).map_err(|e| e.to_string())?;
    if annotations == own(&stable.annotations) {
        return Err("the script changed no annotation, so the canary Ingress would compete with the stable one".into());
    }
    let spec = canary_spec(&stable.spec, names, says(script, "ingress", "default-backend") == Some(true))?;
    Ok(Parts { spec, labels: own(&stable.labels), annotations })
}

fn annotations(value: Value) -> Result<BTreeMap<String, String>, OutputError> {
    match value {
        Value::Object(_) => input::strings(Some(value), "annotations"),
        Value::Array(list) if list.is_empty() => Ok(BTreeMap::new()),
        other => Err(OutputError::NotAnnotations(input::type_of(&other))),
    }
}

/// The rules and paths that route to the stable Service, with the canary's in its place. A rule without `http` and a
/// backend that is no Service are somebody else's.
fn canary_spec(stable: &Value, names: &Names, shares_default: bool) -> Result<Value, String> {
    let service = names.stable_service.as_str();
    let mut spec = Map::new();
    for key in ["ingressClassName", "tls"] {
        if let Some(value) = stable.get(key) {
            spec.insert(key.to_owned(), value.clone());
        }
    }
    let default = stable.get("defaultBackend").and_then(|backend| renamed(backend, names));
    let has_default = default.is_some();
    if let Some(backend) = default.filter(|_| shares_default) {
        spec.insert("defaultBackend".to_owned(), backend);
    }
    let rules = stable.get("rules").and_then(Value::as_array).into_iter().flatten();
    let rules: Vec<Value> = rules.filter_map(|rule| canary_rule(rule, names)).collect();
    if rules.is_empty() && has_default && !shares_default {
        return Err(format!(
            "only spec.defaultBackend routes to Service {service}, and this class cannot share it with the canary; add a \
             rule with path / for Service {service}"
        ));
    }
    if rules.is_empty() && !has_default {
        return Err(format!("no path routes to Service {service}; correct the Ingress or trafficRoutings.service"));
    }
    if !rules.is_empty() {
        spec.insert("rules".to_owned(), Value::Array(rules));
    }
    Ok(Value::Object(spec))
}

fn canary_rule(rule: &Value, names: &Names) -> Option<Value> {
    let paths = at(rule, &["http", "paths"])?.as_array()?;
    let paths: Vec<Value> = paths
        .iter()
        .filter_map(|path| {
            let mut path = path.clone();
            let backend = renamed(path.get("backend")?, names)?;
            path.as_object_mut()?.insert("backend".to_owned(), backend);
            Some(path)
        })
        .collect();
    if paths.is_empty() {
        return None;
    }
    let mut rule = rule.clone();
    rule.get_mut("http")?.as_object_mut()?.insert("paths".to_owned(), Value::Array(paths));
    Some(rule)
}

/// A backend of the stable Service, renamed; its port stays as it is written.
fn renamed(backend: &Value, names: &Names) -> Option<Value> {
    if text(backend, &["service", "name"]) != names.stable_service {
        return None;
    }
    let mut backend = backend.clone();
    let service = backend.get_mut("service")?.as_object_mut()?;
    service.insert("name".to_owned(), json!(names.canary_service));
    Some(backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lua::Origin,
        traffic::ingress::{API_VERSION, KIND},
    };

    fn names() -> Names {
        Names { stable_service: "web".into(), canary_service: "web-canary".into(), namespace: Some("shop".into()) }
    }

    fn script(header: &str) -> Script {
        Script::new("ingress/x.lua", header, Origin::BuiltIn)
    }

    fn ingress(annotations: Value, spec: Value) -> Original {
        Original::from_object(&json!({"apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": "web", "annotations": annotations}, "spec": spec}))
        .unwrap()
    }

    fn path(service: &str) -> Value {
        json!({"path": format!("/{service}"), "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"name": "http"}}}})
    }

    #[test]
    fn d_72_holds_only_what_routes_to_the_stable_service() {
        let spec = json!({
            "ingressClassName": "nginx", "tls": [{"hosts": ["a"], "secretName": "a"}], "defaultBackend": {"service": {"name": "other"}},
            "rules": [
                {"host": "none.example"},
                {"host": "null.example", "http": null},
                {"host": "bucket.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"resource": {"kind": "Bucket", "name": "web"}}}]}},
                {"host": "a.example", "http": {"paths": [path("web"), path("other"), {"path": "/odd"}]}},
            ],
        });
        let made = canary_spec(&spec, &names(), true).unwrap();
        let mut renamed = path("web");
        renamed["backend"]["service"]["name"] = json!("web-canary");
        assert_eq!(
            made,
            json!({"ingressClassName": "nginx", "tls": [{"hosts": ["a"], "secretName": "a"}],
                "rules": [{"host": "a.example", "http": {"paths": [renamed]}}]})
        );
    }

    #[test]
    fn a_default_backend_is_shared_by_classes_that_can() {
        let spec = json!({"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}});
        let made = canary_spec(&spec, &names(), true).unwrap();
        assert_eq!(made, json!({"defaultBackend": {"service": {"name": "web-canary", "port": {"number": 80}}}}));
        let refused = canary_spec(&spec, &names(), false).unwrap_err();
        assert!(refused.contains("spec.defaultBackend") && refused.contains("add a rule"), "{refused}");
        let nothing = canary_spec(&json!({"rules": [{"host": "a"}]}), &names(), true).unwrap_err();
        assert!(nothing.contains("no path routes to Service web"), "{nothing}");
    }

    #[test]
    fn d_72_annotations_of_others_are_not_copied() {
        let stable = ingress(
            json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "cert-manager.io/issuer": "x",
                "external-dns.alpha.kubernetes.io/hostname": "x", "argocd.argoproj.io/tracking-id": "x",
                "kubernetes.io/ingress.class": "nginx", "nginx.ingress.kubernetes.io/rewrite-target": "/"}),
            json!({}),
        );
        let step = Strategy { weight: Some(20), ..Strategy::default() };
        let obj = script_input(&stable, &names(), None, &step, Some("k8s.io/ingress-nginx"));
        assert_eq!(
            obj["annotations"],
            json!({"kubernetes.io/ingress.class": "nginx", "nginx.ingress.kubernetes.io/rewrite-target": "/"})
        );
        assert_eq!((&obj["weight"], &obj["canaryService"]), (&json!("20"), &json!("web-canary")));
        assert_eq!(obj["controller"], "k8s.io/ingress-nginx");
        let bare = script_input(&ingress(json!({}), json!({})), &names(), None, &Strategy::default(), None);
        assert_eq!((bare.get("annotations"), &bare["weight"]), (None, &json!("-1")));
    }

    #[test]
    fn what_a_script_returns_is_checked() {
        let stable = ingress(json!({"a": "b"}), json!({"rules": [{"http": {"paths": [path("web")]}}]}));
        let made = |value: Value| canary(&stable, &names(), &script(""), value);
        assert_eq!(made(json!({"a": "b", "canary": "true"})).unwrap().annotations["canary"], "true");
        for (value, problem) in [
            (json!("x"), "the script returned a string, not a table of annotations"),
            (json!({"a": 1}), "annotations[\"a\"] of the script's result is a number, not a string"),
            (json!({"a": "b"}), "the script changed no annotation"),
        ] {
            let found = made(value).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn the_header_of_a_script_says_what_it_is_for() {
        assert!(is_in_place(&script("-- AWS\n-- caps: weight; accept: A5\n-- ingress: in-place\nreturn 1")));
        assert!(!is_in_place(&script("-- caps: weight; accept: A5\n")));
        assert!(only_matches(&script("-- caps: header,regex; accept: A6\n")));
        // The original controller's scripts say nothing.
        assert!(!only_matches(&script("return obj.annotations")));
        assert!(!is_in_place(&script("local a = 1\n-- ingress: in-place")));
    }
}
