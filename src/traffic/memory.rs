//! What was found out about objects that route, so that it need not be found out again.
//!
//! The same objects are decided upon again and again: while pods come up, while a step waits, and once for every step
//! before the first. Everything that is remembered is a function of what it is filed under, so a decision comes out the
//! same with and without it; it lives in the [`Engine`], is bounded, and forgets first what was used longest ago.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;

use super::{
    Names, Strategy,
    bookkeeping::{Kept, Reading},
    routes::{Network, RouteWrite},
    sparse::Sparse,
};
use crate::{
    api::{object::ObjectRef, v1beta1::PatchPodTemplateMetadata},
    lua::{Engine, Script},
};

/// Groups of objects that are remembered at most.
const GROUPS: usize = 1024;
/// Steps of one group that are remembered at most.
const STEPS: usize = 200;
/// Bytes that all groups may need, about.
const BYTES: usize = 48 << 20;

/// Texts of scripts that are remembered at most: those in use, and some that people have just changed.
const TEXTS: usize = 256;
/// Bytes that they may need.
const TEXT_BYTES: usize = 8 << 20;

/// Groups by their objects, and texts of scripts by their version.
#[derive(Debug, Default)]
pub struct Memory {
    groups: Mutex<Groups>,
    /// Those used last come last.
    texts: Mutex<Vec<(String, Script)>>,
    work: [AtomicU64; 3],
}

#[derive(Debug, Default)]
struct Groups {
    by_targets: HashMap<Vec<ObjectRef>, (u64, Group)>,
    clock: u64,
    bytes: usize,
}

/// What planning has cost since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Objects that were taken apart.
    pub read: u64,
    /// Scripts that were asked for a result.
    pub asked: u64,
    /// Objects that were compared with what they should be.
    pub compared: u64,
}

/// One kind of work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Did {
    Read,
    Ask,
    Compare,
}

impl Memory {
    /// The memory that lives in an engine.
    pub fn of(engine: &Engine) -> Arc<Memory> {
        engine.memory()
    }

    /// Remembers the text of a script; gives its version.
    pub fn keep(&self, script: &Script) -> String {
        let version = script.version();
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.retain(|(known, _)| *known != version);
        texts.push((version.clone(), script.clone()));
        let mut bytes: usize = texts.iter().map(|(_, s)| s.source.len()).sum();
        while texts.len() > TEXTS || (bytes > TEXT_BYTES && texts.len() > 1) {
            let (_, gone) = texts.remove(0);
            bytes -= gone.source.len();
        }
        version
    }

    /// The text of this version, if it is remembered.
    pub fn text(&self, version: &str) -> Option<Script> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = texts.iter().position(|(known, _)| known == version)?;
        let found = texts.remove(at);
        let script = found.1.clone();
        texts.push(found);
        Some(script)
    }

    /// Texts of scripts that are remembered, and their bytes.
    pub fn texts(&self) -> (usize, usize) {
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        (texts.len(), texts.iter().map(|(_, s)| s.source.len()).sum())
    }

    /// What planning has cost so far.
    pub fn work(&self) -> Work {
        let [read, asked, compared] = &self.work;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work { read: count(read), asked: count(asked), compared: count(compared) }
    }

    /// Forgets everything.
    pub fn forget(&self) {
        let mut groups = self.lock();
        groups.by_targets.clear();
        groups.bytes = 0;
    }

    pub(super) fn did(&self, what: Did) {
        if let Some(counter) = self.work.get(what as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        // A panic leaves at most a group out.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a group out to work with it: a script may run for long, and others must not wait for it.
    pub(super) fn take(&self, networks: &[Network]) -> Group {
        let targets: Vec<ObjectRef> = networks.iter().map(Network::target).collect();
        let mut groups = self.lock();
        match groups.by_targets.remove(&targets) {
            Some((_, group)) => {
                groups.bytes -= group.weight();
                group
            }
            None => Group { targets, ..Group::default() },
        }
    }

    /// Puts a group back.
    pub(super) fn put(&self, mut group: Group) {
        group.steps.drain(..group.steps.len().saturating_sub(STEPS));
        let mut groups = self.lock();
        groups.clock += 1;
        let now = groups.clock;
        groups.bytes += group.weight();
        if let Some((_, other)) = groups.by_targets.insert(group.targets.clone(), (now, group)) {
            groups.bytes -= other.weight();
        }
        while groups.by_targets.len() > GROUPS || (groups.bytes > BYTES && groups.by_targets.len() > 1) {
            let oldest = groups.by_targets.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            let Some((_, gone)) = oldest.and_then(|key| groups.by_targets.remove(&key)) else { break };
            groups.bytes -= gone.weight();
        }
    }
}

/// Objects whose routes are planned together.
#[derive(Debug, Default)]
pub(super) struct Group {
    targets: Vec<ObjectRef>,
    /// One for each object, once all were read.
    pub objects: Vec<Known>,
    pub steps: Vec<Step>,
    /// The last plans; they hold while every object is the very same. A pass may end one step and begin the next.
    pub writes: Vec<(StepKey, Vec<RouteWrite>)>,
}

/// One object.
#[derive(Debug)]
pub(super) struct Known {
    /// An allocation that is pointed to is not used again, so an equal pointer means the same, unchanged object.
    object: Weak<Value>,
    script: Script,
    pub reading: Reading,
    /// What was about to be written when it was last planned.
    pub planned: Option<Kept>,
    weight: usize,
}

/// What a step's result depends on beside the objects and their scripts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepKey {
    pub names: Names,
    pub patch: Option<PatchPodTemplateMetadata>,
    pub strategy: Strategy,
}

/// A step for which every script ran and every result keeps the rules.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub key: StepKey,
    /// For each object, the result.
    pub results: Arc<[Arc<Sparse>]>,
    weight: usize,
}

impl Step {
    pub fn new(key: StepKey, results: Vec<Sparse>) -> Step {
        const KEY: usize = 1024;
        let weight = KEY + results.iter().flat_map(Sparse::own).map(weight).sum::<usize>();
        Step { key, results: results.into_iter().map(Arc::new).collect(), weight }
    }
}

impl Group {
    /// Reads every object, or finds that it is known.
    ///
    /// # Errors
    /// The index of the object that cannot be read, and why.
    pub fn read(&mut self, objects: &[(&Arc<Value>, &Script)], memory: &Memory) -> Result<(), (usize, String)> {
        let is_known = self.objects.len() == objects.len()
            && self
                .objects
                .iter()
                .zip(objects)
                .all(|(known, (object, script))| known.is_of(object) && known.runs(script));
        if is_known {
            return Ok(());
        }
        self.writes.clear();
        let mut known: Vec<Option<Known>> = self.objects.drain(..).map(Some).collect();
        known.resize_with(objects.len(), || None);
        let mut keeps_steps = true;
        for (i, ((object, script), known)) in objects.iter().zip(known).enumerate() {
            let known = match known {
                Some(known) if known.is_of(object) && known.runs(script) => {
                    self.objects.push(known);
                    continue;
                }
                other => other,
            };
            memory.did(Did::Read);
            let kept = known.as_ref().map(Known::kept).unwrap_or_default();
            let last = known.as_ref().map(|k| &k.reading.original);
            let reading = Reading::of(object, &kept, last).map_err(|problem| (i, problem))?;
            keeps_steps &=
                known.as_ref().is_some_and(|k| Arc::ptr_eq(&k.reading.original, &reading.original) && k.runs(script));
            let weight = match &known {
                Some(known) if Arc::ptr_eq(&known.reading.original, &reading.original) => known.weight,
                _ => weight(&reading.original.spec),
            };
            let (object, script) = (Arc::downgrade(object), (*script).clone());
            self.objects.push(Known { object, script, reading, planned: known.and_then(|k| k.planned), weight });
        }
        if !keeps_steps {
            self.steps.clear();
        }
        Ok(())
    }

    /// What is known of a step.
    pub fn step(&self, key: &StepKey) -> Option<&Step> {
        self.steps.iter().find(|step| step.key == *key)
    }

    /// An object as it is now, without remembering it.
    pub fn reread(&self, i: usize, object: &Value, memory: &Memory) -> Result<Reading, String> {
        memory.did(Did::Read);
        let known = self.objects.get(i);
        Reading::of(object, &known.map(Known::kept).unwrap_or_default(), known.map(|k| &k.reading.original))
    }

    fn weight(&self) -> usize {
        // The original, the one that was kept if it differs, and the annotation's text.
        self.objects.iter().map(|o| o.weight * 3).sum::<usize>() + self.steps.iter().map(|s| s.weight).sum::<usize>()
    }
}

impl Known {
    fn is_of(&self, object: &Arc<Value>) -> bool {
        std::ptr::eq(self.object.as_ptr(), Arc::as_ptr(object))
    }

    fn runs(&self, script: &Script) -> bool {
        self.script.name == script.name && self.script.source == script.source
    }

    fn kept(&self) -> Vec<Kept> {
        self.planned.iter().chain(&self.reading.kept).cloned().collect()
    }
}

/// About how many bytes a value takes.
fn weight(value: &Value) -> usize {
    const NODE: usize = 64;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| NODE + k.len() + weight(v)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lua::{Limits, Origin};

    fn script(source: String) -> Script {
        let origin = Origin::ConfigMap { namespace: String::new(), name: "c".into(), key: "k".into() };
        Script::new("c/k", source, origin)
    }

    /// A hundred edits of a script, of 200 KiB each, with and without mistakes.
    #[test]
    fn edits_of_a_script_do_not_pile_up() {
        let limits = Limits { compiled: 16, results: 16, ..Limits::default() };
        let engine = Engine::with_limits(1, limits);
        let memory = Memory::of(&engine);
        let comment = format!("-- {}\n", "x".repeat(200 << 10));
        let serving = memory.keep(&script("return obj".to_owned()));
        for edit in 0..100 {
            let text = if edit % 2 == 0 { "return {n = " } else { "retrun {n = " };
            let edited = script(format!("{comment}{text} {edit}}}"));
            memory.keep(&edited);
            assert_eq!(engine.run(&edited, &json!({})).is_ok(), edit % 2 == 0, "{edit}");
            assert!(memory.text(&serving).is_some(), "{edit}");
        }
        let (compiled, results) = engine.kept();
        let (texts, bytes) = memory.texts();
        assert!(compiled <= 16 && results <= 16, "{compiled} {results}");
        assert!(texts <= TEXTS && bytes <= TEXT_BYTES, "{texts} {bytes}");
    }
}
