//! What an object was before the release: read from the object and the annotation that we keep on it.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Original, Parts, diff::diff, merge::merge, sparse::Sparse};
use crate::api::{
    keys,
    object::{self, at},
};

/// The value of the annotation.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The text that it was read from.
    pub text: Arc<str>,
    pub original: Arc<Original>,
    /// What we last wrote. Absent when a controller wrote the annotation that does not keep it: whatever is there is
    /// taken for what was written.
    pub written: Option<Arc<Sparse>>,
    /// How much of the text says what the original is, where it is text of ours.
    head: usize,
}

/// An object with its state before the release.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The state before the release, with what others changed since.
    pub original: Arc<Original>,
    /// Absent when we have not changed the object.
    pub kept: Option<Kept>,
    /// Whether the object is what we last wrote, as far as that is known.
    pub holds: bool,
}

impl Reading {
    /// Reads an object. What is known of an earlier state of it, and of what was about to be written, spares parsing and
    /// copying where the object says the same again; it never changes the result.
    pub fn of(object: &Value, known: &[Kept], last: Option<&Arc<Original>>) -> Result<Reading, String> {
        let last = last.filter(|last| is_of(object, last));
        let Some(text) = object::annotation(object, keys::ORIGINAL_SPEC) else {
            let original = match last {
                Some(last) if is_original(object, last) => last.clone(),
                _ => Arc::new(live(object)?),
            };
            return Ok(Reading { original, kept: None, holds: false });
        };
        let kept = match known.iter().find(|k| *k.text == *text && is_of(object, &k.original)) {
            Some(kept) => kept.clone(),
            None => Kept::parse(text, object)?,
        };
        let holds = kept.written.as_ref().map(|written| holds(object, &kept.original, written));
        let original = match &kept.written {
            Some(written) if holds == Some(false) => {
                let rebased = rebased(object, written, &kept.original)?;
                match last {
                    Some(last) if **last == rebased => last.clone(),
                    _ => Arc::new(rebased),
                }
            }
            _ => match last {
                Some(last) if *last == kept.original || **last == *kept.original => last.clone(),
                _ => kept.original.clone(),
            },
        };
        Ok(Reading { original, kept: Some(kept), holds: holds == Some(true) })
    }
}

/// The original, with what others changed since we wrote.
fn rebased(object: &Value, written: &Sparse, original: &Original) -> Result<Original, String> {
    let live = live(object)?;
    let base = parts_value(&written.spec(original), &written.labels, &written.annotations);
    let theirs = parts_value(&live.spec, &live.labels, &live.annotations);
    let ours = parts_value(&original.spec, &original.labels, &original.annotations);
    let merged = merge(Some(&base), Some(&theirs), Some(&ours)).unwrap_or(theirs);
    Ok(Original {
        spec: merged.get("spec").cloned().unwrap_or_else(|| json!({})),
        labels: string_map(merged.get("labels")),
        annotations: string_map(merged.get("annotations")),
        ..live
    })
}

fn live(object: &Value) -> Result<Original, String> {
    let mut live = Original::from_object(object).map_err(|e| e.to_string())?;
    live.annotations.remove(keys::ORIGINAL_SPEC);
    Ok(live)
}

/// Whether something is known of this very object, in this version of its API.
fn is_of(object: &Value, original: &Original) -> bool {
    object::text(object, &["apiVersion"]) == original.api_version
        && object::text(object, &["kind"]) == original.kind
        && object::name(object) == original.name
        && object::namespace(object) == original.namespace.as_deref().unwrap_or_default()
}

/// Whether a live object is what we wrote, our annotation aside.
fn holds(object: &Value, original: &Original, written: &Sparse) -> bool {
    has_metadata(object, &written.labels, &written.annotations)
        && object.get("spec").is_some_and(|spec| written.is(original, spec))
}

fn is_original(object: &Value, original: &Original) -> bool {
    has_metadata(object, &original.labels, &original.annotations) && object.get("spec") == Some(&original.spec)
}

fn has_metadata(object: &Value, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
    [("labels", labels), ("annotations", annotations)].into_iter().all(|(field, wanted)| {
        let live = at(object, &["metadata", field]).and_then(Value::as_object).into_iter().flatten();
        let live = live.filter(|(key, _)| *key != keys::ORIGINAL_SPEC);
        let mut count = 0;
        let all = live.inspect(|_| count += 1).all(|(k, v)| wanted.get(k).map(String::as_str) == v.as_str());
        all && count == wanted.len()
    })
}

impl Kept {
    pub fn parse(text: &str, object: &Value) -> Result<Kept, String> {
        Kept::read(text, object).map_err(|problem| {
            format!(
                "annotation {} cannot be read ({problem}); put the object back by hand and remove the annotation",
                keys::ORIGINAL_SPEC
            )
        })
    }

    fn read(text: &str, object: &Value) -> Result<Kept, String> {
        let mut value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let map = value.as_object_mut().ok_or("it is no object")?;
        let operations = map.remove("written");
        let original = Original {
            api_version: object::text(object, &["apiVersion"]).to_owned(),
            kind: object::text(object, &["kind"]).to_owned(),
            name: object::name(object).to_owned(),
            namespace: Some(object::namespace(object).to_owned()).filter(|n| !n.is_empty()),
            spec: map.remove("spec").filter(Value::is_object).ok_or("it has no spec")?,
            labels: string_map(map.get("labels")),
            annotations: string_map(map.get("annotations")),
        };
        let written = operations.map(|operations| changed(&original, operations)).transpose()?;
        let written = written.map(|written| Arc::new(Sparse::of(&original, written)));
        Ok(Kept { text: text.into(), original: Arc::new(original), written, head: 0 })
    }

    /// What is to be kept when `written` is about to be written. The text of an original is long: one that `known` has
    /// is not made again.
    pub fn of<'k>(original: Arc<Original>, written: Arc<Sparse>, mut known: impl Iterator<Item = &'k Kept>) -> Kept {
        let known = known.find(|known| known.head > 0 && Arc::ptr_eq(&known.original, &original));
        let head = match known.and_then(|known| known.text.get(..known.head)) {
            Some(head) => Cow::Borrowed(head),
            None => Cow::Owned(head(&original)),
        };
        let changes = json!(changes(&original, &written));
        let text = format!("{head},\"written\":{changes}}}").into();
        Kept { text, head: head.len(), original, written: Some(written) }
    }

    /// Whether it says this.
    pub fn says(&self, original: &Arc<Original>, written: &Arc<Sparse>) -> bool {
        let same_original = Arc::ptr_eq(&self.original, original) || *self.original == **original;
        same_original && self.written.as_ref().is_some_and(|w| Arc::ptr_eq(w, written) || **w == **written)
    }
}

/// An original as text, open for one more field. The fields are in the order of their keys, as maps are written.
fn head(original: &Original) -> String {
    #[derive(Serialize)]
    struct Head<'a> {
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        labels: &'a BTreeMap<String, String>,
        spec: &'a Value,
    }
    let head = Head { annotations: &original.annotations, labels: &original.labels, spec: &original.spec };
    // Strings, numbers and maps with string keys can always be written.
    let mut text = serde_json::to_string(&head).unwrap_or_default();
    text.pop();
    text
}

/// How the parts differ from an original: a JSON patch of `{spec, labels, annotations}`.
fn changes(original: &Original, parts: &Sparse) -> Vec<Value> {
    let mut operations = parts.diff(original, Some(&original.spec));
    operations.extend(map_diff("/labels", &original.labels, &parts.labels));
    operations.extend(map_diff("/annotations", &original.annotations, &parts.annotations));
    operations
}

/// An original with changes as [`changes`] tells them.
fn changed(original: &Original, changes: Value) -> Result<Parts, String> {
    let patch: json_patch::Patch = serde_json::from_value(changes).map_err(|e| e.to_string())?;
    let mut value = parts_value(&original.spec, &original.labels, &original.annotations);
    json_patch::patch(&mut value, &patch).map_err(|e| e.to_string())?;
    Ok(Parts {
        spec: value.get_mut("spec").map_or(Value::Null, Value::take),
        labels: string_map(value.get("labels")),
        annotations: string_map(value.get("annotations")),
    })
}

/// An empty map is absent.
fn map_diff(path: &str, from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Vec<Value> {
    let value = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| json!(map));
    diff(path, value(from).as_ref(), value(to).as_ref())
}

/// `{spec, labels, annotations}` as one value; an empty map is absent.
fn parts_value(spec: &Value, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Value {
    let mut map = Map::new();
    map.insert("spec".to_owned(), spec.clone());
    for (key, entries) in [("labels", labels), ("annotations", annotations)] {
        if !entries.is_empty() {
            map.insert(key.to_owned(), json!(entries));
        }
    }
    Value::Object(map)
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// The operations that make a live object what we want, with our annotation on it.
pub(super) fn write(live: &Value, kept: &Kept) -> Vec<Value> {
    let Some(written) = &kept.written else { return Vec::new() };
    let mut operations = metadata_diff(live, "labels", &written.labels, None);
    operations.extend(metadata_diff(live, "annotations", &written.annotations, Some(&kept.text)));
    operations.extend(written.diff(&kept.original, live.get("spec")));
    operations
}

/// The operations that put a live object back.
pub(super) fn restore(live: &Value, original: &Original) -> Vec<Value> {
    let mut operations = metadata_diff(live, "labels", &original.labels, None);
    operations.extend(metadata_diff(live, "annotations", &original.annotations, None));
    operations.extend(diff("/spec", live.get("spec"), Some(&original.spec)));
    operations
}

fn metadata_diff(live: &Value, field: &str, wanted: &BTreeMap<String, String>, ours: Option<&str>) -> Vec<Value> {
    let path = format!("/metadata/{field}");
    let present = at(live, &["metadata", field]);
    if wanted.is_empty() && ours.is_none() {
        // An empty map says nothing and is left alone.
        let is_empty = present.is_none_or(|p| p.as_object().is_some_and(Map::is_empty));
        return if is_empty { Vec::new() } else { diff(&path, present, None) };
    }
    let Some(Value::Object(map)) = present else {
        let mut to = json!(wanted);
        if let (Some(ours), Some(to)) = (ours, to.as_object_mut()) {
            to.insert(keys::ORIGINAL_SPEC.to_owned(), json!(ours));
        }
        return diff(&path, present, Some(&to));
    };
    let value = |key: &str| match ours {
        Some(ours) if key == keys::ORIGINAL_SPEC => Some(ours),
        _ => wanted.get(key).map(String::as_str),
    };
    let place = |key: &str| format!("{path}/{}", object::pointer_key(key));
    let gone = map.keys().filter(|key| value(key).is_none());
    let mut operations: Vec<Value> = gone.map(|key| json!({"op": "remove", "path": place(key)})).collect();
    for key in wanted.keys().map(String::as_str).chain(ours.map(|_| keys::ORIGINAL_SPEC)) {
        let (Some(new), old) = (value(key), map.get(key)) else { continue };
        if old.and_then(Value::as_str) != Some(new) {
            let op = if old.is_some() { "replace" } else { "add" };
            operations.push(json!({"op": op, "path": place(key), "value": new}));
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(weight: i64) -> Parts {
        let spec = json!({"hosts": ["*"], "http": [{"route": 1.5}, {"route": "\"<ä>\"", "weight": weight}]});
        Parts { spec, annotations: BTreeMap::from([("a/b".to_owned(), "1".to_owned())]), ..Parts::default() }
    }

    /// The annotation is the same text whether the original's part is made anew or taken over, and reads back as it was.
    #[test]
    fn text_that_is_taken_over_is_the_same() {
        for labels in [BTreeMap::new(), BTreeMap::from([("team".to_owned(), "web".to_owned())])] {
            let Parts { spec, annotations, .. } = parts(0);
            let name = "route".to_owned();
            let original = Arc::new(Original { name, spec, labels, annotations, ..Original::default() });
            let written = |weight| Arc::new(Sparse::of(&original, parts(weight)));
            let first = Kept::of(original.clone(), written(20), [].iter());
            let object = json!({"apiVersion": "", "kind": "", "metadata": {"name": "route"}});
            let read = Kept::parse(&first.text, &object).unwrap();
            assert_eq!((&read.original, &read.written), (&original, &Some(written(20))));
            for known in [first, read] {
                let alone = Kept::of(original.clone(), written(50), [].iter());
                let beside = Kept::of(original.clone(), written(50), [known].iter());
                assert_eq!((&beside.text, beside.head), (&alone.text, alone.head));
                let map: BTreeMap<String, Value> = serde_json::from_str(&alone.text).unwrap();
                assert_eq!(serde_json::to_string(&map).unwrap(), *alone.text, "as a map is written");
            }
        }
    }
}
