//! Structural schemas of custom resources: pruning, defaulting, and the plain part of validation.
//!
//! Types, `required`, `enum`, bounds and lengths are checked. CEL rules, `pattern`, `oneOf` and the like are not.

use serde_json::{Map, Value};

use super::json::{flag, items, text};
use super::status::FieldError;

/// Drops the fields that the schema does not know and adds its defaults. Fields that are as in `shaped` have their shape.
pub(crate) fn default_and_prune(schema: &Value, object: &mut Value, shaped: Option<&Value>) {
    let Value::Object(map) = object else { return };
    let preserve = flag(schema, "/x-kubernetes-preserve-unknown-fields");
    let properties = schema.get("properties").and_then(Value::as_object);
    let keep = ["apiVersion", "kind", "metadata"];
    if !preserve {
        map.retain(|k, _| keep.contains(&k.as_str()) || properties.is_some_and(|p| p.contains_key(k)));
    }
    add_defaults(properties, map, &keep);
    let is_shaped = |key: &str, value: &Value| shaped.and_then(|shaped| shaped.get(key)) == Some(value);
    for (key, value) in map.iter_mut().filter(|(k, v)| !keep.contains(&k.as_str()) && !is_shaped(k, v)) {
        if let Some(schema) = properties.and_then(|p| p.get(key)) {
            walk(schema, value);
        }
    }
}

fn add_defaults(properties: Option<&Map<String, Value>>, map: &mut Map<String, Value>, skip: &[&str]) {
    for (key, schema) in properties.into_iter().flatten().filter(|(k, _)| !skip.contains(&k.as_str())) {
        if let Some(default) = schema.get("default") {
            match map.get(key) {
                None => {
                    map.insert(key.clone(), default.clone());
                }
                Some(Value::Null) if !flag(schema, "/nullable") => {
                    map.insert(key.clone(), default.clone());
                }
                _ => {}
            }
        }
    }
}

fn walk(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            let embedded = flag(schema, "/x-kubernetes-embedded-resource");
            let open = flag(schema, "/x-kubernetes-preserve-unknown-fields") || additional.is_some();
            if !open {
                map.retain(|k, _| {
                    properties.is_some_and(|p| p.contains_key(k))
                        || (embedded && matches!(k.as_str(), "apiVersion" | "kind" | "metadata"))
                });
            }
            add_defaults(properties, map, &[]);
            for (key, value) in map.iter_mut() {
                let schema = properties.and_then(|p| p.get(key)).or(additional.filter(|a| a.is_object()));
                if let Some(schema) = schema {
                    walk(schema, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(schema) = schema.get("items") {
                list.iter_mut().for_each(|v| walk(schema, v));
            }
        }
        _ => {}
    }
}

/// Checks an object against the schema of its version. What is as it was is not checked again, as on a real server.
pub(crate) fn validate(schema: &Value, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(map) = object.as_object() else { return };
    required(schema, map, "", errors);
    let is_old = |key: &str, value: &Value| old.and_then(|old| old.get(key)) == Some(value);
    let is_judged = |key: &str| !matches!(key, "apiVersion" | "kind" | "metadata");
    for (key, value) in map.iter().filter(|(k, v)| is_judged(k) && !is_old(k, v)) {
        if let Some(schema) = schema.get("properties").and_then(|p| p.get(key)) {
            check(schema, value, key, errors);
        }
    }
    let blocking = [
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    ];
    if errors.iter().any(|e| blocking.contains(&e.reason)) && has_rules(schema) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(FieldError::invalid("<nil>", "null", why));
    }
}

/// What keeps an apply patch from being read by the schema: unknown fields and wrong types.
pub(crate) fn untyped(schema: &Value, config: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let properties = schema.get("properties");
    for (key, value) in config.as_object().into_iter().flatten() {
        match properties.and_then(|p| p.get(key)) {
            _ if matches!(key.as_str(), "apiVersion" | "kind" | "metadata") => {}
            Some(schema) => untyped_at(schema, value, &format!(".{key}"), &mut errors),
            None if flag(schema, "/x-kubernetes-preserve-unknown-fields") => {}
            None => errors.push(format!(".{key}: field not declared in schema")),
        }
    }
    errors
}

fn untyped_at(schema: &Value, value: &Value, path: &str, errors: &mut Vec<String>) {
    let mut expected = |what: &str| {
        let got = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        errors.push(format!("{path}: expected {what}, got &{{{got}}}"));
    };
    match (text(schema, "/type"), value) {
        (_, Value::Null) => {}
        ("boolean", v) if !v.is_boolean() => expected("boolean"),
        ("integer" | "number", v) if !v.is_number() => expected("numeric (int or float)"),
        ("string", v) if !v.is_string() => expected("string"),
        ("array", Value::Array(list)) => {
            for (i, item) in list.iter().enumerate() {
                if let Some(schema) = schema.get("items") {
                    untyped_at(schema, item, &format!("{path}[{i}]"), errors);
                }
            }
        }
        ("object", Value::Object(map)) => {
            let open = flag(schema, "/x-kubernetes-preserve-unknown-fields");
            for (key, value) in map {
                let known = schema.get("properties").and_then(|p| p.get(key));
                match known.or_else(|| schema.get("additionalProperties")) {
                    Some(schema) => untyped_at(schema, value, &format!("{path}.{key}"), errors),
                    None if open => {}
                    None => errors.push(format!("{path}.{key}: field not declared in schema")),
                }
            }
        }
        _ => {}
    }
}

/// True if CEL rules stand anywhere in the schema.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

fn required(schema: &Value, map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for key in items(schema, "/required").iter().filter_map(Value::as_str) {
        if !map.contains_key(key) {
            let field = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            errors.push(FieldError::required(field, ""));
        }
    }
}

fn check(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        if !flag(schema, "/nullable") && schema.get("type").is_some() {
            let want = text(schema, "/type");
            let why = format!("{path} in body must be of type {want}: \"null\"");
            errors.push(FieldError::type_invalid(path, "\"null\"", why));
        }
        return;
    }
    let want = text(schema, "/type");
    let have = match value {
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Null => "null",
    };
    let int_or_string = flag(schema, "/x-kubernetes-int-or-string");
    let fits = want.is_empty()
        || want == have
        || (want == "number" && have == "integer")
        || (int_or_string && matches!(have, "integer" | "string"));
    if !fits {
        let why = format!("{path} in body must be of type {want}: \"{have}\"");
        errors.push(FieldError::type_invalid(path, format!("\"{have}\""), why));
        return;
    }
    let allowed = items(schema, "/enum");
    if !allowed.is_empty() && !allowed.contains(value) {
        let names: Vec<String> =
            allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        errors.push(FieldError::unsupported(path, value.as_str().unwrap_or_default(), &names));
    }
    if let Some(number) = value.as_f64() {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(min) = bound("minimum").filter(|m| number < *m) {
            let why = format!("{path} in body should be greater than or equal to {min}");
            errors.push(FieldError::invalid(path, value, why));
        }
        if let Some(max) = bound("maximum").filter(|m| number > *m) {
            let why = format!("{path} in body should be less than or equal to {max}");
            errors.push(FieldError::invalid(path, value, why));
        }
    }
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    match value {
        Value::String(s) => {
            let length = s.chars().count() as u64;
            if let Some(min) = bound("minLength").filter(|m| length < *m) {
                let why = format!("{path} in body should be at least {min} chars long");
                errors.push(FieldError::invalid(path, format!("\"{s}\""), why));
            }
            if let Some(max) = bound("maxLength").filter(|m| length > *m) {
                errors.push(FieldError::invalid(path, format!("\"{s}\""), format!("may not be more than {max} bytes")));
            }
        }
        Value::Array(list) => {
            if let Some(min) = bound("minItems").filter(|m| (list.len() as u64) < *m) {
                let why = format!("{path} in body should have at least {min} items");
                errors.push(FieldError::invalid(path, list.len(), why));
            }
            if let Some(max) = bound("maxItems").filter(|m| list.len() as u64 > *m) {
                errors.push(FieldError::invalid(path, list.len(), format!("must have at most {max} items")));
            }
            if let Some(schema) = schema.get("items") {
                for (i, item) in list.iter().enumerate() {
                    check(schema, item, &format!("{path}[{i}]"), errors);
                }
            }
        }
        Value::Object(map) => {
            required(schema, map, path, errors);
            for (key, value) in map {
                let schema = schema
                    .get("properties")
                    .and_then(|p| p.get(key))
                    .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()));
                if let Some(schema) = schema {
                    check(schema, value, &format!("{path}.{key}"), errors);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 2},
            "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
            "count": {"type": "integer", "minimum": 1, "maximum": 5},
            "share": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "steps": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
        }}}})
    }

    #[test]
    fn prunes_and_defaults() {
        let mut object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "junk": 1,
            "spec": {"name": "ab", "junk": 2, "free": {"any": {"thing": 1}}, "labels": {"a": "b"}, "steps": [{"z": 1}, {"n": 2}]}});
        default_and_prune(&schema(), &mut object, None);
        assert_eq!(
            object,
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"},
            "spec": {"name": "ab", "mode": "A", "free": {"any": {"thing": 1}}, "labels": {"a": "b"}, "steps": [{"n": 1}, {"n": 2}]}})
        );
    }

    #[test]
    fn validates() {
        for (spec, expected) in [
            (json!({"name": "ab", "share": "20%"}), None),
            (json!({"name": "ab", "share": 20}), None),
            (json!({}), Some(("spec.name", "Required value"))),
            (json!({"name": 1}), Some(("spec.name", "must be of type string: \"integer\""))),
            (json!({"name": "a"}), Some(("spec.name", "at least 2 chars"))),
            (json!({"name": "ab", "mode": "C"}), Some(("spec.mode", "supported values: \"A\", \"B\""))),
            (json!({"name": "ab", "count": 9}), Some(("spec.count", "less than or equal to 5"))),
            (json!({"name": "ab", "share": true}), None),
            (json!({"name": "ab", "labels": {"x": 1}}), Some(("spec.labels.x", "must be of type string"))),
            (json!({"name": "ab", "steps": [{"n": "1"}]}), Some(("spec.steps[0].n", "must be of type integer"))),
        ] {
            let mut errors = Vec::new();
            validate(&schema(), &json!({"spec": spec}), None, &mut errors);
            match expected {
                None => assert!(errors.is_empty(), "{spec}: {errors:?}"),
                Some((field, message)) => {
                    assert_eq!(errors.len(), 1, "{spec}: {errors:?}");
                    assert_eq!(errors[0].field, field);
                    assert!(errors[0].message.contains(message), "{}", errors[0].message);
                }
            }
        }
    }
}
