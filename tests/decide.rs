//! Every file in `testcases/decide/` is one test: the objects of a cluster, and the plan that is made of them. See the
//! README there. `BLESS=1 cargo test --test decide` writes the expectations anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod world;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate::{
    analysis::Answer,
    api::object,
    lua::{Engine, Limits},
    rollout::{
        Effect, Plan,
        calls::{Body, Outcome},
        decide,
    },
    traffic::routes::Missing,
    yaml,
};
use world::World;

/// A file of `testcases/decide/`, or one of `testcases/decide/base/`, which has no `now` and no `expected`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    #[serde(default)]
    now: Option<Timestamp>,
    /// Another file to begin with, relative to this one.
    #[serde(default)]
    base: Option<String>,
    /// Files of examples to begin with, relative to the repository.
    #[serde(default)]
    manifests: Vec<String>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    patches: Vec<Patch>,
    /// `group/Kind` that the API server does not serve.
    #[serde(default)]
    missing_kinds: Vec<String>,
    /// `group/Kind` that the controller may not read.
    #[serde(default)]
    forbidden_kinds: Vec<String>,
    /// `group/Kind` that are being read for the first time.
    #[serde(default)]
    pending_kinds: Vec<String>,
    /// How many releases are recorded; none without it.
    #[serde(default)]
    history_limit: Option<usize>,
    /// How many releases may be in flight; any number without it.
    #[serde(default)]
    max_releases_in_flight: Option<usize>,
    /// No webhook says who approves.
    #[serde(default)]
    is_anonymous: bool,
    /// Compared as text.
    #[serde(default, rename = "expected")]
    _expected: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Patch {
    Settle(Settle),
    Run(Run),
    Passes(Passes),
    Tick(Tick),
    Pod(Pod),
    Measure(Measure),
    Answers(Answers),
    Replies(Replies),
    Edit(Edit),
}

/// What a metrics server says: a number, or one of the other things.
#[derive(Deserialize)]
#[serde(untagged)]
enum Says {
    Value(f64),
    Other(Other),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Other {
    Empty,
    Several(usize),
    Text(String),
    Unavailable(String),
    Mistake(String),
    /// By a part of the query; what has none is not answered.
    Each(BTreeMap<String, Says>),
}

impl Says {
    fn to(&self, query: &str) -> Option<Answer> {
        Some(match self {
            Says::Value(value) => Answer::Value(*value),
            Says::Other(Other::Empty) => Answer::Empty,
            Says::Other(Other::Several(count)) => Answer::of((0..*count).map(|_| 1.0)),
            Says::Other(Other::Text(text)) => Answer::Text(text.clone()),
            Says::Other(Other::Unavailable(why)) => Answer::Unavailable(why.clone()),
            Says::Other(Other::Mistake(why)) => Answer::Mistake(why.clone()),
            Says::Other(Other::Each(each)) => each.iter().find(|(part, _)| query.contains(*part))?.1.to(query)?,
        })
    }
}

/// Open questions are answered when they are due, so many times, and the controller works after each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measure {
    measure: Says,
    times: usize,
    /// From when on.
    from: Timestamp,
}

/// Open questions are answered at a moment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    answers: Says,
    at: Timestamp,
}

/// Requests that are due are answered at a moment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replies {
    /// By a part of who is called.
    replies: BTreeMap<String, Replied>,
    at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Replied {
    Status(u16),
    Body(u16, String),
    Probed(BTreeMap<u16, u32>),
    Unavailable(String),
    Mistake(String),
}

impl Replied {
    fn outcome(&self) -> Outcome {
        match self {
            Replied::Status(status) => Outcome::Answered { status: *status, body: String::new(), retry_after: None },
            Replied::Body(status, body) => Outcome::Answered { status: *status, body: body.clone(), retry_after: None },
            Replied::Probed(statuses) => Outcome::Probed(statuses.clone()),
            Replied::Unavailable(why) => Outcome::Unavailable(why.clone()),
            Replied::Mistake(why) => Outcome::Mistake(why.clone()),
        }
    }
}

/// A pod appears.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pod {
    pod: String,
    /// Name of its ReplicaSet.
    of: String,
    status: Value,
}

/// As many passes of the controller at a moment; the cluster comes to rest after each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Passes {
    passes: usize,
    at: Timestamp,
}

/// The cluster's own controllers come to rest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    settle: bool,
}

/// The controller and the cluster work at a moment until nothing moves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    run: Timestamp,
}

/// As many single moves of the cluster's own controllers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tick {
    tick: usize,
}

/// Somebody's change of one object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    kind: String,
    name: String,
    /// JSON merge patch.
    #[serde(default)]
    merge: Option<Value>,
    /// JSON patch.
    #[serde(default)]
    json: Option<json_patch::Patch>,
    /// JSON merge patch of the status, which the object's generation does not follow.
    #[serde(default)]
    status: Option<Value>,
    /// Asks for deletion at a moment.
    #[serde(default)]
    delete: Option<Timestamp>,
}

fn main() {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testcases/decide");
    let mut files: Vec<PathBuf> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "no case found in {}", root.display());
    // A wall clock that never strikes first: what a script costs is counted, and counts the same on every machine.
    let limits = Limits { wall: Duration::from_secs(120), ..Limits::default() };
    let engine = Engine::with_limits(2, limits);
    let trials = files
        .into_iter()
        .map(|file| {
            let engine = engine.clone();
            Trial::test(file.file_stem().unwrap().to_string_lossy().into_owned(), move || check(&file, &engine))
        })
        .collect();
    libtest_mimic::run(&args, trials).exit();
}

fn check(file: &Path, engine: &Engine) -> Result<(), Failed> {
    let text = fs::read_to_string(file)?;
    let case: Case = yaml::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    let now = case.now.ok_or("now is missing")?;
    let mut world = World::default();
    build(file, &case, &mut world, engine)?;
    let found = match world.snapshot(now, engine) {
        None => Value::Null,
        Some(snapshot) => {
            let plan = decide(&snapshot);
            if plan != decide(&snapshot) {
                return Err("the same snapshot gave two plans".into());
            }
            render(&world, &plan)
        }
    };
    let found = yaml::to_string(&json!({"expected": found}))?;
    let wanted = text.split_once("\nexpected:").map(|(_, rest)| format!("expected:{rest}")).unwrap_or_default();
    if std::env::var_os("BLESS").is_some() && found != wanted {
        let head = text.split_once("\nexpected:").map_or(text.trim_end(), |(head, _)| head.trim_end());
        fs::write(file, format!("{head}\n{found}"))?;
    } else if found != wanted {
        let diff = similar::TextDiff::from_lines(&wanted, &found);
        return Err(format!("{}", diff.unified_diff().context_radius(5).header("expected", "found")).into());
    } else if wanted.is_empty() {
        return Err("expected is missing; write it with BLESS=1, and read it".into());
    }
    Ok(())
}

fn build(file: &Path, case: &Case, world: &mut World, engine: &Engine) -> Result<(), Failed> {
    if let Some(base) = &case.base {
        let base = file.parent().unwrap().join(base);
        let text = fs::read_to_string(&base).map_err(|e| format!("{}: {e}", base.display()))?;
        let inner: Case = yaml::from_str(&text).map_err(|e| format!("{}: {e}", base.display()))?;
        build(&base, &inner, world, engine)?;
    }
    for manifest in &case.manifests {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest))
            .map_err(|e| format!("{manifest}: {e}"))?;
        yaml::from_str_multi(&text)?.into_iter().for_each(|o| world.create(o));
    }
    world.history_limit = case.history_limit.or(world.history_limit);
    world.max_in_flight = case.max_releases_in_flight.or(world.max_in_flight);
    world.is_anonymous |= case.is_anonymous;
    case.objects.iter().for_each(|o| world.create(o.clone()));
    let kind = |name: &String| name.split_once('/').map(|(g, k)| (g.to_owned(), k.to_owned())).unwrap_or_default();
    world.missing.extend(case.missing_kinds.iter().map(kind).map(|(g, k)| (g, k, Missing::Kind)));
    let forbidden = || Missing::Forbidden("cannot list resource".into());
    world.missing.extend(case.forbidden_kinds.iter().map(kind).map(|(g, k)| (g, k, forbidden())));
    world.pending.extend(case.pending_kinds.iter().map(kind));
    for patch in &case.patches {
        match patch {
            Patch::Settle(Settle { settle }) => {
                if *settle {
                    world.settle();
                }
            }
            Patch::Run(Run { run }) => run_until_rest(world, *run, engine)?,
            Patch::Tick(Tick { tick }) => (0..*tick).for_each(|_| {
                world.tick();
            }),
            Patch::Passes(Passes { passes, at }) => {
                for _ in 0..*passes {
                    world.reconcile(*at, engine);
                    world.settle();
                }
            }
            Patch::Pod(Pod { pod, of, status }) => {
                let set = world.get("apps", "ReplicaSet", of).ok_or(format!("no ReplicaSet {of}"))?;
                let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": of, "uid": object::uid(set), "controller": true});
                world.create(json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": pod, "ownerReferences": [owner]}, "status": status}));
            }
            Patch::Answers(Answers { answers, at }) => world.answer(*at, |query| answers.to(query), engine),
            Patch::Replies(Replies { replies, at }) => {
                let of = |to: &str| replies.iter().find(|(part, _)| to.contains(*part)).map(|(_, said)| said.outcome());
                world.reply(*at, |call| of(&call.to), engine);
            }
            Patch::Measure(Measure { measure, times, from }) => {
                let mut at = *from;
                for _ in 0..*times {
                    let asks = world.decide(at, engine).map(|plan| plan.asks).unwrap_or_default();
                    at = asks.iter().map(|ask| ask.due).min().ok_or("nothing is asked")?.max(at);
                    world.answer(at, |query| measure.to(query), engine);
                    run_until_rest(world, at, engine)?;
                }
            }
            Patch::Edit(edit) => apply(world, edit)?,
        }
    }
    Ok(())
}

fn run_until_rest(world: &mut World, now: Timestamp, engine: &Engine) -> Result<(), Failed> {
    for _ in 0..200 {
        let before = world.objects.clone();
        world.reconcile(now, engine);
        world.settle();
        if world.objects == before {
            return Ok(());
        }
    }
    Err("controller and cluster do not come to rest".into())
}

fn apply(world: &mut World, edit: &Edit) -> Result<(), Failed> {
    let place = format!("{} {}", edit.kind, edit.name);
    let found =
        world.of_kind(&edit.kind).find(|o| object::name(o) == edit.name).ok_or(format!("no {place} to patch"))?;
    let key = world::key(found);
    let mut new = (**found).clone();
    if let Some(now) = edit.delete {
        world.request_deletion(&key, now);
        return Ok(());
    }
    if let Some(status) = &edit.status {
        let mut old = new.get("status").cloned().unwrap_or(Value::Null);
        json_patch::merge(&mut old, status);
        world.set_status(&key, old);
        return Ok(());
    }
    if let Some(merge) = &edit.merge {
        json_patch::merge(&mut new, merge);
    }
    if let Some(patch) = &edit.json {
        json_patch::patch(&mut new, patch).map_err(|e| format!("{place}: {e}"))?;
    }
    world.update(new);
    Ok(())
}

/// A plan as a person would check it: routes by what they become, the status by what changes.
fn render(world: &World, plan: &Plan) -> Value {
    let effects: Vec<Value> = plan.effects.iter().map(|e| render_effect(world, e)).collect();
    let mut rendered = Map::new();
    rendered.insert("effects".into(), json!(effects));
    let before = world.rollout().and_then(|r| r.status);
    let now = with_conditions_by_type(serde_json::to_value(&plan.status).unwrap());
    let status = match before {
        None => now,
        Some(before) => {
            diff(&with_conditions_by_type(serde_json::to_value(before).unwrap()), &now).unwrap_or(json!({}))
        }
    };
    rendered.insert("status".into(), status);
    rendered.insert("events".into(), json!(plan.events));
    rendered.insert("requeue".into(), json!(plan.requeue));
    if !plan.asks.is_empty() {
        let asks = plan.asks.iter().map(|a| json!({"query": a.query, "due": a.due, "address": a.provider.address()}));
        rendered.insert("asks".into(), asks.collect());
    }
    if !plan.calls.is_empty() {
        let body = |body: &str| serde_json::from_str(body).unwrap_or_else(|_| json!(body));
        let calls = plan.calls.iter().map(|c| match &c.body {
            Body::Post(_, text) => json!({"to": c.to, "due": c.due, "url": c.url, "body": body(text)}),
            Body::Probe { count } => {
                json!({"to": c.to, "due": c.due, "url": c.url, "headers": c.headers, "count": count, "timeout": c.timeout})
            }
        });
        rendered.insert("calls".into(), calls.collect());
    }
    Value::Object(rendered)
}

fn render_effect(world: &World, effect: &Effect) -> Value {
    let mut value = serde_json::to_value(effect).unwrap();
    if let Effect::Routes { writes, tried, .. } = effect {
        if !tried.is_empty() {
            value["tried"] = tried.iter().map(|w| w.target.to_string()).collect();
        }
        value["writes"] = writes
            .iter()
            .map(|w| {
                let Some(becomes) = world.dry_run(w).unwrap() else {
                    return json!({"target": w.target.to_string(), "deleted": true});
                };
                json!({
                    "target": w.target.to_string(),
                    "labels": object::at(&becomes, &["metadata", "labels"]),
                    "annotations": object::at(&becomes, &["metadata", "annotations"]),
                    "spec": becomes["spec"],
                })
            })
            .collect();
    } else if let Effect::Patch { target, .. } | Effect::Delete { target, .. } = effect {
        value["target"] = json!(target.to_string());
    }
    if let Some(map) = value.as_object_mut() {
        // Versions are the world's counting, not the decision's.
        map.remove("resourceVersion");
        map.remove("uid");
    }
    value
}

fn with_conditions_by_type(mut status: Value) -> Value {
    let Some(map) = status.as_object_mut() else { return status };
    for script in map.get_mut("scripts").and_then(Value::as_array_mut).into_iter().flatten() {
        // Every edit of a built-in script would be a new expectation.
        if script["source"] == "BuiltIn" {
            script.as_object_mut().unwrap().remove("version");
        }
    }
    if let Some(Value::Array(conditions)) = map.remove("conditions") {
        let by_type: Map<String, Value> = conditions
            .into_iter()
            .map(|mut c| (c.as_object_mut().unwrap().remove("type").unwrap().as_str().unwrap().to_owned(), c))
            .collect();
        map.insert("conditions".into(), Value::Object(by_type));
    }
    status
}

/// The merge patch from one value to another.
fn diff(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        (a, b) if a == b => None,
        (Value::Object(a), Value::Object(b)) => {
            let gone = a.keys().filter(|k| !b.contains_key(*k)).map(|k| (k.clone(), Value::Null));
            let changed = b
                .iter()
                .filter_map(|(k, v)| Some((k.clone(), a.get(k).map_or_else(|| Some(v.clone()), |old| diff(old, v))?)));
            Some(Value::Object(gone.chain(changed).collect()))
        }
        (_, b) => Some(b.clone()),
    }
}
