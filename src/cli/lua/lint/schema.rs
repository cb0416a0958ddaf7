//! Schemas of the objects that scripts change: the project's own small ones, and CustomResourceDefinitions.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::{lua::Script, yaml};

/// Where a project has its schemas.
pub(super) const SCHEMAS: &str = "testcases/schemas";

/// Schemas of `spec` by API group and kind.
#[derive(Default)]
pub(super) struct Schemas(BTreeMap<(String, String), Value>);

impl Schemas {
    /// Reads a file, or all of a folder.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read(path: &Path) -> Result<Schemas, String> {
        let mut schemas = Schemas::default();
        schemas.add(path)?;
        Ok(schemas)
    }

    fn add(&mut self, path: &Path) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        if path.is_dir() {
            for entry in std::fs::read_dir(path).map_err(|e| failed(&e))? {
                let path = entry.map_err(|e| failed(&e))?.path();
                let is_schema =
                    path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
                if path.is_dir() || is_schema {
                    self.add(&path)?;
                }
            }
            return Ok(());
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
        for document in yaml::from_str_multi(&text).map_err(|e| failed(&e))? {
            self.take(&document);
        }
        Ok(())
    }

    fn take(&mut self, document: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for item in document["items"].as_array().into_iter().flatten() {
            self.take(item);
        }
        if document["kind"] == "CustomResourceDefinition" {
            let spec = &document["spec"];
            let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let stored = versions.iter().find(|version| version["storage"] == true).or(versions.first());
            let schema = stored.and_then(|version| version.pointer("/schema/openAPIV3Schema/properties/spec"));
            if let Some(schema) = schema.filter(|schema| schema.is_object()) {
                let kind = spec.pointer("/names/kind").map(text).unwrap_or_default();
                self.0.insert((text(&spec["group"]), kind), schema.clone());
            }
        } else if document["spec"].is_object() && document["group"].is_string() {
            self.0.insert((text(&document["group"]), text(&document["kind"])), document["spec"].clone());
        }
    }

    /// The schema of the objects of a script, which lies in `<group>/<Kind>/`.
    pub fn of(&self, script: &Script) -> Option<&Value> {
        let mut folders = Path::new(&script.name).iter().rev().skip(1).filter_map(|part| part.to_str());
        let (kind, group) = (folders.next()?, folders.next()?);
        self.0.get(&(group.to_owned(), kind.to_owned()))
    }
}

/// What a schema says of a field.
#[derive(PartialEq)]
pub(super) enum Known<'a> {
    /// It is there.
    As(&'a Value),
    /// It is not.
    Not,
    /// Nothing.
    Perhaps,
}

fn keeps_anything(schema: &Value) -> bool {
    let others = &schema["additionalProperties"];
    schema["x-kubernetes-preserve-unknown-fields"] == true || !(others.is_null() || *others == false)
}

pub(super) fn field<'a>(schema: &'a Value, name: &str) -> Known<'a> {
    match schema["properties"].as_object() {
        Some(fields) => match fields.get(name) {
            Some(schema) => Known::As(schema),
            None if keeps_anything(schema) => Known::Perhaps,
            None => Known::Not,
        },
        None => Known::Perhaps,
    }
}

/// What every entry of a list, or of a map, is.
pub(super) fn element(schema: &Value) -> Option<&Value> {
    let items = if schema["type"] == "array" { &schema["items"] } else { &schema["additionalProperties"] };
    items.is_object().then_some(items)
}

/// A field whose name is written almost so: one letter more, less, another, or two the other way round. A singular and its
/// plural are two names.
pub(super) fn near<'a>(schema: &'a Value, name: &str) -> Option<&'a str> {
    let fields = schema["properties"].as_object()?;
    fields.keys().map(String::as_str).find(|known| is_near(known, name))
}

fn is_near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let longest = a.len().max(b.len());
    let differs = longest.saturating_sub((head + tail).min(a.len()).min(b.len()));
    let is_swapped =
        a.len() == b.len() && differs == 2 && a.get(head) == b.get(head + 1) && a.get(head + 1) == b.get(head);
    let longer = if a.len() > b.len() { &a } else { &b };
    let is_plural = a.len() != b.len() && head + 1 == longest && longer.last() == Some(&'s');
    // Short names are often like each other.
    !is_plural && ((longest > 4 && differs <= 1) || (longest > 3 && is_swapped))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lua::Origin;

    #[test]
    fn the_stored_version_of_a_definition_counts() {
        let version = |name: &str, storage: bool, field: &str| json!({"name": name, "storage": storage, "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": {field: {}}}}}}});
        let definition = json!({"kind": "CustomResourceDefinition", "spec": {"group": "mesh.example.com",
            "names": {"kind": "SharedRoute"}, "versions": [version("v1beta1", false, "old"), version("v1", true, "rules")]}});
        let mut schemas = Schemas::default();
        schemas.take(&json!({"kind": "List", "items": [definition]}));
        let script = |name: &str| Script::new(name, "", Origin::BuiltIn);
        assert!(schemas.of(&script("mesh.example.com/Other/trafficRouting.lua")).is_none());
        assert!(schemas.of(&script("s.lua")).is_none());
        let spec = schemas.of(&script("lua-scripts/mesh.example.com/SharedRoute/trafficRouting.lua")).unwrap();
        assert!(matches!(field(spec, "rules"), Known::As(_)));
        assert!(field(spec, "old") == Known::Not, "no field of the stored version");
    }

    #[test]
    fn almost_the_same_name() {
        for (a, b, is_one) in [
            ("weight", "wieght", true),
            ("weight", "wight", true),
            ("weight", "weigth", true),
            ("services", "servces", true),
            ("services", "service", false),
            ("service", "services", false),
            ("port", "path", false),
            ("host", "most", false),
            ("to", "so", false),
            ("headers", "weight", false),
        ] {
            assert_eq!(is_near(a, b), is_one, "{a} {b}");
        }
    }
}
