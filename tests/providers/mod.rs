//! What an API server knows of the providers' objects: `testcases/schemas/<group>/<Kind>.yaml`.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tidegate::yaml;

/// By group and kind.
pub type Schemas = BTreeMap<(String, String), Value>;

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

/// The files: `group`, `kind`, `plural`, `versions`, and the schema of `spec`.
pub fn schemas() -> Schemas {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testcases/schemas"), &mut found);
    let schema = |path: PathBuf| {
        let file: Value = yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let text = |key: &str| file[key].as_str().unwrap_or_else(|| panic!("{}: {key}", path.display())).to_owned();
        ((text("group"), text("kind")), file)
    };
    found.into_iter().map(schema).collect()
}

/// The CustomResourceDefinition of a schema.
pub fn definition(file: &Value) -> Value {
    let text = |key: &str| file[key].as_str().unwrap();
    let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": file["spec"]}});
    let versions = file["versions"].as_array().unwrap().iter().enumerate().map(|(i, version)| {
        json!({"name": version, "served": true, "storage": i == 0, "schema": {"openAPIV3Schema": schema}})
    });
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", text("plural"), text("group"))},
        "spec": {"group": text("group"), "scope": "Namespaced", "versions": versions.collect::<Vec<_>>(),
            "names": {"kind": text("kind"), "plural": text("plural")}}})
}
