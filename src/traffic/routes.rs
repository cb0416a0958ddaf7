//! What to write into each networkRef for a step, and how to put it back.
//!
//! The state before the release is kept on the object itself, in the annotation
//! `rollouts.kruise.io/original-spec-configuration` (the original controller's bookkeeping), together with what we
//! changed since. Every step is computed from that original, never from the live object; what others changed meanwhile
//! is merged into it first.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Names, Parts, Strategy,
    bookkeeping::{Kept, restore, write},
    checks,
    ingress::Ingress,
    memory::{Did, Group, Memory, Step, StepKey},
    output, script_input,
    sparse::Sparse,
};
use crate::{
    api::{
        conditions::reasons,
        keys,
        object::{self, ObjectRef},
        v1beta1::{NetworkRef, PatchPodTemplateMetadata},
    },
    lua::{Caps, Engine, NotFound, Script},
};

/// Plans of the same objects that are remembered.
const PLANS: usize = 4;

/// One networkRef as it was found.
#[derive(Clone, Debug)]
pub struct Network {
    /// How the Rollout names it.
    pub reference: NetworkRef,
    /// Its namespace: the Rollout's.
    pub namespace: String,
    /// The object, or why there is none.
    pub object: Result<Arc<Value>, Missing>,
    /// The script of its kind, or where it was looked for.
    pub script: Result<Script, NotFound>,
    /// The text of the script that has served it in this release, where it is known and another one than `script`.
    pub working: Option<Script>,
    /// The script that reads its status, for kinds that report.
    pub acceptance: Option<Script>,
}

/// Why a networkRef was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No object of this name.
    Object,
    /// The API server does not serve this kind.
    Kind,
    /// The controller may not read this kind.
    Forbidden(String),
}

impl Network {
    /// Names the object.
    pub fn target(&self) -> ObjectRef {
        ObjectRef::new(&self.reference.api_version, &self.reference.kind, &self.namespace, &self.reference.name)
    }

    /// Seconds that its gateway needs for a change, as its script's header says.
    pub fn grace(&self) -> Option<i64> {
        declared_grace(self.script.as_ref().ok()?)
    }

    /// Objects that others refer to are written before those and put back after them: a route to a subset that does
    /// not exist yet, or no more, loses requests.
    pub fn is_definition(&self) -> bool {
        object::group(&self.reference.api_version) == "networking.istio.io" && self.reference.kind == "DestinationRule"
    }

    /// Whether the object names a Service.
    pub fn names(&self, service: &str) -> bool {
        let is_it =
            |text: &str| text.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        fn any(value: &Value, is_it: &impl Fn(&str) -> bool) -> bool {
            match value {
                Value::String(text) => is_it(text),
                Value::Array(items) => items.iter().any(|item| any(item, is_it)),
                Value::Object(map) => map.values().any(|item| any(item, is_it)),
                _ => false,
            }
        }
        self.object.as_ref().is_ok_and(|object| object.get("spec").is_some_and(|spec| any(spec, &is_it)))
    }

    /// Whether the object carries our bookkeeping.
    pub fn is_changed(&self) -> bool {
        self.object.as_ref().is_ok_and(|o| object::annotation(o, keys::ORIGINAL_SPEC).is_some())
    }
}

/// What a script's header says of its gateway; see [`Caps::grace`].
pub(super) fn declared_grace(script: &Script) -> Option<i64> {
    Caps::parse(&script.source).ok().flatten()?.grace
}

/// Seconds that the slowest of some gateways needs for a change, as far as scripts say; 3 at least, as where none does.
pub fn grace(networks: &[Network], ingress: Option<&Ingress>) -> i64 {
    const LEAST: i64 = 3;
    let declared = networks.iter().map(Network::grace).chain(ingress.map(Ingress::grace)).flatten();
    declared.max().unwrap_or(LEAST).max(LEAST)
}

/// Why the routes of a step cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RouteError {
    /// Reason for the condition.
    pub reason: &'static str,
    /// Names the object, what is wrong, and the remedy.
    pub message: String,
}

/// A change of one object that routes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteWrite {
    /// The object.
    pub target: ObjectRef,
    /// What is to become of it.
    #[serde(flatten)]
    pub change: Change,
    /// See [`Network::is_definition`].
    pub is_definition: bool,
}

/// What is to become of an object that routes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Change {
    /// The user's object is changed. Without operations nothing is to be done.
    Patch {
        /// The version that the operations were computed for.
        resource_version: String,
        /// JSON patch operations.
        operations: Vec<Value>,
    },
    /// An object of ours is made, or made as described, by server-side apply.
    Apply {
        /// The object.
        object: Value,
    },
    /// An object of ours goes.
    Delete {
        /// Only this very object.
        uid: String,
    },
}

impl RouteWrite {
    /// Whether there is something to write.
    pub fn is_needed(&self) -> bool {
        !matches!(&self.change, Change::Patch { operations, .. } if operations.is_empty())
    }
}

/// What a step needs to know beside the objects.
pub struct Context<'a> {
    /// Stable and canary Service.
    pub names: &'a Names,
    /// Labels and annotations of canary pods.
    pub patch: Option<&'a PatchPodTemplateMetadata>,
    /// Runs the scripts.
    pub engine: &'a Engine,
}

/// The writes that make every networkRef send requests as a strategy says, in the order in which they are to be made.
/// Nothing is returned unless every script ran and every result keeps the rules.
pub fn plan_step(
    networks: &[Network],
    context: &Context<'_>,
    strategy: &Strategy,
) -> Result<Vec<RouteWrite>, RouteError> {
    remembering(networks, context, strategy, |group, memory, key| {
        let step = verify(group, memory, networks, context, key)?;
        Ok(writes(group, memory, networks, &step))
    })
}

/// Finds out whether a step could be written: every script runs, and every result keeps the rules.
pub fn check_step(networks: &[Network], context: &Context<'_>, strategy: &Strategy) -> Result<(), RouteError> {
    remembering(networks, context, strategy, |group, memory, key| {
        verify(group, memory, networks, context, key).map(|_| ())
    })
}

/// Tells what a step asks of the objects as they were before the release from what it would ask if anything about them,
/// their scripts or the step were different.
pub fn version(networks: &[Network], context: &Context<'_>, strategy: &Strategy) -> Result<String, RouteError> {
    remembering(networks, context, strategy, |group, memory, key| {
        let asked = format!("{key:?}");
        verify(group, memory, networks, context, key)?;
        let objects = group.objects.iter().map(|known| {
            let original = &known.reading.original;
            json!([original.spec, original.labels, original.annotations])
        });
        let scripts = networks.iter().filter_map(|n| n.script.as_ref().ok()).map(Script::hash);
        Ok(object::digest(&json!([asked, objects.collect::<Vec<_>>(), scripts.collect::<Vec<_>>()])))
    })
}

/// What the scripts make of the objects in a step. Nothing is remembered: for texts of scripts that are on trial.
///
/// # Errors
/// As [`plan_step`].
pub fn results(networks: &[Network], context: &Context<'_>, strategy: &Strategy) -> Result<Vec<Parts>, RouteError> {
    let memory = Memory::default();
    let mut group = memory.take(networks);
    let key = StepKey { names: context.names.clone(), patch: context.patch.cloned(), strategy: strategy.clone() };
    let step = verify(&mut group, &memory, networks, context, key)?;
    let results = group.objects.iter().zip(step.results.iter());
    Ok(results
        .map(|(known, result)| Parts {
            spec: result.spec(&known.reading.original),
            labels: result.labels.clone(),
            annotations: result.annotations.clone(),
        })
        .collect())
}

fn remembering<T>(
    networks: &[Network],
    context: &Context<'_>,
    strategy: &Strategy,
    work: impl FnOnce(&mut Group, &Memory, StepKey) -> T,
) -> T {
    let memory = Memory::of(context.engine);
    let mut group = memory.take(networks);
    let key = StepKey { names: context.names.clone(), patch: context.patch.cloned(), strategy: strategy.clone() };
    let result = work(&mut group, &memory, key);
    memory.put(group);
    result
}

/// Runs the scripts and checks their results, unless that was done before.
fn verify(
    group: &mut Group,
    memory: &Memory,
    networks: &[Network],
    context: &Context<'_>,
    key: StepKey,
) -> Result<Step, RouteError> {
    let mut objects = Vec::with_capacity(networks.len());
    for network in networks {
        let object = found(network)?;
        let script = network.script.as_ref().map_err(|e| RouteError {
            reason: reasons::SCRIPT_NOT_FOUND,
            message: format!("{}: {e}", network.target()),
        })?;
        objects.push((object, script));
    }
    group.read(&objects, memory).map_err(|(i, message)| match networks.get(i) {
        Some(network) => refused(network, message),
        None => RouteError { reason: reasons::ROUTE_REFUSED, message },
    })?;
    if let Some(step) = group.step(&key) {
        return Ok(step.clone());
    }
    let mut results: Vec<Parts> = Vec::with_capacity(networks.len());
    for (network, ((_, script), known)) in networks.iter().zip(objects.iter().zip(&group.objects)) {
        memory.did(Did::Ask);
        let failed = |message: String| RouteError {
            reason: reasons::SCRIPT_FAILED,
            message: format!("{}: {message}", network.target()),
        };
        let original = &known.reading.original;
        let input = script_input(original, context.names, context.patch, &key.strategy);
        let outcome = context.engine.run(script, &input).map_err(|e| failed(e.to_string()))?;
        let mut parts = output(outcome.value).map_err(|e| failed(format!("{}: {e}", script.name)))?;
        parts.annotations.remove(keys::ORIGINAL_SPEC);
        checks::check(original, &parts, context.names, &key.strategy, network.is_definition())
            .map_err(|message| refused(network, message))?;
        results.push(parts);
    }
    let all: Vec<(&str, &Parts)> = networks.iter().zip(&results).map(|(n, p)| (n.reference.kind.as_str(), p)).collect();
    checks::check_subsets(&all).map_err(|message| RouteError { reason: reasons::ROUTE_REFUSED, message })?;
    let results = group.objects.iter().zip(results).map(|(o, parts)| Sparse::of(&o.reading.original, parts));
    let step = Step::new(key, results.collect());
    group.steps.push(step.clone());
    Ok(step)
}

/// The writes that are missing for a step that was verified.
fn writes(group: &mut Group, memory: &Memory, networks: &[Network], step: &Step) -> Vec<RouteWrite> {
    if let Some((_, writes)) = group.writes.iter().find(|(key, _)| *key == step.key) {
        return writes.clone();
    }
    let mut writes = Vec::with_capacity(networks.len());
    for (network, (known, wanted)) in networks.iter().zip(group.objects.iter_mut().zip(step.results.iter())) {
        let Ok(live) = &network.object else { continue };
        memory.did(Did::Compare);
        let original = &known.reading.original;
        let (kept, operations) = match &known.reading.kept {
            Some(kept) if kept.says(original, wanted) => {
                (kept.clone(), if known.reading.holds { Vec::new() } else { write(live, kept) })
            }
            reading => {
                let kept = Kept::of(original.clone(), wanted.clone(), known.planned.iter().chain(reading));
                let operations = write(live, &kept);
                (kept, operations)
            }
        };
        known.planned = Some(kept);
        writes.push(RouteWrite::new(network, live, operations));
    }
    writes.sort_by_key(|w| !w.is_definition);
    group.writes.truncate(PLANS - 1);
    group.writes.insert(0, (step.key.clone(), writes.clone()));
    writes
}

/// The writes that put every networkRef back, those that refer to others first. An object that is gone, or that does
/// not carry our bookkeeping, needs none.
///
/// # Errors
/// When it cannot be known what an object was, or whether it still routes: pods must not go then.
pub fn plan_restore(networks: &[Network], engine: &Engine) -> Result<Vec<RouteWrite>, RouteError> {
    let memory = Memory::of(engine);
    let group = memory.take(networks);
    let writes = restores(networks, &group, &memory);
    // With nothing to put back, nothing of it is needed any more.
    if !writes.as_ref().is_ok_and(Vec::is_empty) {
        memory.put(group);
    }
    writes
}

fn restores(networks: &[Network], group: &Group, memory: &Memory) -> Result<Vec<RouteWrite>, RouteError> {
    let mut writes = Vec::new();
    for (i, network) in networks.iter().enumerate() {
        let object = match &network.object {
            Ok(object) => object,
            Err(Missing::Forbidden(_)) => found(network)?,
            Err(Missing::Object | Missing::Kind) => continue,
        };
        if network.is_changed() {
            let before = group.reread(i, object, memory).map_err(|message| refused(network, message))?;
            let operations = restore(object, &before.original);
            writes.push(RouteWrite::new(network, object, operations));
        }
    }
    writes.sort_by_key(|w| w.is_definition);
    Ok(writes)
}

fn found(network: &Network) -> Result<&Arc<Value>, RouteError> {
    network.object.as_ref().map_err(|missing| {
        let message = match missing {
            Missing::Object => format!("{} does not exist; create it, or take it out of networkRefs", network.target()),
            Missing::Kind => format!(
                "{}: the API server does not serve {} {}; install its CRD, or correct the apiVersion",
                network.target(),
                network.reference.api_version,
                network.reference.kind
            ),
            Missing::Forbidden(error) => format!(
                "{}: the controller may not read this kind ({error}); grant it get, list, watch and patch",
                network.target()
            ),
        };
        RouteError { reason: reasons::NETWORK_REF_NOT_FOUND, message }
    })
}

fn refused(network: &Network, message: String) -> RouteError {
    RouteError { reason: reasons::ROUTE_REFUSED, message: format!("{}: {message}", network.target()) }
}

impl RouteWrite {
    fn new(network: &Network, live: &Value, operations: Vec<Value>) -> RouteWrite {
        RouteWrite {
            target: network.target(),
            change: Change::Patch { resource_version: object::resource_version(live).to_owned(), operations },
            is_definition: network.is_definition(),
        }
    }
}
