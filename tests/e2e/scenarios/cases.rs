//! Every case of `testcases/` on a real API server: what the controller writes of a step is admitted, stays as it was
//! written, and is what the case expects; the end brings back what was there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};
use tidegate::{
    api::{keys, v1beta1::NetworkRef},
    lua::{
        Engine, Script,
        testcase::{AnyCase, Case, Expected, ScriptSource, discover},
    },
    traffic::{
        Strategy,
        ingress::{Ingress, canary_name},
        routes::{Change, Context, Missing, Network, RouteError, RouteWrite, plan_restore, plan_step},
    },
};

use crate::{
    providers,
    rig::{
        Rig, cluster, install,
        objects::Objects,
        poll::{SOON, until},
    },
};

const PORT: u16 = 16449;
const NAMESPACE: &str = "cases";
/// Cases that are played at the same time.
const AT_ONCE: usize = 12;
/// What an API server needs to see before it takes kinds of Kubernetes' own groups.
const UNAPPROVED: &str = "unapproved, made for tests";

struct Stage {
    /// A user's, who makes the objects.
    objects: Objects,
    /// With the rights of the controller, by whom they are changed.
    controller: Objects,
    engine: Engine,
    scripts: ScriptSource,
}

/// What became of a case.
enum Played {
    Steps(usize),
    /// Neither API server nor controller takes any of it.
    Refused,
}

pub async fn cases_hold_on_the_api_server(rig: Arc<Rig>) -> Result<()> {
    let spare = rig.empty(NAMESPACE, PORT).await?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = discover(&[root.join("testcases")], false).map_err(|e| anyhow!(e))?;
    let mut cases = Vec::new();
    for path in found.cases {
        // Those of the shared functions' own are of no kind that exists.
        let AnyCase::Route(case) = AnyCase::read(&path)? else { continue };
        if !case.original.group().is_empty() && !case.original.group().ends_with("example.com") {
            cases.push(case);
        }
    }
    let kinds: BTreeSet<(String, String)> =
        cases.iter().map(|case| (case.original.group().to_owned(), case.original.kind.clone())).collect();
    spare.objects.apply_crds(&definitions(&rig, &kinds)?).await?;
    spare.objects.namespace(NAMESPACE).await?;

    install::roles(&spare.objects).await?;
    let controller = Objects::new(cluster::client(&rig.kubeconfig(NAMESPACE, "controller")).await?);
    let versions: BTreeSet<(&str, &str)> =
        cases.iter().map(|case| (case.original.api_version.as_str(), case.original.kind.as_str())).collect();
    for (api_version, kind) in versions {
        followed(&controller, api_version, kind).await.with_context(|| format!("{api_version} {kind}"))?;
    }

    let begin = Instant::now();
    let stage = Stage {
        objects: spare.objects.clone(),
        controller,
        engine: Engine::new(2),
        scripts: ScriptSource::under(root),
    };
    let count = cases.len();
    let played: Vec<Result<Played, String>> = stream::iter(cases.into_iter().enumerate())
        .map(|(i, case)| {
            let stage = &stage;
            async move {
                let name = case.path.strip_prefix(root).unwrap_or(&case.path).display().to_string();
                play(stage, &case, &format!("case-{i}")).await.map_err(|e| format!("{name}: {e:#}"))
            }
        })
        .buffer_unordered(AT_ONCE)
        .map(Ok::<_, anyhow::Error>)
        .try_collect()
        .await?;
    let wrong: Vec<&String> = played.iter().filter_map(|p| p.as_ref().err()).collect();
    ensure!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.iter().map(|e| e.as_str()).collect::<Vec<_>>().join("\n")
    );
    let steps: usize = played.iter().map(|p| if let Ok(Played::Steps(n)) = p { *n } else { 0 }).sum();
    let refused = played.iter().filter(|p| matches!(p, Ok(Played::Refused))).count();
    eprintln!(
        "e2e: {count} cases, {steps} steps written and read back, {refused} objects refused at once, in {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    // Nearly all have objects that a provider takes.
    ensure!(steps > count && refused * 20 < count, "{steps} steps and {refused} refused objects of {count} cases");
    Ok(())
}

/// A kind is read as the controller reads it: a list, and what comes after.
async fn followed(controller: &Objects, api_version: &str, kind: &str) -> Result<()> {
    let api = controller.api(api_version, kind, "");
    let list = until("roles are in force", SOON, async || Ok(api.list(&ListParams::default().limit(1)).await?)).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    // The stream is there as soon as the API server has let the request through.
    api.watch(&WatchParams::default().timeout(1), &version).await.map(drop)?;
    Ok(())
}

/// The providers' own definitions where the rig has them, else ours.
fn definitions(rig: &Rig, kinds: &BTreeSet<(String, String)>) -> Result<Vec<Value>> {
    let istio = tidegate::yaml::from_str_multi(&fs::read_to_string(rig.tools.path("crds.yaml")?)?)?;
    let mut theirs: BTreeMap<(String, String), Value> = BTreeMap::new();
    for crd in istio {
        let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        theirs.insert((text("/spec/group"), text("/spec/names/kind")), crd);
    }
    let schemas = providers::schemas();
    let of = |kind: &(String, String)| {
        if let Some(crd) = theirs.remove(kind) {
            return Ok(crd);
        }
        let file = schemas.get(kind).with_context(|| format!("testcases/schemas has no {}/{}", kind.0, kind.1))?;
        let mut crd = providers::definition(file);
        without_our_words(&mut crd);
        crd["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": UNAPPROVED});
        Ok(crd)
    };
    // The API server knows Ingresses.
    kinds.iter().filter(|(group, _)| group != "networking.k8s.io").map(of).collect()
}

/// What gateways check of lists themselves; an API server does not know the words.
fn without_our_words(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, _| key != "x-unique" && key != "x-sum");
            map.values_mut().for_each(without_our_words);
        }
        Value::Array(list) => list.iter_mut().for_each(without_our_words),
        _ => {}
    }
}

/// One case's object on the API server. It is stored under a name of its own, and read as the case calls it.
struct Subject<'a> {
    stage: &'a Stage,
    case: &'a Case,
    script: Script,
    api: Api<DynamicObject>,
    controller: Api<DynamicObject>,
    name: String,
}

async fn play(stage: &Stage, case: &Case, name: &str) -> Result<Played> {
    let script = match case.plan.class_for(&case.original) {
        Some(class) => stage.scripts.for_class(class),
        None => stage.scripts.script(case),
    };
    let subject = Subject {
        stage,
        case,
        script: script.map_err(|e| anyhow!(e))?,
        api: stage.objects.api(&case.original.api_version, &case.original.kind, NAMESPACE),
        controller: stage.controller.api(&case.original.api_version, &case.original.kind, NAMESPACE),
        name: name.to_owned(),
    };
    let is_refused = case.expected.iter().all(|expected| matches!(expected, Expected::Error(_)));
    let original = subject.manifest(name, &case.original.parts().spec);
    let stored = match subject.create(&original, false).await {
        Ok(stored) => stored,
        Err(_) if is_refused => return Ok(Played::Refused),
        Err(error) => return Err(error.context("original")),
    };
    if case.plan.makes_canary_ingress(&case.original, &subject.script) {
        subject.beside(&stored).await
    } else {
        subject.in_place(stored).await
    }
}

/// What a person compares.
fn parts(object: &Value) -> Value {
    let mut annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.retain(|key, _| key != keys::ORIGINAL_SPEC && key != keys::CANARY_INGRESS);
    let labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    json!({"spec": object["spec"], "labels": labels, "annotations": annotations})
}

fn same(what: &str, found: &Value, expected: &Value) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let text = |value: &Value| tidegate::yaml::to_string(value).unwrap_or_default();
    let (found, expected) = (text(found), text(expected));
    let diff = similar::TextDiff::from_lines(&expected, &found);
    bail!("{what}:\n{}", diff.unified_diff().header("expected", "found"))
}

impl Subject<'_> {
    fn manifest(&self, name: &str, spec: &Value) -> Value {
        let original = &self.case.original;
        json!({"apiVersion": original.api_version, "kind": original.kind, "spec": spec,
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": original.labels,
                "annotations": original.annotations}})
    }

    async fn create(&self, object: &Value, dry_run: bool) -> Result<Value> {
        let params = PostParams { dry_run, ..PostParams::default() };
        let stored = self.api.create(&params, &serde_json::from_value(object.clone())?).await?;
        Ok(serde_json::to_value(stored)?)
    }

    /// What the API server makes of what a case expects.
    async fn defaulted(&self, expected: &Expected) -> Result<Value> {
        let (spec, labels, annotations) = match expected {
            Expected::Parts(parts) => (&parts.spec, json!(parts.labels), json!(parts.annotations)),
            Expected::Annotations(_) | Expected::Error(_) => bail!("not an object"),
        };
        let mut object = self.manifest(&format!("{}-expected", self.name), spec);
        object["metadata"]["labels"] = labels;
        object["metadata"]["annotations"] = annotations;
        Ok(parts(&self.create(&object, true).await?))
    }

    /// The object as the case calls it.
    fn as_called(&self, stored: &Value) -> Arc<Value> {
        let mut object = stored.clone();
        let original = &self.case.original;
        object["apiVersion"] = json!(original.api_version);
        object["metadata"]["name"] = json!(original.name);
        match &original.namespace {
            Some(namespace) => object["metadata"]["namespace"] = json!(namespace),
            None => drop(object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("namespace"))),
        }
        Arc::new(object)
    }

    fn context(&self) -> Context<'_> {
        Context { names: &self.case.plan.names, patch: self.case.plan.patch.as_ref(), engine: &self.stage.engine }
    }

    fn steps(&self) -> impl Iterator<Item = (usize, &Strategy, &Expected)> {
        let both = self.case.plan.steps.iter().zip(&self.case.expected).enumerate();
        both.map(|(i, (step, expected))| (i + 1, step, expected))
    }

    fn network(&self, stored: &Value) -> Network {
        let original = &self.case.original;
        Network {
            reference: NetworkRef {
                api_version: original.api_version.clone(),
                kind: original.kind.clone(),
                name: original.name.clone(),
            },
            namespace: original.namespace.clone().unwrap_or_default(),
            object: Ok(self.as_called(stored)),
            script: Ok(self.script.clone()),
            working: None,
            acceptance: None,
        }
    }

    async fn write(&self, writes: Vec<RouteWrite>) -> Result<Value> {
        for write in writes {
            let Change::Patch { operations, .. } = write.change else { bail!("the user's object is patched") };
            let patch: json_patch::Patch = serde_json::from_value(json!(operations))?;
            self.controller.patch(&self.name, &PatchParams::default(), &Patch::<()>::Json(patch)).await?;
        }
        Ok(serde_json::to_value(self.api.get(&self.name).await?)?)
    }

    /// The user's object is changed, and put back.
    async fn in_place(&self, stored: Value) -> Result<Played> {
        let before = parts(&stored);
        let (mut live, mut written) = (stored, 0);
        for (step, strategy, expected) in self.steps() {
            let planned = plan_step(&[self.network(&live)], &self.context(), strategy);
            let writes = match (planned, expected) {
                (Ok(writes), Expected::Parts(_)) => writes,
                (Err(error), Expected::Error(text)) => {
                    ensure!(error.message.contains(text.as_str()), "step {step}: {error} does not say {text:?}");
                    continue;
                }
                (Ok(_), Expected::Error(text)) => bail!("step {step} must fail with {text:?}"),
                (Ok(_), Expected::Annotations(_)) => bail!("step {step}: an Ingress in place has a spec"),
                (Err(error), _) => bail!("step {step}: {error}"),
            };
            live = self.write(writes).await.with_context(|| format!("step {step}"))?;
            let wanted = self.defaulted(expected).await.with_context(|| format!("expected of step {step}"))?;
            same(&format!("step {step}"), &parts(&live), &wanted)?;
            let again = plan_step(&[self.network(&live)], &self.context(), strategy)?;
            ensure!(again.iter().all(|write| !write.is_needed()), "step {step} is written for ever: {again:?}");
            written += 1;
        }
        let writes = plan_restore(&[self.network(&live)], &self.stage.engine)?;
        same("the end", &parts(&self.write(writes).await.context("the end")?), &before)?;
        Ok(Played::Steps(written))
    }

    /// An Ingress of ours stands beside the user's.
    async fn beside(&self, stored: &Value) -> Result<Played> {
        let owner = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "name": "demo", "uid": "1",
            "controller": true, "blockOwnerDeletion": true});
        let ours = format!("{}-canary", self.name);
        let (mut live, mut written): (Option<Value>, usize) = (None, 0);
        for (step, strategy, expected) in self.steps() {
            let plan = |live: &Option<Value>| -> Result<Option<RouteWrite>, RouteError> {
                let canary = live.as_ref().map(|object| {
                    let mut object = object.clone();
                    object["metadata"]["name"] = json!(canary_name(&self.case.original.name));
                    Arc::new(object)
                });
                let ingress = Ingress {
                    name: self.case.original.name.clone(),
                    namespace: NAMESPACE.to_owned(),
                    stable: Ok(self.as_called(stored)),
                    canary: canary.ok_or(Missing::Object),
                    script: Ok(self.script.clone()),
                    working: None,
                    controller: self.case.plan.ingress_controller.clone(),
                };
                ingress.plan_step(&self.context(), strategy, &owner)
            };
            let change = match (plan(&live), expected) {
                (Err(error), Expected::Error(text)) => {
                    ensure!(error.message.contains(text.as_str()), "step {step}: {error} does not say {text:?}");
                    continue;
                }
                (Err(error), _) => bail!("step {step}: {error}"),
                // A share of 0 is no canary Ingress, whatever the class can.
                (Ok(None), Expected::Error(_)) if strategy.weight == Some(0) => continue,
                (Ok(_), Expected::Error(text)) => bail!("step {step} must fail with {text:?}"),
                (Ok(change), _) => change.map(|write| write.change),
            };
            match change {
                // A share of 0 makes none.
                None => continue,
                Some(Change::Delete { .. }) => {
                    self.controller.delete(&ours, &Default::default()).await?;
                    live = None;
                    continue;
                }
                Some(Change::Apply { mut object }) => {
                    object["metadata"]["name"] = json!(ours);
                    let params = PatchParams::apply("tidegate").force();
                    self.controller
                        .patch(&ours, &params, &Patch::Apply(&object))
                        .await
                        .with_context(|| format!("step {step}"))?;
                }
                Some(Change::Patch { .. }) => bail!("step {step}: an Ingress of ours is applied"),
            }
            let found = serde_json::to_value(self.api.get(&ours).await?)?;
            match expected {
                Expected::Annotations(annotations) => {
                    same(&format!("step {step}"), &parts(&found)["annotations"], &json!(annotations))?;
                }
                _ => same(&format!("step {step}"), &parts(&found), &self.defaulted(expected).await?)?,
            }
            live = Some(found);
            let again = plan(&live)?;
            ensure!(again.is_none(), "step {step} is written for ever: {again:?}");
            written += 1;
        }
        Ok(Played::Steps(written))
    }
}
