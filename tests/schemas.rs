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

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tidegate::{
    lua::{
        Engine, Library,
        testcase::{AnyCase, Case, Expected, discover},
    },
    sim::Cluster,
    traffic::{Original, output, script_input},
    yaml,
};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

/// The schemas, as CRDs by group and kind.
fn definitions() -> BTreeMap<(String, String), Value> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testcases/schemas"), &mut found);
    let definition = |path: PathBuf| {
        let file: Value = yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let text = |key: &str| file[key].as_str().unwrap_or_else(|| panic!("{}: {key}", path.display())).to_owned();
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": file["spec"]}});
        let versions = file["versions"].as_array().unwrap().iter().enumerate().map(|(i, version)| {
            json!({"name": version, "served": true, "storage": i == 0, "schema": {"openAPIV3Schema": schema}})
        });
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{}", text("plural"), text("group"))},
            "spec": {"group": text("group"), "scope": "Namespaced", "versions": versions.collect::<Vec<_>>(),
                "names": {"kind": text("kind"), "plural": text("plural")}}});
        ((text("group"), text("kind")), crd)
    };
    found.into_iter().map(definition).collect()
}

/// An API server that knows one kind, and counts the objects that it was given.
struct Server {
    cluster: Cluster,
    count: usize,
}

impl Server {
    /// What it stores of a spec, or why it refuses.
    fn store(&mut self, original: &Original, spec: &Value) -> Result<Value, String> {
        self.count += 1;
        let object = json!({"apiVersion": original.api_version, "kind": original.kind,
            "metadata": {"name": format!("object-{}", self.count), "namespace": "default"}, "spec": spec});
        let stored = self.cluster.create(object).map_err(|status| status.message.clone())?;
        Ok(stored["spec"].clone())
    }
}

fn check(server: &mut Server, engine: &Engine, case: &Case) -> Result<(), String> {
    let stored = server.store(&case.original, &case.original.spec).map_err(|e| format!("original: {e}"))?;
    let as_served = Original { spec: stored, ..case.original.clone() };
    let script = Library::builtin(case.original.group(), &case.original.kind).ok_or("no script")?;
    for (i, (step, expected)) in case.plan.steps.iter().zip(&case.expected).enumerate() {
        let Expected::Parts(parts) = expected else { continue };
        server.store(&case.original, &parts.spec).map_err(|e| format!("expected[{i}]: {e}"))?;
        let input = script_input(&as_served, &case.plan.names, case.plan.patch.as_ref(), step);
        let written =
            output(engine.run(&script, &input).map_err(|e| e.to_string())?.value).map_err(|e| e.to_string())?;
        let kept = server.store(&case.original, &written.spec).map_err(|e| format!("step {}: {e}", i + 1))?;
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
    let engine = Engine::new(2);
    let mut failures = Vec::new();
    for path in cases {
        let AnyCase::Route(case) = AnyCase::read(&path).unwrap() else { continue };
        let kind = (case.original.group().to_owned(), case.original.kind.clone());
        let Some(definition) = definitions.get(&kind) else { continue };
        let server = servers.entry(kind).or_insert_with(|| Server {
            cluster: Cluster::builder().definition(definition.clone()).build().unwrap(),
            count: 0,
        });
        if let Err(why) = check(server, &engine, &case) {
            failures.push(format!("{}: {why}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for (kind, _) in definitions {
        assert!(servers.get(&kind).is_some_and(|s| s.count > 0), "no case of {kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_schema_refuses_what_the_provider_would() {
    let definitions = definitions();
    let route = &definitions[&("gateway.networking.k8s.io".to_owned(), "HTTPRoute".to_owned())];
    let mut server = Server { cluster: Cluster::builder().definition(route.clone()).build().unwrap(), count: 0 };
    let original = Original {
        api_version: "gateway.networking.k8s.io/v1".to_owned(),
        kind: "HTTPRoute".to_owned(),
        ..Original::default()
    };
    let rules = |rule: Value| json!({"rules": [rule]});
    for (spec, field) in [
        (rules(json!({"backendRefs": [{"name": "app", "weight": 1_000_001}]})), "weight"),
        (rules(json!({"backendRefs": [{"name": "app", "weight": 0.5}]})), "weight"),
        (rules(json!({"backendRefs": vec![json!({"name": "app"}); 17]})), "backendRefs"),
        (rules(json!({"matches": [{"path": {"type": "Prefix"}}]})), "path.type"),
        (rules(json!({"filters": [{}]})), "filters[0].type"),
    ] {
        let refused = server.store(&original, &spec).unwrap_err();
        assert!(refused.contains(field), "{spec}: {refused}");
    }
}
