//! What is right and wrong of an installation, from what was found. Pure.

use std::fmt;

use jiff::SignedDuration;

use super::facts::{Definition, Facts, Leader, Policies, Read, Rival, Used};
use crate::{cli::adopt, lua::Library, workload};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be looked at, or will be wrong.
    Warn,
    /// Something does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What is so, and the remedy.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(f, "{level:<5} {}: {}", self.subject, self.text)
    }
}

/// A certificate that ends sooner should have been renewed: that happens a month before.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, level: Level, subject: &str, text: impl Into<String>) {
        self.0.push(Finding { level, subject: subject.to_owned(), text: text.into() });
    }

    /// What was read, or nothing beside a warning.
    fn known<'a, T>(&mut self, subject: &str, read: &'a Read<T>) -> Option<&'a T> {
        match read {
            Ok(found) => Some(found),
            Err(why) => {
                self.say(Level::Warn, subject, format!("not looked at: {why}"));
                None
            }
        }
    }
}

/// The findings, in the order in which one would mend things.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    match &facts.server {
        Ok(version) if is_too_old(version) => all.say(
            Level::Fail,
            "API server",
            format!("{version} is older than 1.{OLDEST}, the oldest that Tidegate is made for: upgrade the cluster"),
        ),
        Ok(version) => all.say(Level::Ok, "API server", version),
        Err(why) => all.say(Level::Fail, "API server", why),
    }
    controllers(&mut all, facts);
    definitions(&mut all, facts);
    hold(&mut all, facts);
    webhooks(&mut all, facts);
    certificate(&mut all, facts);
    leaders(&mut all, facts);
    rivals(&mut all, facts);
    namespaces(&mut all, facts);
    used(&mut all, facts);
    all.0
}

/// Of the Kubernetes releases 1.x; as the chart has it.
const OLDEST: u32 = 33;

fn is_too_old(version: &str) -> bool {
    let minor = version.strip_prefix("v1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.is_some_and(|minor: u32| minor < OLDEST)
}

fn controllers(all: &mut Findings, facts: &Facts) {
    const OURS: &str = env!("CARGO_PKG_VERSION");
    let subject = "version of the controller";
    let Some(versions) = all.known(subject, &facts.controllers) else { return };
    match versions.iter().find(|version| *version != OURS) {
        Some(other) => {
            let text = format!(
                "{other}, and this is tidegate {OURS}: what follows is judged by {OURS}; run the doctor of {other}, or upgrade"
            );
            all.say(Level::Warn, subject, text);
        }
        // Run by other means than the chart.
        None if versions.is_empty() => {}
        None => all.say(Level::Ok, subject, OURS),
    }
}

fn namespaces(all: &mut Findings, facts: &Facts) {
    let subject = "namespaces";
    let Some(watched) = all.known(subject, &facts.namespaces).filter(|watched| !watched.is_empty()) else { return };
    let list = watched.join(", ");
    let Some(unwatched) = all.known(subject, &facts.unwatched) else { return };
    match unwatched.first() {
        None => all.say(Level::Ok, subject, format!("only {list} watched, and no Rollout is elsewhere")),
        Some(first) => {
            let text = format!(
                "only {list} watched: {} Rollouts and TrafficRoutings elsewhere are not worked on, {first} first; add their namespaces to the chart's `namespaces`",
                unwatched.len()
            );
            all.say(Level::Warn, subject, text);
        }
    }
}

fn rivals(all: &mut Findings, facts: &Facts) {
    let subject = "other controllers of the same workloads";
    let Some(rivals) = all.known(subject, &facts.rivals) else { return };
    for Rival { who, workload, by } in rivals {
        let text = format!(
            "{workload} is rolled out by {by} and by {who}: two controllers undo each other's work; delete one of the two"
        );
        all.say(Level::Fail, subject, text);
    }
    if rivals.is_empty() {
        all.say(Level::Ok, subject, "none of Argo Rollouts or Flagger");
    }
}

fn definitions(all: &mut Findings, facts: &Facts) {
    const REMEDY: &str = "`tidegate crd | kubectl apply --server-side -f -`, or `helm upgrade`";
    let Some(definitions) = all.known("definitions", &facts.definitions) else { return };
    for Definition { name, is_established, is_current, older } in definitions {
        let subject = format!("definition {name}");
        if !is_established {
            all.say(Level::Fail, &subject, format!("it is not there: {REMEDY}"));
        } else if !is_current {
            all.say(
                Level::Warn,
                &subject,
                format!("its schema is not this version's ({}): {REMEDY}", env!("CARGO_PKG_VERSION")),
            );
        } else if older.is_empty() {
            all.say(Level::Ok, &subject, "as this version has it");
        } else {
            let text = format!("objects may still be stored as {}: `tidegate migrate --apply`", older.join(", "));
            all.say(Level::Warn, &subject, text);
        }
    }
}

fn hold(all: &mut Findings, facts: &Facts) {
    let subject = "hold of changed workloads";
    let Some(Policies { there, wanted, other }) = all.known(subject, &facts.policies) else { return };
    let by_webhook = facts.holding.as_ref().is_ok_and(|w| w.is_there);
    match (*there, by_webhook) {
        (there, _) if there >= *wanted && !other.is_empty() => {
            let text = format!(
                "{} of {there} admission policies and bindings are not this version's, {} first: `tidegate policy | kubectl apply --server-side -f -`, or `helm upgrade`",
                other.len(),
                other.first().map(String::as_str).unwrap_or_default()
            );
            all.say(Level::Warn, subject, text);
        }
        (0, true) => all.say(Level::Ok, subject, "by webhooks: while no replica runs, changes of managed workloads are refused"),
        (there, _) if there >= *wanted => all.say(Level::Ok, subject, format!("by {there} admission policies of the API server")),
        (0, false) => all.say(
            Level::Fail,
            subject,
            "nothing holds them: `tidegate policy | kubectl apply -f -` (Kubernetes 1.36 and later), or the webhooks of `tidegate webhooks`",
        ),
        (there, _) => {
            let text = format!("only {there} of {wanted} policies and bindings are there: `tidegate policy | kubectl apply -f -`, or `helm upgrade`");
            all.say(Level::Fail, subject, text);
        }
    }
}

fn webhooks(all: &mut Findings, facts: &Facts) {
    let of = [
        ("webhooks that hold", &facts.holding, None),
        (
            "webhook that validates",
            &facts.validating,
            Some("what the schema cannot say is not refused, and nobody's authority is asked for"),
        ),
        ("webhook that names approvers", &facts.approvers, Some("nobody is named who approves")),
    ];
    let mut is_validated = false;
    for (subject, read, without) in of {
        let Some(found) = all.known(subject, read) else { continue };
        match (found.is_there, without) {
            (false, None) => {}
            (false, Some(without)) => all.say(Level::Warn, subject, format!("it is not there, so {without}")),
            (true, _) if !found.untrusted.is_empty() => {
                let text = format!(
                    "{} without a caBundle: the controller sets it; look at its log and its right to patch the configuration",
                    found.untrusted.join(", ")
                );
                all.say(Level::Fail, subject, text);
            }
            (true, _) => {
                is_validated |= subject == "webhook that validates";
                all.say(Level::Ok, subject, "configured");
            }
        }
    }
    if is_validated {
        match &facts.answer {
            Ok(()) => all.say(Level::Ok, "webhooks answer", "a Rollout that has to be refused is refused (a dry run)"),
            Err(why) => all.say(
                Level::Fail,
                "webhooks answer",
                format!("{why}: look at the Service, its endpoints, and network policies"),
            ),
        }
    }
    match &facts.conversion {
        None => {}
        Some(Ok(())) => all.say(Level::Ok, "webhook that converts", "Rollouts can be read as v1alpha1"),
        Some(Err(why)) => all.say(
            Level::Fail,
            "webhook that converts",
            format!(
                "Rollouts cannot be read as v1alpha1: {why}: look at spec.conversion of definition rollouts.rollouts.kruise.io, \
                 its Service and endpoints"
            ),
        ),
    }
}

fn certificate(all: &mut Findings, facts: &Facts) {
    let subject = "serving certificate";
    let Some(end) = all.known(subject, &facts.certificate) else { return };
    let Some(end) = end else { return };
    let left = end.duration_since(facts.now);
    let days = left.as_hours() / 24;
    match left {
        left if left <= SignedDuration::ZERO => {
            all.say(Level::Fail, subject, format!("it has ended at {end}: look at the controller's log"))
        }
        left if left < SOON => all.say(
            Level::Warn,
            subject,
            format!("it ends in {days} days and was not renewed: look at the controller's log"),
        ),
        _ => all.say(Level::Ok, subject, format!("good for {days} days")),
    }
}

fn leaders(all: &mut Findings, facts: &Facts) {
    let subject = "leader";
    if let Some(leaders) = all.known(subject, &facts.leaders) {
        let live: Vec<&Leader> = leaders.iter().filter(|l| !l.holder.is_empty() && l.age < l.lasts).collect();
        let foreign: Vec<&&Leader> = live.iter().filter(|l| !adopt::is_ours(&l.holder)).collect();
        let name = |l: &Leader| format!("{} in namespace {}", l.holder, l.namespace);
        match (live.as_slice(), foreign.as_slice()) {
            (_, [foreign, ..]) => all.say(
                Level::Fail,
                subject,
                format!("{} is OpenKruise Rollouts: only one of the two acts, by the common Lease; scale its manager to 0, then `tidegate adopt`", name(foreign)),
            ),
            ([], _) => all.say(Level::Fail, subject, "nobody leads, so no release moves: look at the controller's pods"),
            ([one], _) => all.say(Level::Ok, subject, name(one)),
            ([one, two, ..], _) => all.say(
                Level::Fail,
                subject,
                format!("{} and {} both lead, by Leases of their own: let one of the two installations go", name(one), name(two)),
            ),
        }
    }
    if let Some(originals) = all.known("other controllers", &facts.originals) {
        match originals.first() {
            None => all.say(Level::Ok, "other controllers", "none of OpenKruise Rollouts"),
            Some(first) => {
                let text = format!("{first} runs OpenKruise Rollouts beside: scale it to 0, then `tidegate adopt`");
                all.say(Level::Fail, "other controllers", text);
            }
        }
    }
    if let Some(begun) = all.known("releases of OpenKruise Rollouts", &facts.begun)
        && let Some(first) = begun.first()
    {
        let text = format!("{} begun and not taken over, {first} first: `tidegate adopt -A`", begun.len());
        all.say(Level::Fail, "releases of OpenKruise Rollouts", text);
    }
}

fn used(all: &mut Findings, facts: &Facts) {
    let Some(used) = all.known("kinds in use", &facts.used) else { return };
    for Used { kind, by, place, is_served, lacking, script, mistake } in used {
        let subject = format!("{kind} ({by})");
        let mut is_good = true;
        let mut say = |level, text: String| {
            is_good = false;
            all.say(level, &subject, text);
        };
        if !is_served {
            say(Level::Fail, "the API server does not serve this kind: install it, or change who names it".to_owned());
        }
        match lacking {
            Err(why) => say(Level::Warn, format!("the controller's rights are not known: {why}")),
            Ok(verbs) if !verbs.is_empty() => {
                let is_elsewhere = !place.is_empty();
                let place = if is_elsewhere { format!(" in namespace {place}") } else { String::new() };
                let remedy = match kind.as_str() {
                    "batch/CronJob" | "batch/Job" => {
                        "set the chart's value `jobs.enabled`, or apply `tidegate rbac --jobs`".to_owned()
                    }
                    "ConfigMap" => {
                        "apply `tidegate rbac --namespace-scripts`, or set the chart's value `namespaceScripts`"
                            .to_owned()
                    }
                    _ if is_elsewhere && is_built_in(kind) => {
                        "bind ClusterRole tidegate there, as `helm upgrade` or `tidegate rbac` does".to_owned()
                    }
                    _ => format!("`tidegate rbac --for {kind}` prints what to grant"),
                };
                say(Level::Fail, format!("the controller may not {} it{place}: {remedy}", verbs.join(", ")));
            }
            Ok(_) => {}
        }
        if let Some(None) = script {
            let text = "there is no script for this kind: add one to the controller's ConfigMap kruise-rollout-configuration (docs/scripts.md)";
            say(Level::Fail, text.to_owned());
        }
        if let Some(mistake) = mistake {
            let text = format!("its script does not work: {mistake}; mend it (`tidegate lua lint`)");
            say(Level::Fail, text);
        }
        if is_good {
            let whose = script.flatten().map(|whose| format!(", by the {whose} script")).unwrap_or_default();
            all.say(Level::Ok, &subject, format!("served, with the rights that it needs{whose}"));
        }
    }
}

/// Whether the controller's own role names a kind.
fn is_built_in(kind: &str) -> bool {
    let (group, kind) = kind.rsplit_once('/').unwrap_or(("", kind));
    workload::KINDS.iter().any(|known| (known.group, known.kind) == (group, kind))
        || Library::kinds().contains(&(group.to_owned(), kind.to_owned()))
        || [("", "Service"), ("networking.k8s.io", "Ingress")].contains(&(group, kind))
}

#[cfg(test)]
mod tests;
