//! Plays one script on a cluster of its own, in virtual time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    deeds::People,
    judges::{self, Bench, Court, Violation, is_over, judge_end, sit},
    metrics_server::MetricsServer,
    process::{CONTROLLER, Mind, Processes},
    script::{Kind, Script, State, When},
    timeline,
    world::{self, Eyes, is_ready},
};
use crate::{
    api::object::{at, text},
    sim::{Clock, Cluster},
};

/// A release whose people have done their part ends within this time.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Events that wait for a state which never comes are given up so long after the last one with a time.
const HOPE: Duration = Duration::from_secs(90);
/// What people still have to do is given up so long after that: it waits for something that never comes.
const DESPAIR: Duration = Duration::from_secs(4 * 3600);
/// From the end of all faults until whatever waits for a retry has had its time.
const CALM: Duration = Duration::from_secs(120);
/// How long nothing may happen at the end.
const IDLE: Duration = Duration::from_secs(900);

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
    let server = MetricsServer::new(cluster.clock(), script.setup.barriers.metric, script.seed);
    let bench = Court::new(eyes.clone(), &script.setup, server.clone(), lines.is_some());
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
        max_in_flight: script.setup.barriers.is_limited.then_some(1),
        server: server.clone(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    let mut director = Director {
        people: People::new(&cluster, &bench, &processes, script),
        cluster: cluster.clone(),
        bench: bench.clone(),
        eyes,
        processes: processes.clone(),
        script,
        curtain: Instant::now(),
        waits: script.events.iter().map(|_| None).collect(),
        done: script.events.iter().map(|_| false).collect(),
        states: BTreeMap::new(),
    };
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
    ];
    for name in &court.record.met {
        exercised.insert(*name, 1);
    }
    for (name, count) in server.counts() {
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

struct Director<'a> {
    people: People,
    cluster: Cluster,
    bench: Bench,
    eyes: Eyes,
    processes: Processes,
    script: &'a Script,
    curtain: Instant,
    /// When each event is due, once that is known.
    waits: Vec<Option<Instant>>,
    done: Vec<bool>,
    states: BTreeMap<(&'static str, &'static str), u64>,
}

impl Director<'_> {
    async fn wait_for_pods(&self) {
        let wanted = usize::try_from(self.script.setup.replicas).unwrap_or_default();
        while self.eyes.pods().iter().filter(|p| is_ready(p)).count() < wanted {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn accuse(&self, judge: &'static str, what: String) {
        sit(&self.bench).accuse(judge, what, self.cluster.clock().now());
    }

    fn is_broken(&self) -> bool {
        sit(&self.bench).violation.is_some()
    }

    async fn direct(&mut self) -> anyhow::Result<()> {
        {
            let mut court = sit(&self.bench);
            court.record.is_open = true;
            court.record.stable = world::name_of(&world::Version::FIRST);
            court.record.wanted = court.record.stable.clone();
        }
        self.people.begin()?;
        let limit = Instant::now() + Duration::from_secs(120);
        while self.state().0 != State::Idle {
            if self.is_broken() {
                return Ok(());
            }
            if Instant::now() > limit {
                self.accuse("liveness", format!("the Rollout is not healthy: {}", self.status()));
                return Ok(());
            }
            self.next_ring(Instant::now() + Duration::from_secs(1)).await;
        }
        self.curtain = Instant::now();
        self.people.start();
        self.play_events().await;
        if self.is_broken() {
            return Ok(());
        }
        self.end().await;
        Ok(())
    }

    fn status(&self) -> String {
        self.eyes
            .rollout()
            .map_or_else(|| "there is none".to_owned(), |r| r.get("status").map(Value::to_string).unwrap_or_default())
    }

    /// State of the release, and its step.
    fn state(&self) -> (State, i64) {
        state_of(self.eyes.rollout().as_deref())
    }

    /// Until a Rollout is written, or a moment comes.
    async fn next_ring(&self, until: Instant) {
        let bell = sit(&self.bench).bell.clone();
        let _ = tokio::time::timeout_at(until, bell.notified()).await;
    }

    fn see(&mut self) {
        let now = Instant::now();
        let (state, step) = self.state();
        for (event, due) in self.script.events.iter().zip(&mut self.waits) {
            let at = match event.when {
                When::At(ms) => Some(self.curtain + Duration::from_millis(ms)),
                // A state before the first release is none that anybody waits for.
                When::In(wanted, of, ms) if wanted == state && (of == step || of == 0) && self.people.has_pushed => {
                    Some(now + Duration::from_millis(ms))
                }
                When::In(..) => None,
            };
            *due = due.or(at);
        }
    }

    /// Events that are due, in order of their moments.
    fn due(&self) -> Option<(usize, Instant)> {
        let open = self.waits.iter().zip(&self.done).enumerate().filter(|(_, (_, done))| !**done);
        open.filter_map(|(i, (due, _))| due.map(|d| (i, d))).min_by_key(|(i, d)| (*d, *i))
    }

    async fn play_events(&mut self) {
        let last = self.script.events.iter().filter_map(|e| match e.when {
            When::At(ms) => Some(ms),
            When::In(..) => None,
        });
        let hope = self.curtain + Duration::from_millis(last.max().unwrap_or(0)) + HOPE;
        let mut hope = hope;
        while !self.is_broken() {
            self.see();
            let now = Instant::now();
            if let Some((index, due)) = self.due()
                && due <= now
            {
                if let Some(done) = self.done.get_mut(index) {
                    *done = true;
                }
                if let Some(event) = self.script.events.get(index) {
                    let state = self.state().0;
                    if self.people.act(event.act).await {
                        *self.states.entry((event.act.kind.as_str(), state.as_str())).or_default() += 1;
                    }
                    hope = hope.max(Instant::now() + HOPE);
                }
                continue;
            }
            if self.people.do_next().await {
                continue;
            }
            let is_done = self.done.iter().all(|d| *d);
            if (is_done || now >= hope) && (!self.people.is_busy() || now >= hope + DESPAIR) {
                return;
            }
            let mut until = if now < hope { hope } else { now + Duration::from_secs(5) };
            for moment in [self.due().map(|(_, d)| d), self.people.next_due()].into_iter().flatten() {
                until = until.min(moment);
            }
            self.next_ring(until).await;
        }
    }

    /// Faults stop, people mend what they broke, approve what waits, and it must come to its end.
    async fn end(&mut self) {
        self.people.mend().await;
        let patience = Instant::now() + PATIENCE;
        let calm = Instant::now() + CALM;
        let ending = loop {
            if self.is_broken() {
                return;
            }
            while self.people.do_next().await {}
            let (ending, wanted) = (self.people.ending(), self.people.wanted());
            match is_over(&self.eyes, ending, &wanted) {
                Ok(()) if !self.people.is_busy() => break ending,
                Ok(()) => {}
                Err(why) if Instant::now() > patience => {
                    let judge = if self.people.has_approved_what_waits() { "8 a person's word" } else { "liveness" };
                    return self.accuse(judge, format!("it does not end: {why}; the status is {}", self.status()));
                }
                Err(_) => {}
            }
            let mut until = Instant::now() + Duration::from_secs(10);
            if let Some(due) = self.people.next_due() {
                until = until.min(due);
            }
            self.next_ring(until).await;
        };
        tokio::time::sleep_until(calm.max(Instant::now() + Duration::from_secs(10))).await;
        if self.is_broken() {
            return;
        }
        if let Err(what) = judge_end(&self.eyes, &self.people.originals, ending, &self.people.wanted()) {
            return self.accuse("4 restore is exact", what);
        }
        sit(&self.bench).record.is_calm = true;
        let before = (self.processes.requests.load(Ordering::Relaxed), self.cluster.writes());
        tokio::time::sleep(IDLE).await;
        let after = (self.processes.requests.load(Ordering::Relaxed), self.cluster.writes());
        if before != after {
            self.accuse(
                "12 idle costs nothing",
                format!("{} requests and {} writes after the end", after.0 - before.0, after.1 - before.1),
            );
        }
    }
}

/// State and step of a Rollout.
pub fn state_of(rollout: Option<&Value>) -> (State, i64) {
    let Some(rollout) = rollout else { return (State::Finalising, 0) };
    let status = |path: &[&str]| at(rollout, &["status"]).map(|s| text(s, path).to_owned()).unwrap_or_default();
    let step = crate::api::object::int(world::release(rollout), &["currentStepIndex"]).unwrap_or_default();
    match status(&["phase"]).as_str() {
        "Healthy" | "Disabled" => return (State::Idle, 0),
        "Progressing" if !judges::is_winding_up(rollout) => {}
        "" | "Initial" => return (State::Before, 0),
        _ => return (State::Finalising, step),
    }
    let state = match text(world::release(rollout), &["currentStepState"]) {
        "StepUpgrade" => State::Upgrade,
        "StepTrafficRouting" | "StepMetricsAnalysis" => State::Routing,
        "StepPaused" => State::Paused,
        "StepReady" => State::Ready,
        _ => State::Before,
    };
    (state, step)
}
