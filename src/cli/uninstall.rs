//! `tidegate uninstall`: whether the controller may go. Without it a workload in the middle of a release stays where it
//! is, so the chart asks before `helm uninstall` takes anything away.

mod finalizers;

use std::{collections::BTreeSet, fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::bail;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery,
};
use serde_json::{Value, json};

use super::{
    client::{self, KubeArgs, explain, list_in},
    duration,
};
use crate::{
    api::{
        conditions::phases,
        keys::IN_PROGRESSING,
        object::{self, text},
        v1alpha1::TrafficRouting,
        v1beta1::Rollout,
    },
    rollout::is_releasing,
    workload::{
        self,
        hold::{ANY, RELEASED, rules},
        like,
    },
};

/// What becomes of releases that are going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnRelease {
    /// Nothing: the command fails and says which they are.
    Refuse,
    /// They are let go as if their Rollouts were disabled: routes are restored, and the new version rolls out by itself.
    Finish,
}

/// Arguments of `tidegate uninstall`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What becomes of releases that are going on
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_release: OnRelease,
    /// How long to wait until the controller has let them go
    #[arg(long, value_name = "DURATION", default_value = "4m", value_parser = duration::parse)]
    timeout: Duration,
    /// Namespaces of the Rollouts that the controller works on [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Then take the controller's finalizers off Rollouts and TrafficRoutings, so that these can be deleted without it. No
    /// controller leads from then on for two minutes
    #[arg(long)]
    remove_finalizers: bool,
    /// Namespace of the controller's Lease
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "kruise-rollout")]
    controller_namespace: String,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Between two looks at releases that are being let go.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the command. Exit code 1: the controller is still needed.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, _) = client::connect(&args.kube).await?;
        println!("{}", leave(&client, &args.namespaces, args.on_release, args.timeout).await?);
        if args.remove_finalizers {
            println!("{}", let_delete(&client, &args.namespaces, &args.controller_namespace).await?);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What would be left half done.
#[derive(Debug, Default)]
struct Unfinished {
    /// Rollouts in the middle of a release, or being deleted, as they are stored.
    rollouts: Vec<Value>,
    /// TrafficRoutings whose routes are not as they were, by namespace and name.
    routings: BTreeSet<String>,
    /// Workloads that are held, by kind, namespace and name: of such a Rollout, or of none any more.
    workloads: BTreeSet<String>,
}

impl Unfinished {
    fn is_empty(&self) -> bool {
        self.rollouts.is_empty() && self.routings.is_empty() && self.workloads.is_empty()
    }

    fn text(&self) -> String {
        let mut lines = String::new();
        for rollout in &self.rollouts {
            let (namespace, name) = (object::namespace(rollout), object::name(rollout));
            let _ = write!(lines, "\n  Rollout {namespace}/{name}: {}", text(rollout, &["status", "phase"]));
            if object::is_deleting(rollout) {
                lines.push_str(", it is being deleted");
                continue;
            }
            let step = object::int(rollout, &["status", "currentStepIndex"]).unwrap_or_default();
            let _ = write!(lines, " at step {step}, {}", text(rollout, &["status", "currentStepState"]));
        }
        for routing in &self.routings {
            let _ = write!(lines, "\n  TrafficRouting {routing}: its routes are not put back yet");
        }
        for workload in &self.workloads {
            let _ = write!(lines, "\n  {workload} is held");
        }
        lines
    }
}

/// Looks in these namespaces, or in all if none is given, lets go if that is asked for, and says what was done.
///
/// # Errors
/// When something would be left half done, or the API server gives no answer.
pub async fn leave(
    client: &Client,
    namespaces: &[String],
    on_release: OnRelease,
    timeout: Duration,
) -> anyhow::Result<String> {
    let mut left = unfinished(client, namespaces).await?;
    if left.is_empty() {
        return Ok("no release is going on and no workload is held: the controller may go".to_owned());
    }
    if on_release == OnRelease::Refuse {
        bail!(
            "without the controller these would stay where they are:{}\nLet the releases end or roll them back, or let go \
             of them by `tidegate uninstall --on-release finish`; then uninstall again",
            left.text()
        );
    }
    let goes_on = |r: &&Value| !object::is_deleting(r) && object::at(r, &["spec", "disabled"]) != Some(&json!(true));
    let disabled: Vec<Value> = left.rollouts.iter().filter(goes_on).cloned().collect();
    for rollout in &disabled {
        disable(client, rollout, json!(true)).await?;
    }
    let begin = tokio::time::Instant::now();
    while !left.is_empty() && begin.elapsed() < timeout {
        tokio::time::sleep(PAUSE).await;
        left = unfinished(client, namespaces).await?;
    }
    // Whoever installs a controller again must find them as they were.
    for rollout in &disabled {
        let before = object::at(rollout, &["spec", "disabled"]).cloned().unwrap_or_default();
        disable(client, rollout, before).await?;
    }
    if !left.is_empty() {
        bail!(
            "within {} s the controller has not let go of:{}\nIs it running? Its conditions say what it waits for",
            timeout.as_secs(),
            left.text()
        );
    }
    Ok(format!("{} releases were let go: the controller may go", disabled.len()))
}

/// Takes the controller's finalizers off, and says how many.
///
/// # Errors
/// When something has begun meanwhile, a controller works without leader election, or the API server gives no answer.
pub async fn let_delete(client: &Client, namespaces: &[String], lease_in: &str) -> anyhow::Result<String> {
    let removed = finalizers::remove(client, namespaces, lease_in).await?;
    Ok(format!("{removed} objects had this controller's finalizer: they can be deleted without it now"))
}

fn rollouts() -> ApiResource {
    ApiResource::erase::<Rollout>(&())
}

fn routings() -> ApiResource {
    ApiResource::erase::<TrafficRouting>(&())
}

async fn list(client: &Client, resource: &ApiResource, namespaces: &[String]) -> anyhow::Result<Vec<Value>> {
    let found = list_in(client, resource, namespaces).await;
    found.map_err(|e| anyhow::anyhow!("{} of {}: {}", resource.plural, resource.api_version, explain(&e)))
}

async fn disable(client: &Client, rollout: &Value, disabled: Value) -> anyhow::Result<()> {
    let (namespace, name) = (object::namespace(rollout), object::name(rollout));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &rollouts());
    // Only of the object that was looked at.
    let patch = json!({"metadata": {"uid": object::uid(rollout)}, "spec": {"disabled": disabled}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(error) => bail!("Rollout {namespace}/{name}: {}", explain(&error)),
    }
}

async fn unfinished(client: &Client, namespaces: &[String]) -> anyhow::Result<Unfinished> {
    let mut left = Unfinished { rollouts: list(client, &rollouts(), namespaces).await?, ..Unfinished::default() };
    for resource in kinds(client, &left.rollouts).await? {
        for held in list(client, &resource, namespaces).await? {
            if object::annotation(&held, IN_PROGRESSING)
                .is_some_and(|mark| !mark.is_empty() && !mark.contains(RELEASED))
            {
                let (namespace, name) = (object::namespace(&held), object::name(&held));
                left.workloads.insert(format!("{}.{} {namespace}/{name}", resource.plural, resource.group));
            }
        }
    }
    let is_in_the_middle = |r: &Value| serde_json::from_value::<Rollout>(r.clone()).is_ok_and(|r| is_releasing(&r));
    left.rollouts.retain(|r| finalizers::holds(r) || is_in_the_middle(r));
    for routing in list(client, &routings(), namespaces).await? {
        let is_changed = [phases::PROGRESSING, phases::FINALIZING].contains(&text(&routing, &["status", "phase"]));
        if is_changed || finalizers::holds(&routing) {
            left.routings.insert(format!("{}/{}", object::namespace(&routing), object::name(&routing)));
        }
    }
    Ok(left)
}

/// The kinds that may be held: those that are known by name, and others that Rollouts name, as far as they are served.
async fn kinds(client: &Client, rollouts: &[Value]) -> anyhow::Result<Vec<ApiResource>> {
    let known = rules().filter(|rule| rule.resource != ANY).map(|rule| {
        let kind = GroupVersionKind::gvk(rule.group, rule.version, rule.resource);
        ApiResource::from_gvk_with_plural(&kind, rule.resource)
    });
    let mut kinds: Vec<ApiResource> = known.collect();
    let named: BTreeSet<(&str, &str)> = rollouts
        .iter()
        .map(|r| ["apiVersion", "kind"].map(|field| text(r, &["spec", "workloadRef", field])))
        .map(|[api_version, kind]| (api_version, kind))
        .collect();
    for (api_version, kind) in named {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if workload::kind(group, kind).is_none_or(|row| *row != like::KIND) {
            continue;
        }
        match discovery::pinned_kind(client, &GroupVersionKind::gvk(group, version, kind)).await {
            Ok((resource, _)) => kinds.push(resource),
            Err(kube::Error::Discovery(_)) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => bail!("{kind} of {api_version}: {}", explain(&error)),
        }
    }
    Ok(kinds)
}
