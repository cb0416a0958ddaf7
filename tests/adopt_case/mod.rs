//! Cases of `testcases/adopt`: one may say how it differs from another.

use std::{fs, path::Path};

use serde_json::Value;

/// A case with what it takes from the one that it is `of`: objects `without` some, some that it `differs` in, and more.
///
/// # Errors
/// A file that cannot be read, or an object that the other has not.
pub fn whole(file: &Path) -> Result<Value, String> {
    let read = |file: &Path| -> Result<Value, String> {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        tidegate::yaml::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
    };
    let case = read(file)?;
    let Some(of) = case.get("of").and_then(Value::as_str) else { return Ok(case) };
    let mut whole = read(&file.with_file_name(format!("{of}.yaml")))?;
    let is = |object: &Value, kind: &str, name: &str| object["kind"] == *kind && object["metadata"]["name"] == *name;
    let Some(objects) = whole["objects"].as_array_mut() else { return Err(format!("{of} has no objects")) };
    for gone in case["without"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (kind, name) = gone.split_once('/').ok_or(format!("{gone}: write Kind/name"))?;
        objects.retain(|object| !is(object, kind, name));
    }
    for edit in case["differs"].as_array().into_iter().flatten() {
        let word = |key: &str| edit[key].as_str().unwrap_or_default();
        let object = objects.iter_mut().find(|object| is(object, word("kind"), word("name")));
        let object = object.ok_or(format!("{of} has no {} {}", word("kind"), word("name")))?;
        json_patch::merge(object, &edit["merge"]);
    }
    objects.extend(case["objects"].as_array().cloned().unwrap_or_default());
    for (key, own) in case.as_object().into_iter().flatten().filter(|(key, _)| *key != "objects") {
        whole[key] = own.clone();
    }
    Ok(whole)
}
