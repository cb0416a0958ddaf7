//! Which Rollouts the arguments mean, and how they are read.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use serde_json::json;

use crate::{
    api::{GROUP, v1beta1::Rollout},
    cli::client::explain,
};

/// The name of the kind in messages, as kubectl prints it.
pub const RESOURCE: &str = "rollout.rollouts.kruise.io";

const TYPES: [&str; 7] = [
    "rollout",
    "rollouts",
    "ro",
    "rollout.rollouts.kruise.io",
    "rollouts.rollouts.kruise.io",
    "rollouts.v1beta1.rollouts.kruise.io",
    "rollouts.v1alpha1.rollouts.kruise.io",
];

/// A wrong command line: exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

fn is_type(word: &str) -> bool {
    TYPES.iter().any(|t| t.eq_ignore_ascii_case(word))
}

/// Names of Rollouts from `rollout/NAME…` or `rollout NAME…`, in order, each once. Empty for `rollouts` alone or
/// nothing.
///
/// # Errors
/// Another kind, a bare name, or a mixture of both forms.
pub fn names(arguments: &[String]) -> Result<Vec<String>, Usage> {
    let Some(first) = arguments.first() else { return Ok(Vec::new()) };
    let mut names: Vec<String> = Vec::new();
    if first.contains('/') {
        for argument in arguments {
            let Some((kind, name)) = argument.split_once('/') else {
                return Err(Usage(format!("{argument:?}: after {first:?} write each object as rollout/NAME")));
            };
            if !is_type(kind) {
                return Err(Usage(format!("{argument:?}: {kind:?} is not a Rollout; write rollout/NAME")));
            }
            names.push(name.to_owned());
        }
    } else if is_type(first) {
        names.extend(arguments.iter().skip(1).cloned());
    } else {
        return Err(Usage(format!(
            "{first:?} is not a kind that this command knows; write rollout/{first} or rollout {first}"
        )));
    }
    for name in &names {
        if !is_object_name(name) {
            return Err(Usage(format!("{name:?} cannot be the name of a Rollout; write rollout/NAME or rollout NAME")));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// As [`names`], at least one.
///
/// # Errors
/// As of [`names`], or no name at all.
pub fn some_names(arguments: &[String]) -> Result<Vec<String>, Usage> {
    let names = names(arguments)?;
    if names.is_empty() {
        return Err(Usage("name at least one Rollout: rollout/NAME or rollout NAME".to_owned()));
    }
    Ok(names)
}

/// A DNS subdomain: what the API server takes for a name, and what is safe in a URL.
fn is_object_name(name: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 253
        && alphanumeric(name.chars().next())
        && alphanumeric(name.chars().last())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

/// Rollouts of one namespace, as the server sends them: a typed struct would drop fields that it does not know.
pub fn api(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Rollout>(&()))
}

/// Rollouts of all namespaces.
pub fn api_all(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<Rollout>(&()))
}

/// Reads a Rollout as the server sent it. An absent `spec` or `strategy` is an empty one: the original's schema allows
/// the former, and what is half-written must still be shown.
///
/// # Errors
/// A field of a type that no version of the API has.
pub fn typed(object: &DynamicObject) -> anyhow::Result<Rollout> {
    let mut value = serde_json::to_value(object)?;
    if let Some(root) = value.as_object_mut() {
        let spec = root.entry("spec").or_insert_with(|| json!({}));
        if let Some(spec) = spec.as_object_mut() {
            spec.entry("strategy").or_insert_with(|| json!({}));
        }
    }
    let name = object.metadata.name.clone().unwrap_or_default();
    serde_json::from_value(value)
        .map_err(|e| anyhow::anyhow!("{RESOURCE} {name:?} is not in a form that this version knows: {e}"))
}

/// What a failed call on a Rollout means to the person who made it.
pub fn failure(error: &kube::Error, namespace: &str, name: &str) -> anyhow::Error {
    if let kube::Error::Api(status) = error {
        if status.code == 404 && status.reason == "NotFound" {
            return anyhow::anyhow!(
                "{RESOURCE} {name:?} not found in namespace {namespace:?}; `rollout get -A` lists those that there are"
            );
        }
        if status.code == 404 {
            return not_served();
        }
    }
    anyhow::anyhow!("{RESOURCE} {name:?} in namespace {namespace:?}: {}", explain(error))
}

/// What a failed list means.
pub fn list_failure(error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => not_served(),
        other => anyhow::anyhow!("cannot list rollouts.{GROUP}: {}", explain(other)),
    }
}

fn not_served() -> anyhow::Error {
    anyhow::anyhow!(
        "the API server does not serve {GROUP}/v1beta1; install the custom resources: `tidegate crd | kubectl apply --server-side -f -`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Vec<String>, Usage> {
        names(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_form_of_kubectl_is_read() {
        for (line, expected) in [
            ("", vec![]),
            ("rollouts", vec![]),
            ("rollout/a", vec!["a"]),
            ("rollouts/a", vec!["a"]),
            ("ro/a", vec!["a"]),
            ("Rollout/a", vec!["a"]),
            ("rollouts.rollouts.kruise.io/a", vec!["a"]),
            ("rollouts.v1beta1.rollouts.kruise.io/a", vec!["a"]),
            ("rollout a", vec!["a"]),
            ("rollouts a b.c-1 a", vec!["a", "b.c-1"]),
            ("rollout/b rollouts/a", vec!["b", "a"]),
        ] {
            assert_eq!(parse(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_what_would_be_right() {
        for (line, part) in [
            ("rollouts-demo", "rollout/rollouts-demo"),
            ("deployment/web", "\"deployment\" is not a Rollout"),
            ("deployment web", "is not a kind that this command knows"),
            ("rollout/a b", "write each object as rollout/NAME"),
            ("rollout a rollout/b", "cannot be the name"),
            ("rollout/", "cannot be the name"),
            ("rollout/../secrets", "cannot be the name"),
            ("rollout/A", "cannot be the name"),
        ] {
            let message = parse(line).unwrap_err().to_string();
            assert!(message.contains(part), "{line}: {message}");
        }
        assert!(some_names(&["rollouts".to_owned()]).unwrap_err().0.contains("at least one"));
    }

    #[test]
    fn half_written_objects_are_read() {
        for object in [
            json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "a"}}),
            json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "a"},
                   "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
                   "status": {"phase": "Initial"}}),
        ] {
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            assert_eq!(typed(&object).unwrap().metadata.name.as_deref(), Some("a"));
        }
    }
}
