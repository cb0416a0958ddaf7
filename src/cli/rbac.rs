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
    workload::hold::{self, PROBE},
};

/// Name of the controller's account, role and bindings.
pub const NAME: &str = "tidegate";
/// Name of the role for objects that are in no namespace, and of its binding.
pub const CLUSTER: &str = "tidegate-cluster";
/// Name of the binding of the role [`NAME`] in a namespace with Rollouts.
const ROLLOUTS: &str = "tidegate-rollouts";
/// Name of the role for MetricTemplates of the controller's own namespace, where it has no other rights on Rollouts.
const TEMPLATES: &str = "tidegate-templates";
/// Name of the role for ConfigMaps of scripts in the namespaces of Rollouts.
const SCRIPTS: &str = "tidegate-namespace-scripts";
/// Name of the role for further kinds that route, and of its binding. It is made of all ClusterRoles with
/// [`AGGREGATE`], so that nothing has to be bound.
pub const GATEWAYS: &str = "tidegate-gateways";
/// Name of the role for Jobs of gates and metrics, one of those of which [`GATEWAYS`] is made.
pub const JOBS: &str = "tidegate-jobs";
/// Label of a ClusterRole whose rights the controller has as well; its value is `true`.
pub const AGGREGATE: &str = "rollouts.kruise.io/aggregate-to-controller";

/// Arguments of `tidegate rbac`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that the controller runs in.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "tidegate")]
    namespace: String,
    /// Namespaces of the Rollouts that are worked on: rights in these alone, but for what is in no namespace
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "dir")]
    namespaces: Vec<String>,
    /// For a controller with --namespace-scripts: it reads the ConfigMap of scripts in every one of these namespaces
    #[arg(long, conflicts_with = "dir")]
    namespace_scripts: bool,
    /// Print only what another kind needs beside the rest: one that routes, such as example.io/Mesh, or a workload
    #[arg(long = "for", value_name = "GROUP/KIND", conflicts_with = "dir")]
    kinds: Vec<String>,
    /// Also what gates and metrics need that are Jobs: read CronJobs, create Jobs
    #[arg(long, conflicts_with = "dir")]
    jobs: bool,
    /// Write the files `clusterrole.yaml` and `clusterrole-jobs.yaml` (the roles alone) into this folder instead of printing everything.
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
        Some(_) => generated::emit(&chart_files()?, args.dir.as_deref()),
        None => {
            let mut all = all(&args.namespace, &args.namespaces, args.namespace_scripts);
            all.extend(args.jobs.then(jobs_role));
            generated::emit(&[File::of("rbac.yaml", &all)?], None)
        }
    }
}

/// The chart's files.
///
/// # Errors
/// What cannot be written as YAML.
pub fn chart_files() -> anyhow::Result<[File; 2]> {
    let mut jobs = File::of("clusterrole-jobs.yaml", &[jobs_role()])?;
    jobs.text = format!("{{{{- if .Values.jobs.enabled }}}}\n{}{{{{- end }}}}\n", jobs.text);
    Ok([roles_file()?, jobs])
}

/// What is the same in every installation.
fn roles_file() -> anyhow::Result<File> {
    let mut role = role();
    set_namespace(&mut role, "{{ .Release.Namespace }}");
    File::of("clusterrole.yaml", &[workload_role(), cluster_role(), gateways(), role])
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

/// Rights in the namespaces of Rollouts: on these, and on what they name.
const WITH_ROLLOUTS: &[Right] = &[
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
    right("", &["services"], OWN),
    right("discovery.k8s.io", &["endpointslices"], READ),
    right("events.k8s.io", &["events"], &["create", "patch"]),
    // A canary Ingress is ours.
    right("networking.k8s.io", &["ingresses"], OWN),
    // What to warn of when a Rollout is written.
    right("autoscaling", &["horizontalpodautoscalers"], &["list"]),
    right("policy", &["poddisruptionbudgets"], &["list"]),
];

/// Rights of gates and metrics that are Jobs, from the templates of CronJobs; they go by their time to live, or with their
/// Rollout. Only where they are used: who may create a Job runs pods as any account of the namespace.
const WITH_JOBS: &[Right] =
    &[right("batch", &["cronjobs"], READ), right("batch", &["jobs"], &["get", "list", "watch", "create", "patch"])];

/// Rights on what is in no namespace.
const IN_NO_NAMESPACE: &[Right] = &[
    // Taints, during the release of a DaemonSet: no pod is deleted where none would come in its place.
    right("", &["nodes"], READ),
    right("networking.k8s.io", &["ingressclasses"], READ),
    // Whether hold and definitions are there, to say so when they are not.
    right("admissionregistration.k8s.io", &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"], READ),
    right("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
    // Whether the author of a Rollout may himself do what it asks for.
    right("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
    // The CA of our own webhooks.
    Right {
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        names: &[MUTATING, APPROVERS, VALIDATING],
        verbs: READ_PATCH,
    },
    // The hold is put in place anew when the server changes.
    Right {
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations"],
        names: &[MUTATING],
        verbs: &["create", "delete"],
    },
    Right {
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        names: &["rollouts.rollouts.kruise.io"],
        verbs: &["patch"],
    },
];

/// The ConfigMap of scripts: the administrator's, or a namespace's own.
const CONFIG_MAP: Right = Right { group: "", resources: &["configmaps"], names: &[SCRIPT_CONFIG_MAP], verbs: READ };

/// Rights in the controller's own namespace.
const AT_HOME: &[Right] = &[
    CONFIG_MAP,
    // What is created has no name yet.
    right("coordination.k8s.io", &["leases"], &["create"]),
    Right { group: "coordination.k8s.io", resources: &["leases"], names: &[LEASE], verbs: &["get", "watch", "update"] },
    right("", &["secrets"], &["create"]),
    // On which it is tried whether the server's policies hold.
    Right { group: "apps", resources: &["deployments"], names: &[PROBE], verbs: &["create", "patch", "delete"] },
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

fn role_of(kind: &str, name: &str, rules: Vec<Value>) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

/// Bound everywhere, or in some namespaces.
fn workload_role() -> Value {
    let mut all = rules(WITH_ROLLOUTS);
    all.extend(routes());
    role_of("ClusterRole", NAME, all)
}

/// Bound with [`GATEWAYS`], by its label.
fn jobs_role() -> Value {
    let mut role = role_of("ClusterRole", JOBS, rules(WITH_JOBS));
    if let Some(metadata) = role.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("labels".to_owned(), json!({AGGREGATE: "true"}));
    }
    role
}

fn cluster_role() -> Value {
    let mut all = rules(IN_NO_NAMESPACE);
    let policies: Vec<&str> = hold::rules().map(|rule| rule.policy).collect();
    all.push(json!({
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"],
        "resourceNames": policies,
        "verbs": ["create", "patch", "delete"],
    }));
    role_of("ClusterRole", CLUSTER, all)
}

fn role() -> Value {
    role_of("Role", NAME, rules(AT_HOME))
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

/// The binding of a role to the account of a controller in `home`; in `namespace`, or everywhere.
fn binding(home: &str, namespace: Option<&str>, kind: &str, name: &str) -> Value {
    // The controller's own namespace may be one of those with Rollouts, and has a Role of the name.
    let is_shared = namespace.is_some() && (kind, name) == ("ClusterRole", NAME);
    let mut binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
        "metadata": {"name": if is_shared { ROLLOUTS } else { name }},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": home}],
    });
    if let Some(namespace) = namespace {
        set_namespace(&mut binding, namespace);
    }
    binding
}

/// Roles, account and bindings for a controller in `home` that works on the Rollouts of `namespaces`, or of all; these may
/// bring scripts of their own.
fn all(home: &str, namespaces: &[String], bring_scripts: bool) -> Vec<Value> {
    let mut all = vec![workload_role(), cluster_role(), gateways(), binding(home, None, "ClusterRole", CLUSTER)];
    let places: Vec<Option<&str>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().map(|n| Some(n.as_str())).collect() };
    for place in &places {
        all.extend([NAME, GATEWAYS].map(|name| binding(home, *place, "ClusterRole", name)));
    }
    if bring_scripts {
        all.push(role_of("ClusterRole", SCRIPTS, rules(&[CONFIG_MAP])));
        all.extend(places.iter().map(|place| binding(home, *place, "ClusterRole", SCRIPTS)));
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}});
    let mut at_home = vec![account, role(), binding(home, Some(home), "Role", NAME)];
    if !namespaces.is_empty() && !namespaces.iter().any(|namespace| namespace == home) {
        let templates = rules(&[right(GROUP, &["metrictemplates"], READ)]);
        at_home.extend([role_of("Role", TEMPLATES, templates), binding(home, Some(home), "Role", TEMPLATES)]);
    }
    at_home.iter_mut().for_each(|object| set_namespace(object, home));
    all.extend(at_home);
    all
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
        assert!(
            all("ops", &[], false)
                .iter()
                .any(|o| o["kind"] == "ClusterRoleBinding" && o["roleRef"]["name"] == GATEWAYS)
        );
        assert!(for_kind("Mesh").unwrap_err().to_string().contains("write GROUP/KIND"));
    }

    #[test]
    fn jobs_are_created_only_where_that_is_wanted() {
        let text = |objects: &[Value]| objects.iter().map(Value::to_string).collect::<String>();
        assert!(!text(&all("ops", &[], false)).contains("\"batch\""));
        let [roles, jobs] = chart_files().unwrap();
        assert!(!roles.text.contains("batch") && jobs.text.starts_with("{{- if .Values.jobs.enabled }}\n"));
        let selected = &gateways()["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
        assert_eq!(selected, &jobs_role()["metadata"]["labels"]);
    }

    #[test]
    fn in_some_namespaces_nothing_is_granted_beyond_them_but_what_is_in_none() {
        let bindings_with = |namespaces: &[&str], bring_scripts: bool| -> Vec<String> {
            let namespaces: Vec<String> = namespaces.iter().map(|n| (*n).to_owned()).collect();
            let text = |o: &Value, pointer: &str| o.pointer(pointer).and_then(Value::as_str).unwrap_or("*").to_owned();
            let objects = all("ops", &namespaces, bring_scripts);
            let bound = objects.iter().filter(|o| text(o, "/kind").ends_with("Binding"));
            let [place, name, kind, role] = ["/metadata/namespace", "/metadata/name", "/roleRef/kind", "/roleRef/name"];
            bound
                .map(|o| format!("{} {}: {} {}", text(o, place), text(o, name), text(o, kind), text(o, role)))
                .collect()
        };
        let bindings = |namespaces: &[&str]| bindings_with(namespaces, false);
        let scripts = "tidegate-namespace-scripts: ClusterRole tidegate-namespace-scripts";
        assert!(bindings_with(&[], true).contains(&format!("* {scripts}")));
        assert!(bindings_with(&["shop"], true).contains(&format!("shop {scripts}")));
        assert!(!bindings(&["shop"]).join(" ").contains("namespace-scripts"));
        let home = "ops tidegate: Role tidegate";
        let cluster = "* tidegate-cluster: ClusterRole tidegate-cluster";
        assert_eq!(
            bindings(&[]),
            [cluster, "* tidegate: ClusterRole tidegate", "* tidegate-gateways: ClusterRole tidegate-gateways", home]
        );
        assert_eq!(
            bindings(&["shop"]),
            [
                cluster,
                "shop tidegate-rollouts: ClusterRole tidegate",
                "shop tidegate-gateways: ClusterRole tidegate-gateways",
                home,
                "ops tidegate-templates: Role tidegate-templates"
            ]
        );
        let own = bindings(&["ops", "shop"]);
        assert!(
            own.contains(&"ops tidegate-rollouts: ClusterRole tidegate".to_owned())
                && !own.join("").contains("templates")
        );
        assert_eq!(own.iter().collect::<std::collections::BTreeSet<_>>().len(), own.len(), "{own:?}");
        // What is bound everywhere is of kinds without a namespace.
        let namespaced = ["rollouts", "deployments", "services", "pods", "secrets", "configmaps", "virtualservices"];
        let text = cluster_role().to_string();
        assert!(namespaced.iter().all(|kind| !text.contains(&format!("\"{kind}\""))), "{text}");
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
            let role = workload_role();
            let may = role["rules"].as_array().into_iter().flatten().any(|rule| {
                has(&rule["apiGroups"], group) && has(&rule["resources"], &plural) && has(&rule["verbs"], "patch")
            });
            assert!(may, "{}: no right to patch {plural} of {group}", script.name);
        }
    }
}
