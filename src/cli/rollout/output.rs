//! Where commands print, and objects as kubectl prints them.

use std::io::{self, Write};

use kube::api::DynamicObject;
use serde::Serialize as _;
use serde_json::{Value, json};

use super::resources::RESOURCE;

/// The streams of a command, and how to write to them.
pub struct Io<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Notes and errors.
    pub err: &'a mut dyn Write,
    /// Whether `out` takes colours.
    pub colour: bool,
    /// Whether `out` is a terminal that can be cleared.
    pub terminal: bool,
    /// How this program was called, for remedies that can be pasted.
    pub program: &'a str,
}

impl Io<'_> {
    /// Prints and flushes: a waiting person or script sees each line at once.
    ///
    /// # Errors
    /// Of the stream.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// A line on the error stream.
    ///
    /// # Errors
    /// Of the stream.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.err, "{text}")
    }
}

/// Forms in which whole objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// JSON, indented by four.
    Json,
    /// YAML.
    Yaml,
    /// `rollout.rollouts.kruise.io/NAME`.
    Name,
}

/// One object.
///
/// # Errors
/// When the object cannot be written as YAML.
pub fn object(object: &DynamicObject, form: Whole) -> anyhow::Result<String> {
    match form {
        Whole::Name => Ok(format!("{RESOURCE}/{}\n", object.metadata.name.as_deref().unwrap_or_default())),
        form => text(&plain(object)?, form),
    }
}

/// Several objects, as a `List`.
///
/// # Errors
/// When an object cannot be written as YAML.
pub fn list(objects: &[DynamicObject], form: Whole) -> anyhow::Result<String> {
    if form == Whole::Name {
        return objects.iter().map(|o| object(o, form)).collect();
    }
    let items: Vec<Value> = objects.iter().map(plain).collect::<Result<_, _>>()?;
    text(&json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}), form)
}

/// Without `managedFields`, as kubectl does. Items of a list come without a kind, so it is put back.
fn plain(object: &DynamicObject) -> anyhow::Result<Value> {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    object.types.get_or_insert_with(kube::api::TypeMeta::resource::<crate::api::v1beta1::Rollout>);
    Ok(serde_json::to_value(object)?)
}

fn text(value: &Value, form: Whole) -> anyhow::Result<String> {
    if form == Whole::Yaml {
        return Ok(crate::yaml::to_string(value)?);
    }
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes)?)
}
