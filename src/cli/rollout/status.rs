//! `rollout status`: follows a release until it ends.

use std::{cell::RefCell, time::Duration};

use futures::{StreamExt as _, future::join_all, pin_mut};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use tokio::time::Instant;

use super::{
    output::Io,
    resources::{self, RESOURCE},
    table::{cell, one_line},
    view::View,
};
use crate::{
    api::{
        conditions::{self, StepState, phases, types},
        keys,
        v1beta1::WorkloadRef,
    },
    cli::duration,
};

/// Arguments of `rollout status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Args {
    /// rollout/NAME, or rollout NAME; several at once
    #[arg(required = true, value_name = "RESOURCE")]
    pub resources: Vec<String>,
    /// Go on until the release ends; `--watch=false` prints once
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub watch: bool,
    /// What to wait for
    #[arg(long, value_name = "WHAT", default_value = "completed")]
    pub until: Until,
    /// Give up after this time, such as 90s or 10m; 0 never
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// The release is over.
    #[default]
    Completed,
    /// The next step that waits, or the end of the release.
    Paused,
}

/// What a state means to one who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not there yet.
    Wait,
    /// There.
    Done(String),
    /// It will not come by itself.
    Failed(String),
}

/// Judges a state. `is_captured`: the workload holds a change that no release has taken up yet.
pub fn verdict(view: &View<'_>, until: Until, is_captured: bool) -> Verdict {
    if view.rollout.metadata.deletion_timestamp.is_some() || view.phase == phases::TERMINATING {
        return Verdict::Failed("the rollout is being deleted".to_owned());
    }
    if is_unseen(view) {
        return Verdict::Wait;
    }
    match view.phase {
        phases::DISABLED => {
            Verdict::Failed("the rollout is disabled; set spec.disabled to false to use it again".to_owned())
        }
        phases::HEALTHY if is_captured => Verdict::Wait,
        phases::HEALTHY => {
            let succeeded = conditions::find(view.conditions, types::SUCCEEDED);
            if succeeded.is_some_and(|c| c.status == "False") {
                return Verdict::Failed("the release was cancelled; the stable version serves all requests".to_owned());
            }
            let revision = view.release.map(|r| r.canary_revision).filter(|r| !r.is_empty());
            Verdict::Done(match revision {
                Some(revision) => format!("released (revision {revision})"),
                None => "nothing to release".to_owned(),
            })
        }
        phases::PROGRESSING if until == Until::Paused && view.is_paused() => {
            Verdict::Done(format!("paused at step {}", view.step_of()))
        }
        _ => Verdict::Wait,
    }
}

/// The status is that of an older spec.
fn is_unseen(view: &View<'_>) -> bool {
    let observed = view.rollout.status.as_ref().and_then(|s| s.observed_generation);
    view.phase.is_empty() || observed.zip(view.rollout.metadata.generation).is_some_and(|(seen, is)| seen < is)
}

/// A state in one line: where the release is, what it waits for, and what would move it.
pub fn line(view: &View<'_>, is_captured: bool, program: &str) -> String {
    let mut text = format!("rollout/{}: ", view.name);
    if is_unseen(view) {
        text.push_str("waiting for the controller to see it");
        return text;
    }
    match view.release.filter(|_| view.phase == phases::PROGRESSING) {
        Some(release) if view.is_cancelling() => {
            text.push_str("cancelling");
            if !release.finalising_step.is_empty() {
                text.push_str(&format!(" ({})", release.finalising_step));
            }
        }
        Some(release) if view.state() == Some(StepState::Completed) => {
            text.push_str(&format!("step {} done, finishing", view.step_of()));
            if !release.finalising_step.is_empty() {
                text.push_str(&format!(" ({})", release.finalising_step));
            }
        }
        Some(release) => {
            text.push_str(&format!("step {} {}", cell(&view.step_of()), cell(release.state)));
            match view.share().as_str() {
                "" => {}
                "match" => text.push_str(", matching requests"),
                share => text.push_str(&format!(", {share} of requests")),
            }
            text.push_str(&format!(", {}/{} canary pods ready", release.ready, release.replicas));
        }
        None => text.push_str(view.phase),
    }
    if !view.message.is_empty() {
        text.push_str(&format!(": {}", view.message));
    }
    if let Some(stalled) = view.stalled() {
        text.push_str(&format!("; stalled ({}): {}", stalled.reason, stalled.message));
    }
    if is_captured && view.phase == phases::HEALTHY {
        text.push_str("; a change is held and waits for the controller");
    }
    if view.is_frozen() && view.phase == phases::PROGRESSING {
        text.push_str("; frozen by spec.strategy.paused");
    }
    if view.needs_approval() {
        text.push_str(&format!("; approve with: {program} rollout approve rollout/{}", view.name));
        if !view.namespace.is_empty() {
            text.push_str(&format!(" -n {}", view.namespace));
        }
    }
    one_line(&text)
}

/// Follows all of the Rollouts at once. True when all ended well.
///
/// # Errors
/// A wrong command line, or a closed output.
pub async fn run(args: &Args, client: Client, namespace: &str, io: &mut Io<'_>) -> anyhow::Result<bool> {
    let names = resources::some_names(&args.resources)?;
    let io = RefCell::new(io);
    let deadline = Some(args.timeout).filter(|t| !t.is_zero()).and_then(|t| Instant::now().checked_add(t));
    let results = join_all(names.iter().map(|name| {
        let follower = Follower { client: &client, namespace, name, args, io: &io };
        async move {
            let mut last = String::new();
            let result = match deadline {
                None => follower.follow(&mut last).await,
                Some(deadline) => match tokio::time::timeout_at(deadline, follower.follow(&mut last)).await {
                    Ok(result) => result,
                    Err(_) => Err(follower.timed_out(&last)),
                },
            };
            match result {
                Err(error) if error.is::<std::io::Error>() => Err(error),
                Err(error) => {
                    follower.io.borrow_mut().note(&format!("error: {error:#}"))?;
                    Ok(false)
                }
                Ok(()) => Ok(true),
            }
        }
    }))
    .await;
    results.into_iter().try_fold(true, |all, one| one.map(|one| all && one))
}

struct Follower<'a, 'b> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    args: &'a Args,
    io: &'a RefCell<&'a mut Io<'b>>,
}

impl Follower<'_, '_> {
    /// Ends well with `Ok`; `last` is the line that was printed last.
    async fn follow(&self, last: &mut String) -> anyhow::Result<()> {
        let api = resources::api(self.client, self.namespace);
        let first = api.get(self.name).await.map_err(|e| resources::failure(&e, self.namespace, self.name))?;
        if self.observe(&first, last).await? || !self.args.watch {
            return Ok(());
        }
        self.watch(api, last).await
    }

    async fn watch(&self, api: Api<DynamicObject>, last: &mut String) -> anyhow::Result<()> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let events = watcher::watcher(api, config).default_backoff();
        pin_mut!(events);
        let (mut is_troubled, mut is_listed) = (false, false);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => is_listed = false,
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    (is_listed, is_troubled) = (true, false);
                    if self.observe(&object, last).await? {
                        return Ok(());
                    }
                }
                Ok(Event::InitDone) if is_listed => {}
                Ok(Event::InitDone | Event::Delete(_)) => {
                    anyhow::bail!("{RESOURCE} {:?} was deleted", self.name);
                }
                Err(error) => {
                    if let Some(error) = super::fatal(&error) {
                        return Err(resources::failure(error, self.namespace, self.name));
                    }
                    if !std::mem::replace(&mut is_troubled, true) {
                        self.io.borrow_mut().note(&super::trouble(&error))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Prints what is new; true when there is nothing left to wait for.
    async fn observe(&self, object: &DynamicObject, last: &mut String) -> anyhow::Result<bool> {
        let rollout = resources::typed(object)?;
        let view = View::of(&rollout);
        let is_captured = view.phase == phases::HEALTHY && self.is_captured(view.workload).await;
        let line = line(&view, is_captured, self.io.borrow().program);
        if *last != line {
            self.io.borrow_mut().print(&format!("{line}\n"))?;
            *last = line;
        }
        match verdict(&view, self.args.until, is_captured) {
            Verdict::Wait => Ok(false),
            Verdict::Done(text) => {
                if self.args.watch {
                    self.io.borrow_mut().print(&format!("rollout/{} {text}\n", self.name))?;
                }
                Ok(true)
            }
            Verdict::Failed(why) => anyhow::bail!("{RESOURCE} {:?}: {why}", self.name),
        }
    }

    /// A change that the API server holds is not in the Rollout's status until the controller saw it. Who may not read
    /// the workload does without.
    async fn is_captured(&self, workload: Option<&WorkloadRef>) -> bool {
        let Some(workload) = workload else { return false };
        let Ok(gvk) = gvk(workload) else { return false };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), self.namespace, &ApiResource::from_gvk(&gvk));
        let Ok(object) = api.get(&workload.name).await else { return false };
        object.metadata.annotations.is_some_and(|a| a.contains_key(keys::IN_PROGRESSING))
    }

    fn timed_out(&self, last: &str) -> anyhow::Error {
        let at = if last.is_empty() { "no answer from the API server yet" } else { last };
        anyhow::anyhow!("timed out after {} s; {at}", self.args.timeout.as_secs_f64())
    }
}

/// The kind that a workloadRef names.
pub(super) fn gvk(workload: &WorkloadRef) -> Result<GroupVersionKind, kube::core::gvk::ParseGroupVersionError> {
    let version: kube::core::gvk::GroupVersion = workload.api_version.parse()?;
    Ok(version.with_kind(&workload.kind))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::view::fixtures::*, *};

    fn healthy(succeeded: Option<bool>) -> Value {
        let conditions: Vec<Value> = succeeded
            .into_iter()
            .map(|s| json!({"type": "Succeeded", "status": if s { "True" } else { "False" }, "reason": "", "message": ""}))
            .collect();
        with(
            at(2, "Completed"),
            &json!({"status": {"phase": "Healthy", "message": "rollout is healthy", "conditions": conditions}}),
        )
    }

    #[test]
    fn verdicts() {
        use Until::{Completed, Paused};
        let done = |text: &str| Verdict::Done(text.to_owned());
        let disabled = with(at(1, "StepPaused"), &json!({"status": {"phase": "Disabled"}}));
        let fresh = with(at(1, "StepPaused"), &json!({"status": null}));
        let unseen = with(healthy(Some(true)), &json!({"metadata": {"generation": 2}}));
        for (name, value, until, is_captured, expected) in [
            ("paused", at(1, "StepPaused"), Completed, false, Verdict::Wait),
            ("paused", at(1, "StepPaused"), Paused, false, done("paused at step 1/2")),
            ("busy", at(1, "StepUpgrade"), Paused, false, Verdict::Wait),
            ("finishing", at(2, "Completed"), Completed, false, Verdict::Wait),
            ("over", healthy(Some(true)), Completed, false, done("released (revision rev2)")),
            ("over", healthy(Some(true)), Paused, false, done("released (revision rev2)")),
            ("held", healthy(Some(true)), Completed, true, Verdict::Wait),
            ("first", healthy(None), Completed, false, done("released (revision rev2)")),
            ("fresh", fresh, Completed, false, Verdict::Wait),
            ("unseen", unseen, Completed, false, Verdict::Wait),
        ] {
            assert_eq!(verdict(&View::of(&typed(&value)), until, is_captured), expected, "{name} {until:?}");
        }
        for (value, part) in [(healthy(Some(false)), "cancelled"), (disabled, "spec.disabled")] {
            let verdict = verdict(&View::of(&typed(&value)), Completed, false);
            assert!(matches!(&verdict, Verdict::Failed(why) if why.contains(part)), "{verdict:?}");
        }
    }

    #[test]
    fn lines() {
        let stalled = with(
            at(2, "StepTrafficRouting"),
            &json!({"status": {"conditions": [
            {"type": "Stalled", "status": "True", "reason": "ScriptFailed", "message": "line 3:\nnil"}]}}),
        );
        let frozen = with(at(2, "StepUpgrade"), &json!({"spec": {"strategy": {"paused": true}}}));
        let cancelling = with(
            at(1, "StepPaused"),
            &json!({"status": {"message": "", "conditions": [
            {"type": "Progressing", "status": "True", "reason": "Cancelling", "message": ""}],
            "canaryStatus": {"finalisingStep": "ResumeWorkload"}}}),
        );
        for (value, is_captured, expected) in [
            (
                at(1, "StepPaused"),
                false,
                "rollout/rollouts-demo: step 1/2 StepPaused, 20% of requests, 1/1 canary pods ready: Rollout is in step(1/2); approve with: kubectl-kruise rollout approve rollout/rollouts-demo -n shop",
            ),
            (
                stalled,
                false,
                "rollout/rollouts-demo: step 2/2 StepTrafficRouting, 20% of requests, 1/1 canary pods ready: Rollout is in step(2/2); stalled (ScriptFailed): line 3: nil",
            ),
            (
                frozen,
                false,
                "rollout/rollouts-demo: step 2/2 StepUpgrade, 20% of requests, 1/1 canary pods ready: Rollout is in step(2/2); frozen by spec.strategy.paused",
            ),
            (cancelling, false, "rollout/rollouts-demo: cancelling (ResumeWorkload)"),
            (healthy(Some(true)), false, "rollout/rollouts-demo: Healthy: rollout is healthy"),
            (
                healthy(Some(true)),
                true,
                "rollout/rollouts-demo: Healthy: rollout is healthy; a change is held and waits for the controller",
            ),
            (
                with(at(1, ""), &json!({"status": null})),
                false,
                "rollout/rollouts-demo: waiting for the controller to see it",
            ),
        ] {
            assert_eq!(line(&View::of(&typed(&value)), is_captured, "kubectl-kruise"), expected);
        }
    }
}
