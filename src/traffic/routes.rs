//! What to write into each networkRef for a step, and how to put it back.
//!
//! The state before the release is kept on the object itself, in the annotation
//! `rollouts.kruise.io/original-spec-configuration` (the original controller's bookkeeping), together with what we
//! changed since. Every step is computed from that original, never from the live object; what others changed meanwhile
//! is merged into it first.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{Names, Original, Parts, Strategy, checks, merge::merge, output, script_input};
use crate::{
    api::{
        conditions::reasons,
        keys,
        object::{self, ObjectRef},
        v1beta1::{NetworkRef, PatchPodTemplateMetadata},
    },
    lua::{Engine, NotFound, Script},
};

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

    /// Objects that others refer to are written before those and put back after them: a route to a subset that does
    /// not exist yet, or no more, loses requests.
    pub fn is_definition(&self) -> bool {
        object::group(&self.reference.api_version) == "networking.istio.io" && self.reference.kind == "DestinationRule"
    }

    /// Whether the object carries our bookkeeping.
    pub fn is_changed(&self) -> bool {
        self.object.as_ref().is_ok_and(|o| object::annotation(o, keys::ORIGINAL_SPEC).is_some())
    }
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

/// A change of one networkRef. Empty operations mean that nothing is to be done.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteWrite {
    /// The object.
    pub target: ObjectRef,
    /// The version that the operations were computed for.
    pub resource_version: String,
    /// JSON patch operations.
    pub operations: Vec<Value>,
    /// See [`Network::is_definition`].
    pub is_definition: bool,
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
    let mut results = Vec::new();
    for network in networks {
        let object = found(network)?;
        let script = network.script.as_ref().map_err(|e| RouteError {
            reason: reasons::SCRIPT_NOT_FOUND,
            message: format!("{}: {e}", network.target()),
        })?;
        let before = Before::read(object).map_err(|message| refused(network, message))?;
        let original = before.rebased();
        let input = script_input(&original, context.names, context.patch, strategy);
        let outcome = context.engine.run(script, &input).map_err(|e| RouteError {
            reason: reasons::SCRIPT_FAILED,
            message: format!("{}: {e}", network.target()),
        })?;
        let parts = output(outcome.value).map_err(|e| RouteError {
            reason: reasons::SCRIPT_FAILED,
            message: format!("{}: {}: {e}", network.target(), script.name),
        })?;
        checks::check(&original, &parts, context.names, strategy, network.is_definition())
            .map_err(|message| refused(network, message))?;
        results.push((network, object, original, parts));
    }
    let all: Vec<(&str, &Parts)> = results.iter().map(|(n, _, _, p)| (n.reference.kind.as_str(), p)).collect();
    checks::check_subsets(&all).map_err(|message| RouteError { reason: reasons::ROUTE_REFUSED, message })?;
    let mut writes: Vec<RouteWrite> = results
        .into_iter()
        .map(|(network, object, original, parts)| write(network, object, &parts, Some(&original.parts())))
        .collect();
    writes.sort_by_key(|w| !w.is_definition);
    Ok(writes)
}

/// The writes that put every networkRef back, those that refer to others first. An object that is gone, or that does
/// not carry our bookkeeping, needs none.
///
/// # Errors
/// When it cannot be known what an object was, or whether it still routes: pods must not go then.
pub fn plan_restore(networks: &[Network]) -> Result<Vec<RouteWrite>, RouteError> {
    let mut writes = Vec::new();
    for network in networks {
        let object = match &network.object {
            Ok(object) => object,
            Err(Missing::Forbidden(_)) => found(network)?,
            Err(Missing::Object | Missing::Kind) => continue,
        };
        if network.is_changed() {
            let before = Before::read(object).map_err(|message| refused(network, message))?;
            writes.push(write(network, object, &before.rebased().parts(), None));
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

/// An object with its state before the release.
struct Before {
    live: Original,
    /// Absent when we have not changed the object.
    bookkeeping: Option<Bookkeeping>,
}

/// The value of the annotation.
struct Bookkeeping {
    original: Value,
    /// What we last wrote.
    written: Value,
}

impl Before {
    fn read(object: &Value) -> Result<Before, String> {
        let mut live = Original::from_object(object).map_err(|e| e.to_string())?;
        let Some(annotation) = live.annotations.remove(keys::ORIGINAL_SPEC) else {
            return Ok(Before { live, bookkeeping: None });
        };
        let bookkeeping = Bookkeeping::parse(&annotation, &live).map_err(|problem| {
            format!(
                "annotation {} cannot be read ({problem}); put the object back by hand and remove the annotation",
                keys::ORIGINAL_SPEC
            )
        })?;
        Ok(Before { live, bookkeeping: Some(bookkeeping) })
    }

    /// The state before the release, with what others changed since.
    fn rebased(&self) -> Original {
        let Some(kept) = &self.bookkeeping else { return self.live.clone() };
        let live = parts_value(&self.live.parts());
        let merged = merge(Some(&kept.written), Some(&live), Some(&kept.original)).unwrap_or(live);
        Original {
            spec: merged.get("spec").cloned().unwrap_or_else(|| json!({})),
            labels: string_map(merged.get("labels")),
            annotations: string_map(merged.get("annotations")),
            ..self.live.clone()
        }
    }
}

impl Bookkeeping {
    fn parse(annotation: &str, live: &Original) -> Result<Bookkeeping, String> {
        let mut value: Value = serde_json::from_str(annotation).map_err(|e| e.to_string())?;
        let map = value.as_object_mut().ok_or("it is no object")?;
        let operations = map.remove("written");
        let original = parts_value(&Parts {
            spec: map.get("spec").filter(|s| s.is_object()).cloned().ok_or("it has no spec")?,
            labels: string_map(map.get("labels")),
            annotations: string_map(map.get("annotations")),
        });
        let written = match operations {
            // Written by a controller that does not keep it: take what is there as what was written.
            None => parts_value(&live.parts()),
            Some(operations) => {
                let patch: json_patch::Patch = serde_json::from_value(operations).map_err(|e| e.to_string())?;
                let mut written = original.clone();
                json_patch::patch(&mut written, &patch).map_err(|e| e.to_string())?;
                written
            }
        };
        Ok(Bookkeeping { original, written })
    }

    fn render(original: &Parts, written: &Parts) -> String {
        let mut value = json!({"spec": original.spec});
        if let Some(map) = value.as_object_mut() {
            insert_map(map, "labels", &original.labels);
            insert_map(map, "annotations", &original.annotations);
            let patch = json_patch::diff(&parts_value(original), &parts_value(written));
            map.insert("written".to_owned(), json!(patch));
        }
        value.to_string()
    }
}

/// `{spec, labels, annotations}` as one value; an empty map is absent.
fn parts_value(parts: &Parts) -> Value {
    let mut map = Map::new();
    map.insert("spec".to_owned(), parts.spec.clone());
    insert_map(&mut map, "labels", &parts.labels);
    insert_map(&mut map, "annotations", &parts.annotations);
    Value::Object(map)
}

fn insert_map(map: &mut Map<String, Value>, key: &str, entries: &BTreeMap<String, String>) {
    if !entries.is_empty() {
        map.insert(key.to_owned(), json!(entries));
    }
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// The operations that turn a live object into the wanted one, with bookkeeping when `original` is given.
fn write(network: &Network, live: &Value, wanted: &Parts, original: Option<&Parts>) -> RouteWrite {
    let mut annotations = wanted.annotations.clone();
    if let Some(original) = original {
        annotations.insert(keys::ORIGINAL_SPEC.to_owned(), Bookkeeping::render(original, wanted));
    }
    let document = |spec: Option<&Value>, labels: Option<Value>, annotations: Option<Value>| {
        let mut metadata = Map::new();
        for (key, value) in [("labels", labels), ("annotations", annotations)] {
            if let Some(value) = value {
                metadata.insert(key.to_owned(), value);
            }
        }
        json!({"metadata": metadata, "spec": spec})
    };
    let map = |entries: &BTreeMap<String, String>| (!entries.is_empty()).then(|| json!(entries));
    let from = document(
        live.get("spec"),
        object::at(live, &["metadata", "labels"]).cloned(),
        object::at(live, &["metadata", "annotations"]).cloned(),
    );
    let to = document(Some(&wanted.spec), map(&wanted.labels), map(&annotations));
    let operations = json_patch::diff(&from, &to).0.iter().map(|op| json!(op)).collect();
    RouteWrite {
        target: network.target(),
        resource_version: object::resource_version(live).to_owned(),
        operations,
        is_definition: network.is_definition(),
    }
}
