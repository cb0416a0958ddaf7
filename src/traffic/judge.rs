//! Judges a write of routes from the write alone and the object that was read, whatever planned it.

use serde_json::{Value, json};

use super::{
    Names, Original, Parts, Strategy,
    bookkeeping::{Kept, Reading},
    checks,
};
use crate::api::{keys, object};

/// An invariant of routes that a write breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Shares do not add up, or rules of others changed.
    Traffic(String),
    /// Something else is written than what a script returned, or its original is not kept.
    Leaves(String),
    /// What is put back is not what was there.
    Restore(String),
}

/// Judges the operations that are to be written to an object.
pub fn judge(live: &Value, operations: &[Value], names: &Names, is_definition: bool) -> Result<(), Breach> {
    for operation in operations {
        let path = object::text(operation, &["path"]);
        if !["/spec/", "/metadata/labels", "/metadata/annotations"].iter().any(|p| path.starts_with(p)) {
            return Err(Breach::Leaves(format!("{path:?} is no field of spec, labels or annotations")));
        }
    }
    let patch: json_patch::Patch =
        serde_json::from_value(json!(operations)).map_err(|e| Breach::Leaves(format!("no JSON patch: {e}")))?;
    let mut after = live.clone();
    json_patch::patch(&mut after, &patch).map_err(|e| Breach::Leaves(e.to_string()))?;
    // Nothing that is remembered counts here.
    let before = Reading::of(live, &[], None).map_err(Breach::Leaves)?.original;
    let result = stripped(&after).map_err(Breach::Leaves)?;
    let Some(text) = object::annotation(&after, keys::ORIGINAL_SPEC) else {
        return if same(&result, &before) {
            Ok(())
        } else {
            Err(Breach::Restore("what is put back is not the original with what others changed".to_owned()))
        };
    };
    let kept = Kept::parse(text, &after).map_err(Breach::Leaves)?;
    if !same(&kept.original, &before) {
        return Err(Breach::Leaves("what is kept to be put back is not what was there".to_owned()));
    }
    let is_written = kept.written.as_ref().is_some_and(|written| {
        written.labels == result.labels
            && written.annotations == result.annotations
            && written.is(&kept.original, &result.spec)
    });
    if !is_written {
        return Err(Breach::Leaves("what is written is not what the script returned".to_owned()));
    }
    let parts = Parts { spec: result.spec, labels: result.labels, annotations: result.annotations };
    checks::check(&before, &parts, names, &Strategy::default(), is_definition).map_err(Breach::Traffic)
}

fn stripped(object: &Value) -> Result<Original, String> {
    let mut parts = Original::from_object(object).map_err(|e| e.to_string())?;
    parts.annotations.remove(keys::ORIGINAL_SPEC);
    Ok(parts)
}

fn same(a: &Original, b: &Original) -> bool {
    (&a.spec, &a.labels, &a.annotations) == (&b.spec, &b.labels, &b.annotations)
}
