//! What the controller asked of the API servers, from their audit logs: nothing that its roles do not grant, and, over the
//! whole suite, everything that they do.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tidegate::api::keys::NOTIFICATION_SECRET;

use super::{controller::NAMESPACE, install, pki::CONTROLLER};

/// User agent of requests that are made to be refused.
pub const INTRUDER: &str = "e2e-intruder";

/// Rights that no scenario uses, and why they are granted: group, resource, verb. An empty verb is every one.
const UNUSED: [(&str, &str, &str, &str); 9] = [
    ("rollouts.kruise.io", "metrictemplates", "", "metrics are judged in `make e2e-traffic`"),
    ("rollouts.kruise.io", "rollouthistories", "", "a feature that is off by default; tests/simulation has it"),
    ("rollouts.kruise.io", "rollouthistories/status", "", "the same"),
    ("rollouts.kruise.io", "rollouts/finalizers", "", "asked by an admission plugin that is off by default"),
    ("rollouts.kruise.io", "trafficroutings/finalizers", "", "the same"),
    ("events.k8s.io", "events", "patch", "of an event that comes again and again"),
    ("networking.k8s.io", "ingresses", "delete", "`make e2e-traffic`: no Ingress is routed here"),
    ("networking.k8s.io", "ingressclasses", "", "the same"),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        "create",
        "an API server that is taken back; tests/hold.rs",
    ),
];

/// The same, of the policies: taken away where webhooks are wanted instead; tests/hold.rs.
const OF_POLICIES: &str = "delete";

/// Who may list the objects of a kind may read each of them: `get` grants nothing more.
const WITH_LIST: &str = "get";

fn folder(dir: &Path) -> PathBuf {
    dir.join("audit")
}

/// Arguments of an API server that notes every request of the controller's in a log of its own.
pub fn arguments(dir: &Path, name: &str) -> Result<Vec<String>> {
    let folder = folder(dir);
    fs::create_dir_all(&folder)?;
    let policy = folder.join("policy.yaml");
    let rules = json!([
        {"level": "Metadata", "users": [CONTROLLER], "omitStages": ["RequestReceived"]},
        {"level": "None"},
    ]);
    // Several servers may be started at once.
    let own = folder.join(format!("{name}.policy"));
    fs::write(&own, json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}).to_string())?;
    fs::rename(&own, &policy)?;
    let log = folder.join(format!("{name}.log"));
    Ok(vec![format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())])
}

/// A verb on a resource of a group.
type Right = (String, String, String);

/// One rule of a role: its rights, and what it is limited to.
struct Rule {
    rights: BTreeSet<Right>,
    is_of_home: bool,
    names: Vec<String>,
}

/// A request that was let through, or refused.
#[derive(Clone)]
struct Request {
    right: Right,
    namespace: String,
    name: String,
    is_refused: bool,
    text: String,
}

/// Fails on every request that was refused for want of rights and, if all scenarios ran, on every right that was not used.
pub fn judge(dir: &Path, is_whole: bool) -> Result<()> {
    let mut requests = Vec::new();
    for entry in fs::read_dir(folder(dir)).context("no audit logs")? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            requests.extend(read(&fs::read_to_string(&path)?));
        }
    }
    let refused: BTreeSet<&str> = requests.iter().filter(|r| r.is_refused).map(|r| r.text.as_str()).collect();
    if !refused.is_empty() {
        bail!("the controller asked for what its roles do not grant:\n{}", list(&refused));
    }
    let rules = rules()?;
    let needed = |rule: &Rule| rule.rights.iter().filter(|right| !is_excused(right, rule)).count();
    let granted: usize = rules.iter().map(needed).sum();
    let unused: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| {
            let is_used = |right: &&Right| requests.iter().any(|r| r.right == **right && rule.is_about(r));
            rule.rights.iter().filter(move |right| !is_used(right)).filter(|right| !is_excused(right, rule)).map(
                |right| {
                    let (group, resource, verb) = right;
                    let names =
                        if rule.names.is_empty() { String::new() } else { format!(" ({})", rule.names.join(", ")) };
                    format!("{verb} {resource}.{group}{names}")
                },
            )
        })
        .collect();
    eprintln!(
        "e2e: rights: {} requests of the controller, none refused; {} of {granted} rights used",
        requests.len(),
        granted - unused.len()
    );
    let unused: BTreeSet<&str> = unused.iter().map(String::as_str).collect();
    if is_whole && !unused.is_empty() {
        bail!("rights that nothing used:\n{}", list(&unused));
    }
    Ok(())
}

fn list(lines: &BTreeSet<&str>) -> String {
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

fn is_excused((group, resource, verb): &Right, rule: &Rule) -> bool {
    let list = (group.clone(), resource.clone(), "list".to_owned());
    (verb == WITH_LIST && rule.rights.contains(&list))
        || (resource.starts_with("mutatingadmissionpolic") && verb == OF_POLICIES)
        // Receivers of notifications: tests/notifications.rs has some.
        || rule.names == [NOTIFICATION_SECRET]
        || UNUSED.iter().any(|(g, r, v, _)| g == group && r == resource && (v.is_empty() || v == verb))
}

fn read(log: &str) -> Vec<Request> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // The last line may not be whole yet.
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = events.filter(|e| e["userAgent"] != INTRUDER && !e["objectRef"]["resource"].is_null());
    let requests = ours.flat_map(|event| {
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        let right = (text(&object["apiGroup"]), resource, text(&event["verb"]));
        let is_refused = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
        let place = format!("{}/{}", text(&object["namespace"]), text(&object["name"]));
        let line = format!("{} {}.{} {place}", right.2, right.1, right.0);
        let request = Request {
            name: text(&object["name"]),
            namespace: text(&object["namespace"]),
            right,
            is_refused,
            text: line,
        };
        // An apply of what was not there needs both.
        let has_created = request.right.2 == "patch" && event["responseStatus"]["code"] == 201;
        let (group, resource, _) = request.right.clone();
        let created = has_created.then(|| Request { right: (group, resource, "create".to_owned()), ..request.clone() });
        [Some(request), created]
    });
    requests.flatten().collect()
}

impl Rule {
    fn is_about(&self, request: &Request) -> bool {
        (self.names.is_empty() || self.names.contains(&request.name))
            && (!self.is_of_home || request.namespace == NAMESPACE)
    }
}

/// What the chart's roles grant.
fn rules() -> Result<Vec<Rule>> {
    let mut all = Vec::new();
    for role in install::chart_roles()? {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let texts = |key: &str| -> Vec<String> {
                rule[key].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
            };
            let mut rights = BTreeSet::new();
            for group in texts("apiGroups") {
                for resource in texts("resources") {
                    rights.extend(texts("verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
                }
            }
            all.push(Rule { rights, is_of_home: role["kind"] == "Role", names: texts("resourceNames") });
        }
    }
    Ok(all)
}
