//! `tidegate rbac`: prints the rights of the controller, from one table.

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use crate::{
    api::GROUP,
    cli::generated::{self, File},
};

/// Name of the controller's account, role and bindings.
pub const NAME: &str = "tidegate";

/// Arguments of `tidegate rbac`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that the controller runs in.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "tidegate")]
    namespace: String,
    /// Write the file `clusterrole.yaml` (the roles alone) into this folder instead of printing everything.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match &args.dir {
        Some(_) => generated::emit(&[roles_file()?], args.dir.as_deref()),
        None => generated::emit(&[File::of("rbac.yaml", &all(&args.namespace))?], None),
    }
}

/// The chart's file: what is the same in every installation.
pub fn roles_file() -> anyhow::Result<File> {
    File::of("clusterrole.yaml", &[cluster_role(), role()])
}

/// Rights in all namespaces: Rollouts, and what they name, are anywhere.
const CLUSTER: &[(&str, &[&str], &[&str])] = &[
    // Finalizer and hash are metadata; status is its own right.
    (GROUP, &["rollouts", "trafficroutings"], &["get", "list", "watch", "patch"]),
    (GROUP, &["rollouts/status", "trafficroutings/status"], &["patch"]),
    // To be named as the blocking owner of what we create, where the server checks that.
    (GROUP, &["rollouts/finalizers", "trafficroutings/finalizers"], &["update"]),
    ("apps", &["deployments"], &["get", "list", "watch", "create", "patch", "delete"]),
    ("apps", &["replicasets"], &["get", "list", "watch"]),
    ("", &["pods"], &["get", "list", "watch"]),
    ("", &["services"], &["get", "list", "watch", "create", "patch", "delete"]),
    // Scripts, and what a script's ConfigMap is looked up for.
    ("", &["configmaps"], &["get", "list", "watch"]),
    ("discovery.k8s.io", &["endpointslices"], &["get", "list", "watch"]),
    ("events.k8s.io", &["events"], &["create", "patch"]),
    ("networking.istio.io", &["virtualservices", "destinationrules"], &["get", "list", "watch", "patch"]),
    // Whether the hold and the definitions are there, to say so when they are not.
    (
        "admissionregistration.k8s.io",
        &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
        &["get", "list", "watch"],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"], &["get", "list", "watch"]),
];

/// Rights in the controller's own namespace.
const OWN: &[(&str, &[&str], &[&str])] = &[("coordination.k8s.io", &["leases"], &["get", "create", "update", "patch"])];

fn rules(table: &[(&str, &[&str], &[&str])]) -> Value {
    table
        .iter()
        .map(|(group, resources, verbs)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}))
        .collect()
}

fn cluster_role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": rules(CLUSTER),
    })
}

/// Without a namespace: Helm, and whoever applies it, puts it into the controller's.
fn role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": NAME},
        "rules": rules(OWN),
    })
}

/// Roles, account and bindings for a controller in `namespace`.
fn all(namespace: &str) -> Vec<Value> {
    let binding = |kind: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": format!("{kind}Binding"),
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        })
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}});
    let mut namespaced = [account, role(), binding("Role")];
    for object in &mut namespaced {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
    }
    [cluster_role(), binding("ClusterRole")].into_iter().chain(namespaced).collect()
}
