//! Plays one script on a cluster of its own, in virtual time.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    director::Director,
    hook_server::HookServer,
    judges::{Bench, Court, Violation, sit},
    metrics_server::MetricsServer,
    process::{CONTROLLER, Mind, Processes, Servers},
    script::{Kind, Managed, Script, Style},
    timeline,
    world::{self, Eyes},
};
use crate::sim::Clock;

/// What the last deeds ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A Rollout that is healthy.
    Healthy,
    /// A Rollout that is disabled.
    Disabled,
    /// No Rollout.
    Gone,
}

/// What came of a rehearsal.
#[derive(Debug)]
pub struct Outcome {
    /// What a judge saw.
    pub violation: Option<Violation>,
    /// The timeline, for people, if it was asked for.
    pub told: String,
    /// Moments and faults that happened, by their names.
    pub exercised: BTreeMap<&'static str, u64>,
    /// Moments and faults by the state of the release in which they happened.
    pub states: BTreeMap<(&'static str, &'static str), u64>,
    /// Committed writes, and those of the controller.
    pub writes: (u64, u64),
    /// Virtual time.
    pub took: Duration,
    /// The same for the same story.
    pub hash: u64,
}

/// Plays a script; `lines` of the timeline are told.
///
/// # Errors
/// When the cluster refuses what the script starts with.
pub fn rehearse(script: &Script, mind: &Mind, lines: Option<usize>) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(play(script, mind, lines))
}

async fn play(script: &Script, mind: &Mind, lines: Option<usize>) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let cluster = world::cluster(script)?;
    let start = cluster.clock().now();
    let eyes = Eyes::new(&cluster, &script.setup);
    let barriers = &script.setup.barriers;
    let servers = Servers {
        metrics: MetricsServer::new(cluster.clock(), barriers, script.seed),
        hooks: HookServer::new(barriers.hook, script.seed),
    };
    let bench = Court::new(eyes.clone(), &script.setup, servers.clone(), lines.is_some());
    cluster.on_write(Box::new({
        let bench = bench.clone();
        move |write| sit(&bench).hear(write)
    }));
    let processes = Processes {
        cluster: cluster.clone(),
        mind: mind.clone(),
        is_over: sit(&bench).is_over.clone(),
        skew: Arc::default(),
        away: Arc::new(AtomicU64::new(0)),
        requests: Arc::default(),
        history_limit: script.setup.keeps_history.then_some(2),
        max_in_flight: barriers.is_limited.then_some(1),
        servers: servers.clone(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    let mut director = Director::new(&cluster, &bench, eyes, &processes, script);
    director.wait_for_pods().await;
    tasks.spawn(processes.keep_running(script.seed));
    tasks.spawn(keep_watch(cluster.clock(), bench.clone()));
    let result = director.direct().await;
    tasks.shutdown().await;
    result?;
    let mut exercised = std::mem::take(&mut director.people.exercised);
    for ((who, fault), count) in cluster.fault_counts() {
        // A rule that struck nothing has tested nothing.
        if let (CONTROLLER, Some(kind)) = (&*who, fault_kind(fault)) {
            *exercised.entry(kind.as_str()).or_default() += count;
        }
    }
    let court = sit(&bench);
    let setup = &script.setup;
    let more = [
        (setup.is_slow, "slow-pods"),
        (setup.is_old_api, "v1alpha1"),
        (court.record.has_failed, "failed-step"),
        (court.record.has_rolled_back, "failed-step-rolled-back"),
        (court.record.has_history, "history"),
        (setup.workload == Managed::CloneSet && setup.style == Style::BlueGreen, "cloneset-blue-green"),
    ];
    for name in &court.record.met {
        exercised.insert(*name, 1);
    }
    for (name, count) in servers.metrics.counts().into_iter().chain(servers.hooks.counts()) {
        *exercised.entry(name).or_default() += count;
    }
    let stage = [setup.style.as_str(), setup.gateway.as_str(), setup.workload.as_str()];
    for name in more.into_iter().filter_map(|(is, name)| is.then_some(name)).chain(stage) {
        exercised.insert(name, 1);
    }
    Ok(Outcome {
        violation: court.violation.clone(),
        told: match (&court.writes, lines) {
            (Some(writes), Some(lines)) => timeline::tell(writes, &director.people.said, start, lines),
            _ => String::new(),
        },
        exercised,
        states: director.states,
        writes: (court.counts.0 as u64, court.counts.1 as u64),
        took: began.elapsed(),
        hash: court.hash,
    })
}

/// Looks every second while something happens, and whenever the gateway learns of something.
async fn keep_watch(clock: Clock, bench: Bench) {
    let news = sit(&bench).news.clone();
    loop {
        let next = sit(&bench).look(clock.now());
        let _ = tokio::time::timeout(next, news.notified()).await;
    }
}

/// The kind of a fault that the cluster counts by itself.
fn fault_kind(name: &str) -> Option<Kind> {
    use Kind::*;
    [
        ("conflict", Conflict),
        ("too-many-requests", TooManyRequests),
        ("internal-error", InternalError),
        ("timeout-before", TimeoutBefore),
        ("timeout-after", TimeoutAfter),
        ("latency", Latency),
        ("watch-delay", Stale),
        ("watch-repeat", Duplicate),
        ("crash", Crash),
    ]
    .into_iter()
    .find(|(known, _)| *known == name)
    .map(|(_, kind)| kind)
}

/// Kinds that count when they strike, not when they are planned.
pub fn strikes_later(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        Conflict | TooManyRequests | InternalError | TimeoutBefore | TimeoutAfter | Latency | Stale | Duplicate | Crash
    )
}
