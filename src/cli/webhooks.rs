//! `tidegate webhooks`: prints the webhook configurations. The controller sets their `caBundle`.

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Map, Value, json};

use super::{
    generated::{self, File},
    policy,
};
use crate::{
    api::{
        GROUP,
        keys::{OVERRIDE_WINDOWS, OVERRIDE_WINDOWS_BY},
    },
    webhook::{APPROVER_PATH, APPROVERS, MUTATING, OVERRIDER_PATH, VALIDATE_PATH, VALIDATE_ROUTING_PATH, VALIDATING},
    workload::hold::{CONDITION, rules},
};

/// The Service in front of the webhooks.
pub const SERVICE: &str = "tidegate-webhooks";
/// The Secret with their certificate.
pub const SECRET: &str = "tidegate-webhook-certs";

/// Arguments of `tidegate webhooks`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace of the Service.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "tidegate")]
    namespace: String,
    /// Name of the Service.
    #[arg(long, value_name = "NAME", default_value = SERVICE)]
    service: String,
    /// Where the API server reaches the webhooks without a Service, such as https://10.0.0.1:9876.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Namespaces of the Rollouts that are worked on: for others the API server does not ask [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', conflicts_with = "dir")]
    namespaces: Vec<String>,
    /// Leave out the holds: the server has the admission policies of `tidegate policy`.
    #[arg(long)]
    no_hold: bool,
    /// Write the chart's files into this folder instead of printing them.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.dir.is_some() {
        return generated::emit(&chart_files()?, args.dir.as_deref());
    }
    let place = match args.url {
        Some(url) => Place::Url(url),
        None => Place::Service { namespace: args.namespace, name: args.service },
    };
    let mut documents = vec![validating(&place), approvers(&place)];
    if !args.no_hold {
        documents.push(mutating(&place));
    }
    documents.iter_mut().for_each(|document| limit(document, &args.namespaces));
    generated::emit(&[File::of("webhooks.yaml", &documents)?], None)
}

/// Lets the webhooks of a configuration be asked for objects of these namespaces alone, if any is given.
fn limit(configuration: &mut Value, namespaces: &[String]) {
    let webhooks = configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten();
    for webhook in webhooks.filter_map(Value::as_object_mut).filter(|_| !namespaces.is_empty()) {
        let names = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces});
        webhook.insert("namespaceSelector".to_owned(), json!({"matchExpressions": [names]}));
    }
}

/// Where the webhooks are.
enum Place {
    Service { namespace: String, name: String },
    Url(String),
}

impl Place {
    fn client_config(&self, path: &str) -> Value {
        match self {
            Place::Service { namespace, name } => {
                json!({"service": {"namespace": namespace, "name": name, "port": 443, "path": path}})
            }
            Place::Url(url) => json!({"url": format!("{}{path}", url.trim_end_matches('/'))}),
        }
    }
}

fn webhook(name: &str, path: &str, place: &Place, more: Value) -> Value {
    let mut webhook: Map<String, Value> = Map::new();
    webhook.insert("name".to_owned(), name.into());
    webhook.insert("clientConfig".to_owned(), place.client_config(path));
    let common = json!({"admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 10});
    for fields in [common, more] {
        webhook.extend(fields.as_object().cloned().unwrap_or_default());
    }
    webhook.into()
}

fn rule((group, versions, resource): (&str, &[&str], &str), operations: &[&str]) -> Value {
    json!([{"apiGroups": [group], "apiVersions": versions, "operations": operations, "resources": [resource], "scope": "Namespaced"}])
}

fn configuration(kind: &str, name: &str, webhooks: Vec<Value>) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": webhooks})
}

/// The configuration of the webhooks that hold, with their paths.
pub fn holding() -> Value {
    mutating(&Place::Service { namespace: String::new(), name: String::new() })
}

fn mutating(place: &Place) -> Value {
    let webhooks = rules().map(|held| {
        let mut more = json!({
            "rules": rule((held.group, &[held.version], held.resource), &["UPDATE"]),
            // Only for what would be held, so that no other write waits for us.
            "matchConditions": [{"name": CONDITION, "expression": policy::is_held(held)}],
            // The server looks for the label on the old and on the new object.
            "objectSelector": {"matchExpressions": [{"key": held.switch, "operator": "Exists"}]},
            // Another webhook may change the template after ours.
            "reinvocationPolicy": "IfNeeded",
        });
        if let Some(policy) = policy::match_policy(held)
            && let Some(more) = more.as_object_mut()
        {
            more.insert("matchPolicy".to_owned(), policy.into());
        }
        webhook(held.webhook, held.path, place, more)
    });
    configuration("MutatingWebhookConfiguration", MUTATING, webhooks.collect())
}

/// Notes who approves, jumps, and passes over change windows. A release does not wait for that: without an answer it goes on, and nobody is named.
fn approvers(place: &Place) -> Value {
    let one = |field: &str| {
        let [old, new] = ["oldObject", "object"].map(|o| format!("{o}.status.?{field}"));
        let value = |of: &str, key: &str, none: &str| format!("{of}.?{key}.orValue({none})");
        let is = |key: &str, none: &str| (value(&old, key, none), value(&new, key, none));
        let (step, state, next) = (is("currentStepIndex", "0"), is("currentStepState", "''"), is("nextStepIndex", "0"));
        // The controller itself moves the step along with its state, and takes `saidBy` away.
        format!(
            "(({} == {} && (({} != 'StepReady' && {} == 'StepReady') || {} != {})) || ({new}.?saidBy.hasValue() && {old}.?saidBy != {new}.?saidBy))",
            step.0, step.1, state.0, state.1, next.0, next.1
        )
    };
    let expression = format!(
        "has(object.status) && has(oldObject.status) && (\n    {}\n    || {})",
        one("canaryStatus"),
        one("blueGreenStatus")
    );
    let more = json!({
        "rules": rule((GROUP, &["v1beta1"], "rollouts/status"), &["UPDATE"]),
        "matchConditions": [{"name": "word", "expression": expression}],
        "failurePolicy": "Ignore",
        "timeoutSeconds": 3,
    });
    let annotation = |object: &str, key: &str| format!("{object}.metadata.?annotations[?'{key}'].orValue('')");
    let of = |object: &str| [OVERRIDE_WINDOWS, OVERRIDE_WINDOWS_BY].map(|key| annotation(object, key));
    let ([reason, by], [old_reason, old_by]) = (of("object"), of("oldObject"));
    let overrides = json!({
        "rules": rule((GROUP, &["v1alpha1", "v1beta1"], "rollouts"), &["CREATE", "UPDATE"]),
        "matchConditions": [{"name": "override", "expression": format!(
            "request.operation == 'CREATE'\n    ? {reason} != '' || {by} != ''\n    \
             : {reason} != {old_reason} || {by} != {old_by}"
        )}],
        "failurePolicy": "Ignore",
        "timeoutSeconds": 3,
    });
    configuration(
        "MutatingWebhookConfiguration",
        APPROVERS,
        vec![
            webhook("mapprover.kb.io", APPROVER_PATH, place, more),
            webhook("moverrider.kb.io", OVERRIDER_PATH, place, overrides),
        ],
    )
}

fn validating(place: &Place) -> Value {
    let more = |versions: &[&str], resource: &str| {
        json!({
            "rules": rule((GROUP, versions, resource), &["CREATE", "UPDATE"]),
            // What passes anyhow need not ask: deletion, finalizers, labels.
            "matchConditions": [{
                "name": "changed",
                "expression": "request.operation == 'CREATE' || (!has(object.metadata.deletionTimestamp)\n\
                               \x20   && (object.spec != oldObject.spec || object.metadata.?annotations != oldObject.metadata.?annotations))",
            }],
        })
    };
    configuration(
        "ValidatingWebhookConfiguration",
        VALIDATING,
        vec![
            webhook("vrollout.kb.io", VALIDATE_PATH, place, more(&["v1alpha1", "v1beta1"], "rollouts")),
            webhook("vtrafficrouting.kb.io", VALIDATE_ROUTING_PATH, place, more(&["v1alpha1"], "trafficroutings")),
        ],
    )
}

/// The chart's files. What depends on the installation is Helm's.
pub fn chart_files() -> anyhow::Result<Vec<File>> {
    let place = Place::Service { namespace: "NAMESPACE".to_owned(), name: "SERVICE".to_owned() };
    let files = [
        ("webhooks-approvers.yaml", "tidegate.webhooks", approvers(&place)),
        ("webhooks-hold.yaml", "tidegate.holdByWebhook", mutating(&place)),
        ("webhooks.yaml", "tidegate.webhooks", validating(&place)),
    ];
    files
        .into_iter()
        .map(|(name, condition, object)| {
            let File { name, text } = File::of(name, &[object])?;
            Ok(File { name, text: templated(&text, condition) })
        })
        .collect()
}

/// The text with the chart's own values in it.
fn templated(text: &str, condition: &str) -> String {
    let mut out = format!("{{{{- if include \"{condition}\" . }}}}\n");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start() == "clientConfig:" || line.trim_start() == "- clientConfig:" {
            // The service's four lines follow; the path is what differs.
            let indent = " ".repeat(line.len() - line.trim_start().len() + if line.contains("- ") { 4 } else { 2 });
            let path = std::iter::from_fn(|| lines.next_if(|l| l.starts_with(&indent)))
                .find_map(|l| l.trim().strip_prefix("path: ").map(str::to_owned))
                .unwrap_or_default();
            while lines.next_if(|l| l.starts_with(&indent)).is_some() {}
            out += &format!(
                "{line}\n{indent}{{{{- include \"tidegate.clientConfig\" (list . \"{path}\") | nindent {} }}}}\n",
                indent.len()
            );
            let fields = indent.len() - 2;
            out += &format!(
                "{}{{{{- with include \"tidegate.namespaceSelector\" . }}}}{{{{ . | nindent {fields} }}}}{{{{ end }}}}\n",
                " ".repeat(fields)
            );
            continue;
        }
        out += line;
        out.push('\n');
        if line == "metadata:" {
            out += "  {{- include \"tidegate.metadata\" . | nindent 2 }}\n";
        }
    }
    out + "{{- end }}\n"
}
