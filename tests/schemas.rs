//! Every object that a case expects is one that the provider's schema takes, and what a script writes is stored as
//! written: a default that the API server added would look like somebody else's edit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod providers;

use std::{collections::BTreeMap, path::Path};

use regex::Regex;
use serde_json::{Value, json};
use tidegate::{
    lua::{
        Engine,
        testcase::{AnyCase, Case, Expected, ScriptSource, discover},
    },
    sim::Cluster,
    traffic::{Original, checks},
};

/// The schemas, as CRDs by group and kind.
fn definitions() -> BTreeMap<(String, String), Value> {
    providers::schemas().into_iter().map(|(kind, file)| (kind, providers::definition(&file))).collect()
}

/// An API server that knows one kind, and counts the objects that it was given.
struct Server {
    cluster: Cluster,
    schema: Value,
    count: usize,
}

impl Server {
    fn new(definition: &Value) -> Server {
        let cluster = Cluster::builder().definition(definition.clone()).build().unwrap();
        let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
        Server { cluster, schema, count: 0 }
    }

    /// What it stores of a spec, or why it or the gateway refuses.
    fn store(&mut self, original: &Original, spec: &Value) -> Result<Value, String> {
        let mut refusals = Vec::new();
        rules(&self.schema, spec, "spec", &mut refusals);
        refusals.into_iter().next().map_or(Ok(()), Err)?;
        self.create(original, spec)
    }

    /// As `store`, whatever the gateway says.
    fn create(&mut self, original: &Original, spec: &Value) -> Result<Value, String> {
        self.count += 1;
        let object = json!({"apiVersion": original.api_version, "kind": original.kind,
            "metadata": {"name": format!("object-{}", self.count), "namespace": "default"}, "spec": spec});
        let stored = self.cluster.create(object).map_err(|status| status.message.clone())?;
        Ok(stored["spec"].clone())
    }
}

/// What the cluster leaves to others: unknown fields, which an API server would drop, `pattern`, `oneOf` and the like, and
/// what gateways check of lists, `x-unique` and `x-sum`.
fn rules(schema: &Value, value: &Value, at: &str, refusals: &mut Vec<String>) {
    let mut refuse = |what: String| refusals.push(format!("{at}: {what}"));
    if let Err(what) = holds(schema, value) {
        refuse(what);
    }
    if let (Some(field), Some(list)) = (schema["x-unique"].as_str(), value.as_array()) {
        let twice = list.iter().enumerate().find(|(i, entry)| list[..*i].iter().any(|e| e[field] == entry[field]));
        if let Some((_, entry)) = twice {
            refuse(format!("{field} {} is there twice", entry[field]));
        }
    }
    if let (Some(field), Some(list)) = (schema["x-sum"]["of"].as_str(), value.as_array().filter(|l| l.len() > 1)) {
        let sum: u64 = list.iter().filter_map(|entry| entry[field].as_u64()).sum();
        let bound = |key: &str| schema["x-sum"][key].as_u64();
        if bound("minimum").is_some_and(|m| sum < m) || bound("maximum").is_some_and(|m| sum > m) {
            refuse(format!("each {field} together is {sum}"));
        }
    }
    for (key, field) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(key).or(schema.get("additionalProperties"));
        match known {
            Some(schema) => rules(schema, field, &format!("{at}.{key}"), refusals),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => refusals.push(format!("{at}.{key}: unknown field")),
        }
    }
    for (i, entry) in value.as_array().into_iter().flatten().enumerate() {
        rules(&schema["items"], entry, &format!("{at}[{i}]"), refusals);
    }
}

fn holds(rule: &Value, value: &Value) -> Result<(), String> {
    let list = |key: &str| rule[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = |key: &str| list(key).iter().filter(|rule| satisfies(rule, value)).count();
    let not = |key: &str| Err(format!("{key} {} does not hold for {value}", rule[key]));
    if let (Some(pattern), Some(text)) = (rule["pattern"].as_str(), value.as_str())
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        return not("pattern");
    }
    if !list("oneOf").is_empty() && count("oneOf") != 1 {
        return not("oneOf");
    }
    if !list("anyOf").is_empty() && count("anyOf") == 0 {
        return not("anyOf");
    }
    if rule.get("not").is_some_and(|rule| satisfies(rule, value)) {
        return not("not");
    }
    Ok(())
}

/// As `holds`, for a rule within another, which also says `required`, `enum` and what holds for fields.
fn satisfies(rule: &Value, value: &Value) -> bool {
    let mut required = rule["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut fields = rule["properties"].as_object().into_iter().flatten();
    required.all(|key| value.get(key).is_some())
        && rule["enum"].as_array().is_none_or(|values| values.contains(value))
        && fields.all(|(key, rule)| value.get(key).is_none_or(|field| satisfies(rule, field)))
        && holds(rule, value).is_ok()
}

/// An annotation's key: an optional DNS name, and a name of at most 63 characters.
fn check_annotations(annotations: &BTreeMap<String, String>) -> Result<(), String> {
    let name = Regex::new("^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$").unwrap();
    let prefix = Regex::new("^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").unwrap();
    for key in annotations.keys() {
        let (of, rest) = key.rsplit_once('/').map_or((None, key.as_str()), |(of, rest)| (Some(of), rest));
        if !name.is_match(rest) || of.is_some_and(|of| of.len() > 253 || !prefix.is_match(of)) {
            return Err(format!("annotation {key} has no name that an API server takes"));
        }
    }
    Ok(())
}

fn check(server: &mut Server, engine: &Engine, scripts: &ScriptSource, case: &Case) -> Result<(), String> {
    // What a gateway refuses is an original of steps that are refused too.
    let is_refused = case.expected.iter().all(|expected| matches!(expected, Expected::Error(_)));
    let store = if is_refused { Server::create } else { Server::store };
    let stored = store(server, &case.original, &case.original.spec).map_err(|e| format!("original: {e}"))?;
    let as_served = Original { spec: stored, ..case.original.clone() };
    let script = scripts.script(case)?;
    for (i, (step, expected)) in case.plan.steps.iter().zip(&case.expected).enumerate() {
        let of_expected = |e: String| format!("expected[{i}]: {e}");
        match expected {
            Expected::Error(_) => continue,
            Expected::Annotations(annotations) => check_annotations(annotations).map_err(of_expected)?,
            Expected::Parts(parts) => {
                check_annotations(&parts.annotations).map_err(of_expected)?;
                server.store(&case.original, &parts.spec).map_err(of_expected)?;
            }
        }
        let input = case.plan.input(&as_served, &script, step);
        let value = engine.run(&script, &input).map_err(|e| e.to_string())?.value;
        let written = case.plan.output(&as_served, &script, value)?;
        if !case.plan.makes_canary_ingress(&as_served, &script) {
            let is_definition = case.original.kind == "DestinationRule";
            checks::check(&as_served, &written, &case.plan.names, step, is_definition)
                .map_err(|e| format!("step {}: the controller refuses it: {e}", i + 1))?;
        }
        let kept = server.store(&case.original, &written.spec).map_err(|e| format!("step {}: {e}", i + 1))?;
        check_annotations(&written.annotations).map_err(|e| format!("step {}: {e}", i + 1))?;
        if kept != written.spec {
            return Err(format!("step {}: written\n{:#}\nbut stored\n{kept:#}", i + 1, written.spec));
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_scripts_write_is_valid_and_stays_as_written() {
    let definitions = definitions();
    let cases = discover(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("testcases")], false).unwrap().cases;
    let mut servers: BTreeMap<(String, String), Server> = BTreeMap::new();
    let (engine, scripts) = (Engine::new(2), ScriptSource::under(env!("CARGO_MANIFEST_DIR")));
    let mut failures = Vec::new();
    for path in cases {
        let AnyCase::Route(case) = AnyCase::read(&path).unwrap() else { continue };
        let kind = (case.original.group().to_owned(), case.original.kind.clone());
        // The kinds of the shared functions' own cases are nobody's.
        if kind.0 == "example.com" {
            continue;
        }
        let Some(definition) = definitions.get(&kind) else {
            failures.push(format!("{}: no schema in testcases/schemas", path.display()));
            continue;
        };
        let server = servers.entry(kind).or_insert_with(|| Server::new(definition));
        if let Err(why) = check(server, &engine, &scripts, &case) {
            failures.push(format!("{}: {why}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for (kind, _) in definitions {
        assert!(servers.get(&kind).is_some_and(|s| s.count > 0), "no case of {kind:?}");
    }
}

/// A kind, a spec of it that is refused, and what the refusal names.
fn refused() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let gateway = |rule: Value, field| ("gateway.networking.k8s.io/v1", "HTTPRoute", json!({"rules": [rule]}), field);
    let linkerd = |rule: Value, field| ("policy.linkerd.io/v1beta3", "HTTPRoute", json!({"rules": [rule]}), field);
    let nginx = |route: Value, field| {
        let spec = json!({"host": "a.example.com", "upstreams": [{"name": "a", "service": "a", "port": 80}], "routes": [route]});
        ("k8s.nginx.org/v1", "VirtualServer", spec, field)
    };
    let split = |weight: i32| json!({"weight": weight, "action": {"pass": "a"}});
    let skipper = |route: Value, field| {
        let spec = json!({"backends": [{"name": "a", "type": "shunt"}], "routes": [route]});
        ("zalando.org/v1", "RouteGroup", spec, field)
    };
    let kuma = |matched: Value, default: Value, field| {
        let rule = json!({"matches": [matched], "default": default});
        let spec = json!({"to": [{"targetRef": {"kind": "Mesh"}, "rules": [rule]}]});
        ("kuma.io/v1alpha1", "MeshHTTPRoute", spec, field)
    };
    let kube = json!({"kube": {"ref": {"name": "a", "namespace": "b"}, "port": 80}});
    let both = json!({"kube": {"ref": {"name": "a"}, "port": 80}, "upstream": {"name": "a"}});
    let gloo = |route: Value, field| ("gateway.solo.io/v1", "RouteTable", json!({"routes": [route]}), field);
    let group = |list: Value, field| ("gloo.solo.io/v1", "UpstreamGroup", json!({"destinations": list}), field);
    let ingress = |path: Value, field| {
        ("networking.k8s.io/v1", "Ingress", json!({"rules": [{"http": {"paths": [path]}}]}), field)
    };
    let service = |port: Value| json!({"service": {"name": "app", "port": port}});
    vec![
        gateway(json!({"backendRefs": [{"name": "app", "weight": 1_000_001}]}), "weight"),
        gateway(json!({"backendRefs": [{"name": "app", "weight": 0.5}]}), "weight"),
        gateway(json!({"backendRefs": vec![json!({"name": "app"}); 17]}), "backendRefs"),
        gateway(json!({"matches": [{"path": {"type": "Prefix"}}]}), "path.type"),
        gateway(json!({"filters": [{}]}), "filters[0].type"),
        linkerd(json!({"backendRefs": [{"name": "app", "weight": 1_000_001}]}), "weight"),
        linkerd(json!({"backendRefs": [{"name": "app", "share": 1}]}), "share: unknown field"),
        linkerd(json!({"filters": [{"type": "RequestMirror"}]}), "filters[0]"),
        nginx(json!({"path": "/", "splits": [split(50), split(49)]}), "weight together is 99"),
        nginx(json!({"path": "/", "splits": [split(100)]}), "splits"),
        nginx(json!({"path": "/", "splits": [split(101), split(-1)]}), "weight"),
        nginx(json!({"path": "/", "action": {"pass": "a"}, "route": "b/c"}), "oneOf"),
        nginx(json!({"path": "/", "action": {"pass": "a"}, "backends": []}), "backends: unknown field"),
        skipper(json!({"path": "/a", "pathSubtree": "/b"}), "not"),
        skipper(json!({"backends": [{"backendName": "a", "weight": -1}]}), "weight"),
        skipper(json!({"backends": [{"backendName": "a"}, {"backendName": "a"}]}), "is there twice"),
        kuma(json!({"headers": [{"name": "X-Canary", "value": "1"}]}), json!({}), "pattern"),
        kuma(json!({"path": {"type": "PathPrefix", "value": "/a/"}}), json!({}), "anyOf"),
        kuma(
            json!({}),
            json!({"backendRefs": [{"kind": "MeshService", "name": "a", "weight": 4_294_967_296_u64}]}),
            "weight",
        ),
        kuma(json!({}), json!({"backendRefs": [{"kind": "MeshService", "name": "a", "tags": {}}]}), "tags: unknown"),
        kuma(json!({}), json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {}}]}), "anyOf"),
        gloo(json!({"matchers": [{"prefix": "/", "exact": "/"}], "redirectAction": {}}), "matchers[0]: oneOf"),
        gloo(json!({"routeAction": {"single": kube}, "redirectAction": {}}), "routes[0]: oneOf"),
        gloo(json!({"routeAction": {"single": both}}), "single: oneOf"),
        group(json!([{"weight": 0, "destination": kube}, {"destination": kube}]), "weight together is 0"),
        group(json!([{"weight": 1, "destination": kube, "share": 1}]), "share: unknown field"),
        ingress(json!({"path": "/", "backend": service(json!({"number": 80}))}), "pathType"),
        ingress(json!({"path": "a", "pathType": "Exact", "backend": service(json!({"number": 80}))}), "pattern"),
        ingress(json!({"pathType": "Prefix", "backend": service(json!({"number": 80}))}), "anyOf"),
        ingress(json!({"path": "/", "pathType": "Regex", "backend": service(json!({"number": 80}))}), "pathType"),
        ingress(
            json!({"path": "/", "pathType": "Exact", "backend": service(json!({"number": 80, "name": "a"}))}),
            "oneOf",
        ),
        ingress(json!({"path": "/", "pathType": "Exact", "backend": service(json!({"number": 0}))}), "number"),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_schema_refuses_what_the_provider_would() {
    let definitions = definitions();
    for (api_version, kind, spec, field) in refused() {
        let original = Original { api_version: api_version.to_owned(), kind: kind.to_owned(), ..Original::default() };
        let mut server = Server::new(&definitions[&(original.group().to_owned(), kind.to_owned())]);
        let refused = server.store(&original, &spec).expect_err(&format!("{kind} {spec}"));
        assert!(refused.contains(field), "{spec}: {refused}");
    }
}

#[test]
fn keys_of_annotations_are_names() {
    let check = |key: &str| check_annotations(&BTreeMap::from([(key.to_owned(), "1".to_owned())]));
    for key in ["a", "nginx.ingress.kubernetes.io/canary", &format!("a.b/{}", "c".repeat(63))] {
        check(key).unwrap();
    }
    for key in ["", "a/", "/a", "A.b/c", "a/b/c", "a b", "-a", &format!("a.b/{}", "c".repeat(64))] {
        check(key).unwrap_err();
    }
}
