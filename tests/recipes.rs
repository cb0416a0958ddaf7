//! The recipes of `examples/`: every folder with `expected/step-N.yaml` is a release on the in-memory cluster. At each step
//! the objects that route are what the file says, and in the end they are what they were.
//! `BLESS=1 cargo test --test recipes` writes the files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod providers;
mod release;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::{Arguments, Trial};
use release::{Release, play};
use serde_json::{Value, json};
use tidegate::{
    api::object::{group, name},
    cli::demo::world::install,
    lua::Library,
    sim::{Cluster, Gvr},
    yaml,
};

fn main() {
    let args = Arguments::from_args();
    let mut folders: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("expected").is_dir())
        .collect();
    folders.sort();
    let trial = |folder: PathBuf| {
        Trial::test(folder.file_name().unwrap().to_string_lossy().into_owned(), move || {
            run(&folder);
            Ok(())
        })
    };
    let every = Trial::test("every_script_has_a_recipe_and_a_page", {
        let folders = folders.clone();
        move || {
            every_script_has_a_recipe_and_a_page(&folders);
            Ok(())
        }
    });
    libtest_mimic::run(&args, folders.into_iter().map(trial).chain([every]).collect()).exit();
}

/// Another name of a class.
const ALIASES: [&str; 2] = ["aws-alb", "traefik-nginx"];

fn every_script_has_a_recipe_and_a_page(folders: &[PathBuf]) {
    let mut routed = BTreeSet::new();
    for folder in folders {
        let objects = resources(folder);
        let rollout = objects.iter().find(|object| object["kind"] == "Rollout").expect("a Rollout");
        let routing = &rollout["spec"]["strategy"]["canary"]["trafficRoutings"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for reference in routing["networkRefs"].as_array().into_iter().flatten() {
            routed.insert(format!("{}/{}", group(&text(&reference["apiVersion"])), text(&reference["kind"])));
        }
        if routing["gateway"].is_object() {
            routed.insert("gateway.networking.k8s.io/HTTPRoute".to_owned());
        }
        routed.insert(text(&routing["ingress"]["classType"]));
        let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        let pages: Vec<&str> =
            readme.split("](../../docs/gateways/").skip(1).filter_map(|p| p.split(')').next()).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(!pages.is_empty(), "{}/README.md names no page of docs/gateways", folder.display());
        for page in pages {
            let text = fs::read_to_string(root.join("docs/gateways").join(page)).unwrap_or_default();
            let link = format!("(../../examples/{})", folder.file_name().unwrap().to_string_lossy());
            assert!(text.contains(&link), "docs/gateways/{page} does not link to {link}");
        }
    }
    let scripts = Library::list();
    assert!(!scripts.is_empty());
    for script in scripts {
        let class = script.name.strip_prefix("ingress/").and_then(|name| name.strip_suffix(".lua"));
        let target = class.unwrap_or_else(|| script.name.trim_end_matches("/trafficRouting.lua"));
        assert!(ALIASES.contains(&target) || routed.contains(target), "no recipe in examples/ routes by {target}");
    }
}

/// What a kustomization brings, with its bases.
fn resources(folder: &Path) -> Vec<Value> {
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let kustomization: Value = yaml::from_str(&read(&folder.join("kustomization.yaml"))).unwrap();
    let paths = kustomization["resources"].as_array().unwrap().iter().map(|path| folder.join(path.as_str().unwrap()));
    let of = |path: PathBuf| {
        if path.is_dir() { resources(&path) } else { yaml::from_str_multi(&read(&path)).unwrap() }
    };
    paths.flat_map(of).collect()
}

/// An object that routes during a release.
struct Route {
    resource: Gvr,
    name: String,
    /// Made for the time of the release.
    is_ours: bool,
}

impl Route {
    /// What a person looks at: without bookkeeping, and without what an API server adds.
    fn read(&self, cluster: &Cluster) -> Option<Value> {
        let object = cluster.get(&self.resource, "default", &self.name)?;
        let mut seen = json!({"apiVersion": object["apiVersion"], "kind": object["kind"],
            "metadata": {"name": self.name}, "spec": object["spec"]});
        let mut annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        annotations.retain(|key, _| !key.contains("kruise.io/"));
        if !annotations.is_empty() {
            seen["metadata"]["annotations"] = annotations.into();
        }
        Some(seen)
    }
}

fn routes(rollout: &Value, plurals: &[(String, String, String)]) -> Vec<Route> {
    let routing = &rollout["spec"]["strategy"]["canary"]["trafficRoutings"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let custom = |reference: &Value| {
        let (api_version, kind) = (text(&reference["apiVersion"]), text(&reference["kind"]));
        let (of, version) = api_version.split_once('/').unwrap();
        let plural = plurals.iter().find(|(g, k, _)| *g == of && *k == kind);
        let (_, _, plural) = plural.unwrap_or_else(|| panic!("no schema of {api_version} {kind}"));
        Route { resource: Gvr::new(of, version, plural), name: text(&reference["name"]), is_ours: false }
    };
    let mut found: Vec<Route> = ["networkRefs", "customNetworkRefs"]
        .iter()
        .flat_map(|field| routing[*field].as_array().into_iter().flatten())
        .map(custom)
        .collect();
    if let Some(route) = routing["gateway"]["httpRouteName"].as_str() {
        let resource = Gvr::new("gateway.networking.k8s.io", "v1", "httproutes");
        found.push(Route { resource, name: route.to_owned(), is_ours: false });
    }
    if let Some(ingress) = routing["ingress"]["name"].as_str() {
        let is_in_place = ["alb", "haproxy-pods"].map(Value::from).contains(&routing["ingress"]["classType"]);
        let name = if is_in_place { ingress.to_owned() } else { format!("{ingress}-canary") };
        found.push(Route { resource: Gvr::new("networking.k8s.io", "v1", "ingresses"), name, is_ours: !is_in_place });
    }
    found
}

fn run(folder: &Path) {
    let objects = resources(folder);
    let rollout = objects.iter().find(|object| object["kind"] == "Rollout").expect("a Rollout").clone();
    let schemas = providers::schemas();
    let plurals: Vec<(String, String, String)> = schemas
        .iter()
        .map(|((group, kind), file)| (group.clone(), kind.clone(), file["plural"].as_str().unwrap().to_owned()))
        .collect();
    let spec = &rollout["spec"];
    let workload = spec.pointer("/workloadRef/name").or(spec.pointer("/objectRef/workloadRef/name"));
    let workload = workload.and_then(Value::as_str).expect("a workload");
    let routes = routes(&rollout, &plurals);
    assert!(!routes.is_empty(), "the Rollout names nothing that routes");
    let make = || {
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
        for ((of, kind), file) in &schemas {
            let version =
                |object: &&Value| group(object["apiVersion"].as_str().unwrap()) == of && object["kind"] == **kind;
            // The API server knows Ingresses.
            if of != "networking.k8s.io" && objects.iter().any(|object| version(&object)) {
                let versions: Vec<&str> =
                    file["versions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                builder = builder.kind(of, &versions, file["plural"].as_str().unwrap(), kind, true);
            }
        }
        for gateway in objects.iter().filter(|object| object["kind"] == "Gateway") {
            let (of, version) = gateway["apiVersion"].as_str().unwrap().split_once('/').unwrap();
            builder = builder.kind(of, &[version], "gateways", "Gateway", true);
        }
        for mut object in objects {
            object["metadata"]["namespace"] = json!("default");
            builder = builder.object(object);
        }
        Release::new(builder.build().unwrap(), name(&rollout)).of(workload)
    };
    let steps = rollout["spec"]["strategy"]["canary"]["steps"].as_array().unwrap().len();
    play(make, async |release| {
        let read = || routes.iter().filter_map(|route| route.read(&release.cluster)).collect::<Vec<Value>>();
        let original = read();
        let template = json!({"metadata": {"annotations": {"release": "2"}}});
        release.patch("apps/v1", "Deployment", workload, json!({"spec": {"template": template}})).await;
        for step in 1..=steps {
            release.paused_at(i64::try_from(step).unwrap()).await;
            let file = folder.join(format!("expected/step-{step}.yaml"));
            let found = read();
            if std::env::var_os("BLESS").is_some() {
                let documents: Vec<String> = found.iter().map(|object| yaml::to_string(object).unwrap()).collect();
                fs::write(&file, documents.join("---\n")).unwrap();
            }
            let expected = yaml::from_str_multi(&fs::read_to_string(&file).unwrap_or_default()).unwrap();
            assert_eq!(found, expected, "{}: BLESS=1 writes it", file.display());
            assert_ne!(found, original, "step {step} routes nothing");
            release.approve().await;
        }
        release.completed().await;
        assert_eq!(read(), original);
        for ours in routes.iter().filter(|route| route.is_ours) {
            assert!(ours.read(&release.cluster).is_none(), "{} is still there", ours.name);
        }
    });
}
