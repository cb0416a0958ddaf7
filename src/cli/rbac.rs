//! `tidegate rbac`: prints the rights of the controller, from one table.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use kube::api::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::{
    api::{
        GROUP,
        keys::{LEASE, NOTIFICATION_SECRET, SCRIPT_CONFIG_MAP},
    },
    cli::{
        generated::{self, File},
        webhooks::SECRET,
    },
    lua::Library,
    webhook::{APPROVERS, MUTATING, VALIDATING},
};

/// Name of the controller's account, role and bindings.
pub const NAME: &str = "tidegate";
/// Name of the role for further kinds that route, and of its binding. It is made of all ClusterRoles with
/// [`AGGREGATE`], so that nothing has to be bound.
pub const GATEWAYS: &str = "tidegate-gateways";
/// Label of a ClusterRole whose rights the controller has as well; its value is `true`.
pub const AGGREGATE: &str = "rollouts.kruise.io/aggregate-to-controller";

/// Arguments of `tidegate rbac`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that the controller runs in.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "tidegate")]
    namespace: String,
    /// Print only what another kind needs beside the rest: one that routes, such as example.io/Mesh, or a workload
    #[arg(long = "for", value_name = "GROUP/KIND", conflicts_with = "dir")]
    kinds: Vec<String>,
    /// Write the file `clusterrole.yaml` (the roles alone) into this folder instead of printing everything.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.kinds.is_empty() {
        let roles: anyhow::Result<Vec<Value>> = args.kinds.iter().map(|k| for_kind(k)).collect();
        return generated::emit(&[File::of("rbac.yaml", &roles?)?], None);
    }
    match &args.dir {
        Some(_) => generated::emit(&[roles_file()?], args.dir.as_deref()),
        None => generated::emit(&[File::of("rbac.yaml", &all(&args.namespace))?], None),
    }
}

/// The chart's file: what is the same in every installation.
pub fn roles_file() -> anyhow::Result<File> {
    let mut role = role();
    set_namespace(&mut role, "{{ .Release.Namespace }}");
    File::of("clusterrole.yaml", &[cluster_role(), gateways(), role])
}

/// Verbs on resources of a group; on all objects where no name is given.
struct Right {
    group: &'static str,
    resources: &'static [&'static str],
    names: &'static [&'static str],
    verbs: &'static [&'static str],
}

const fn right(group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str]) -> Right {
    Right { group, resources, names: &[], verbs }
}

const READ: &[&str] = &["get", "list", "watch"];
const READ_PATCH: &[&str] = &["get", "list", "watch", "patch"];
/// For what is created, owned and removed again; server-side apply is a patch.
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// Rights in all namespaces: Rollouts, and what they name, are anywhere.
const EVERYWHERE: &[Right] = &[
    // Finalizer and hash are metadata; status is a right of its own.
    right(GROUP, &["rollouts", "trafficroutings"], READ_PATCH),
    right(GROUP, &["rollouts/status", "trafficroutings/status"], &["patch"]),
    // Kept queries. Secrets of metrics servers are granted one by one, in their namespaces.
    right(GROUP, &["metrictemplates"], READ),
    // Records of releases, where they are switched on.
    right(GROUP, &["rollouthistories"], OWN),
    right(GROUP, &["rollouthistories/status"], &["patch"]),
    // To be named as the blocking owner of what we create, where the server checks that.
    right(GROUP, &["rollouts/finalizers", "trafficroutings/finalizers"], &["update"]),
    right("apps", &["deployments"], OWN),
    // `minReadySeconds` of a ReplicaSet that must stay while its Deployment is paused.
    right("apps", &["replicasets"], READ_PATCH),
    right("apps", &["controllerrevisions"], READ),
    right("apps", &["statefulsets", "daemonsets"], READ_PATCH),
    right("apps.kruise.io", &["clonesets", "statefulsets", "daemonsets"], READ_PATCH),
    // Labels with the id of the release; a pod that its workload's controller waits for in vain, or replaces only when it is gone.
    right("", &["pods"], &["get", "list", "watch", "patch", "delete"]),
    // Taints, during the release of a DaemonSet: no pod is deleted where none would come in its place.
    right("", &["nodes"], READ),
    // Jobs of gates, from the templates of CronJobs; they go by their time to live, or with their Rollout.
    right("batch", &["cronjobs"], READ),
    right("batch", &["jobs"], &["get", "list", "watch", "create", "patch"]),
    right("", &["services"], OWN),
    right("discovery.k8s.io", &["endpointslices"], READ),
    right("events.k8s.io", &["events"], &["create", "patch"]),
    // A canary Ingress is ours.
    right("networking.k8s.io", &["ingresses"], OWN),
    right("networking.k8s.io", &["ingressclasses"], READ),
    // Whether hold and definitions are there, to say so when they are not.
    right("admissionregistration.k8s.io", &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"], READ),
    right("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
    // What to warn of when a Rollout is written.
    right("autoscaling", &["horizontalpodautoscalers"], &["list"]),
    right("policy", &["poddisruptionbudgets"], &["list"]),
    // Whether the author of a Rollout may himself do what it asks for.
    right("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    // The CA of our own webhooks.
    Right {
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        names: &[MUTATING, APPROVERS, VALIDATING],
        verbs: READ_PATCH,
    },
    Right {
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &["rollouts.rollouts.kruise.io"],
        verbs: &["patch"],
    },
];

/// Rights in the controller's own namespace.
const AT_HOME: &[Right] = &[
    Right { group: "", resources: &["configmaps"], names: &[SCRIPT_CONFIG_MAP], verbs: READ },
    // What is created has no name yet.
    right("coordination.k8s.io", &["leases"], &["create"]),
    Right { group: "coordination.k8s.io", resources: &["leases"], names: &[LEASE], verbs: &["get", "watch", "update"] },
    right("", &["secrets"], &["create"]),
    Right { group: "", resources: &["secrets"], names: &[NOTIFICATION_SECRET], verbs: &["get"] },
    Right { group: "", resources: &["secrets"], names: &[SECRET], verbs: &["get", "list", "watch", "update"] },
];

fn rules(rights: &[Right]) -> Vec<Value> {
    let rule = |right: &Right| {
        let mut rule = json!({"apiGroups": [right.group], "resources": right.resources, "verbs": right.verbs});
        if let (Some(rule), false) = (rule.as_object_mut(), right.names.is_empty()) {
            rule.insert("resourceNames".to_owned(), json!(right.names));
        }
        rule
    };
    rights.iter().map(rule).collect()
}

/// What the built-in scripts route by: a rule for each group of their kinds.
fn routes() -> Vec<Value> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    for (group, kind) in Library::kinds() {
        let plural = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, "", &kind)).plural;
        groups.entry(group).or_default().push(plural);
    }
    let rule = |(group, plurals)| json!({"apiGroups": [group], "resources": plurals, "verbs": READ_PATCH});
    groups.into_iter().map(rule).collect()
}

fn cluster_role() -> Value {
    let mut all = rules(EVERYWHERE);
    all.extend(routes());
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": all,
    })
}

fn role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": NAME},
        "rules": rules(AT_HOME),
    })
}

/// The role for further kinds; the API server fills it.
fn gateways() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": GATEWAYS},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {AGGREGATE: "true"}}]},
    })
}

/// What another kind that routes, or is released, needs: a role for it, which the controller has by its label.
fn for_kind(kind: &str) -> anyhow::Result<Value> {
    let (group, kind) = kind
        .rsplit_once('/')
        .ok_or_else(|| anyhow::anyhow!("--for {kind}: write GROUP/KIND, such as example.io/Mesh"))?;
    let plural = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "", kind)).plural;
    Ok(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": format!("{NAME}-{plural}.{group}"), "labels": {AGGREGATE: "true"}},
        "rules": [{"apiGroups": [group], "resources": [plural], "verbs": READ_PATCH}],
    }))
}

fn set_namespace(object: &mut Value, namespace: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
}

/// Roles, account and bindings for a controller in `namespace`.
fn all(namespace: &str) -> Vec<Value> {
    let binding = |kind: &str, name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": format!("{kind}Binding"),
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        })
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}});
    let mut namespaced = [account, role(), binding("Role", NAME)];
    namespaced.iter_mut().for_each(|object| set_namespace(object, namespace));
    let everywhere = [cluster_role(), binding("ClusterRole", NAME), gateways(), binding("ClusterRole", GATEWAYS)];
    everywhere.into_iter().chain(namespaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::Library;

    #[test]
    fn another_kind_has_a_role_of_its_own() {
        let role = for_kind("example.io/Mesh").unwrap();
        assert_eq!(role["rules"], json!([{"apiGroups": ["example.io"], "resources": ["meshes"], "verbs": READ_PATCH}]));
        let selected = &gateways()["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
        assert_eq!(selected, &role["metadata"]["labels"]);
        assert!(all("ops").iter().any(|o| o["kind"] == "ClusterRoleBinding" && o["roleRef"]["name"] == GATEWAYS));
        assert!(for_kind("Mesh").unwrap_err().to_string().contains("write GROUP/KIND"));
    }

    #[test]
    fn the_controller_may_change_what_built_in_scripts_are_for() {
        for script in Library::list() {
            let mut parts = script.name.split('/');
            let (Some(group), Some(kind), Some("trafficRouting.lua")) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            // As kinds are named in the plural, all of them so far.
            let kind = kind.to_lowercase();
            let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
            let has = |list: &Value, word: &str| list.as_array().is_some_and(|l| l.iter().any(|w| w == word));
            let role = cluster_role();
            let may = role["rules"].as_array().into_iter().flatten().any(|rule| {
                has(&rule["apiGroups"], group) && has(&rule["resources"], &plural) && has(&rule["verbs"], "patch")
            });
            assert!(may, "{}: no right to patch {plural} of {group}", script.name);
        }
    }
}
