//! Plays one case on a cluster of its own, in virtual time.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use tidegate::{
    apply::{Guard, guard::guard},
    cli::demo::world::CONTROLLER,
    controller::{self, CACHES, Decide, Options},
    rollout::decide,
    sim::{Cluster, Fault, Rng, Rule, Verb},
    telemetry::{Health, Metrics},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    case::Case,
    judges::{Court, Violation, is_over, judge_end},
    mutants,
    person::Person,
    timeline,
    wire::{self, Requests},
    world::{self, Eyes, REPLICAS},
};

/// How often people and judges look.
const TICK: Duration = Duration::from_millis(100);
/// A release whose people have done their part ends within this time, whatever the faults.
const PATIENCE: Duration = Duration::from_secs(2400);
/// How long nothing may happen at the end.
const IDLE: Duration = Duration::from_secs(600);

/// What came of a run.
pub struct Outcome {
    pub violation: Option<Violation>,
    /// The timeline, for people.
    pub told: String,
    /// Committed writes: all, and those of the controller by kind.
    pub writes: u64,
    pub controller_writes: BTreeMap<String, u64>,
    pub requests: Requests,
    /// Requests until the Rollout was healthy for the first time.
    pub first_requests: Requests,
    pub faults: BTreeMap<&'static str, u64>,
    pub virtual_time: Duration,
    /// The same for the same story.
    pub hash: u64,
}

impl Outcome {
    pub fn count(&self) -> u64 {
        self.controller_writes.values().sum()
    }
}

/// Plays a case.
pub fn run(case: &Case) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(play(case))
}

async fn play(case: &Case) -> Outcome {
    let began = Instant::now();
    let cluster = world::builder(case).build().expect("the cluster accepts the example");
    let start = cluster.clock().now();
    let is_calm = !case.faults && case.crashes.is_empty();
    let court = Court::new(Eyes::new(&cluster), is_calm);
    let requests = Arc::new(Mutex::new(Requests::new()));
    cluster.on_write(Box::new({
        let court = court.clone();
        move |write| court.lock().unwrap().hear(write)
    }));
    let mut tasks = tokio::task::JoinSet::new();
    if case.faults {
        add_faults(&cluster, case.seed);
        tasks.spawn(break_watches(cluster.clone(), case.seed));
    }
    tasks.spawn(keep_running(cluster.clone(), case.clone(), requests.clone(), court.lock().unwrap().is_over.clone()));

    let mut first_requests = Requests::new();
    story(case, &cluster, &court, &requests, &mut first_requests).await;
    tasks.shutdown().await;

    let court = court.lock().unwrap();
    let mut controller_writes = BTreeMap::new();
    for write in court.writes.iter().filter(|w| &*w.identity == CONTROLLER) {
        let subresource = write.subresource.map(|s| format!("/{s}")).unwrap_or_default();
        let name = format!("{} {}{subresource}", write.verb.as_str(), write.gvr.resource);
        *controller_writes.entry(name).or_default() += 1;
    }
    let counts = cluster.fault_counts();
    Outcome {
        violation: court.violation.clone(),
        told: timeline::tell(
            court.writes.get(court.prologue..).unwrap_or_default(),
            start,
            if std::env::var("TIMELINE").is_ok() { usize::MAX } else { 60 },
        ),
        writes: cluster.writes(),
        controller_writes,
        requests: requests.lock().unwrap().clone(),
        first_requests,
        faults: counts.into_iter().filter(|((who, _), _)| &**who == CONTROLLER).map(|((_, f), n)| (f, n)).collect(),
        virtual_time: began.elapsed(),
        hash: hash(&court),
    }
}

fn hash(court: &Court) -> u64 {
    let mut hasher = DefaultHasher::new();
    for write in &court.writes {
        // Events are named by the wall clock.
        let name = if write.gvr.resource == "events" { "" } else { &write.name };
        (&*write.identity, write.verb, &write.gvr.resource, name, write.time.as_nanosecond()).hash(&mut hasher);
    }
    hasher.finish()
}

async fn story(
    case: &Case,
    cluster: &Cluster,
    court: &Arc<Mutex<Court>>,
    requests: &Arc<Mutex<Requests>>,
    first: &mut Requests,
) {
    let eyes = Eyes::new(cluster);
    let accuse = |judge, what: String| court.lock().unwrap().accuse(judge, what, cluster.clock().now());
    let is_broken = || court.lock().unwrap().violation.is_some();
    while eyes.pods().iter().filter(|p| world::is_ready(p)).count() < REPLICAS {
        tokio::time::sleep(TICK).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut person = Person::new(cluster, case);
    court.lock().unwrap().open();
    person.begin();
    person.acted = Instant::now();
    let is_healthy = || eyes.rollout().is_some_and(|r| r["status"]["phase"] == "Healthy");
    while !is_healthy() && !is_broken() && person.acted.elapsed() < PATIENCE {
        tokio::time::sleep(TICK).await;
    }
    *first = requests.lock().unwrap().clone();
    person.start();
    while !is_broken() {
        if person.is_done() && is_over(&eyes, person.ending, person.wanted) {
            break;
        }
        if person.acted.elapsed() > PATIENCE {
            let rollout = eyes.rollout();
            let status = rollout.as_ref().map(|r| r["status"].to_string()).unwrap_or_default();
            return if person.has_approved_what_waits() {
                accuse("8 a person's word", format!("an approval is lost: {status}"));
            } else {
                accuse("liveness", format!("it does not end; the Rollout says {status}"));
            };
        }
        person.act().await;
        tokio::time::sleep(TICK).await;
    }
    if is_broken() {
        return;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.clear_faults(CONTROLLER);
    // Whatever waits for a retry has had its time after this.
    tokio::time::sleep(Duration::from_secs(if case.faults { 90 } else { 5 })).await;
    if let Err(what) = judge_end(&eyes, &person.originals, person.ending, person.wanted) {
        return accuse("4 restore is exact", what);
    }
    let busy = || -> Requests {
        requests
            .lock()
            .unwrap()
            .iter()
            .filter(|(k, _)| !k.starts_with("watch "))
            .map(|(k, v)| (k.clone(), *v))
            .collect()
    };
    let (before, writes) = (busy(), cluster.writes());
    tokio::time::sleep(IDLE).await;
    let after = busy();
    if before != after {
        let more: Vec<String> = after.into_iter().filter(|(k, v)| before.get(k) != Some(v)).map(|(k, _)| k).collect();
        return accuse("12 idle costs nothing", format!("requests after the end: {}", more.join(", ")));
    }
    if writes != cluster.writes() {
        accuse("12 idle costs nothing", "something is written after the end".to_owned());
    }
}

/// Starts the controller, and starts it again after each crash.
async fn keep_running(cluster: Cluster, case: Case, requests: Arc<Mutex<Requests>>, is_over: Arc<AtomicBool>) {
    let mut rng = Rng::new(case.seed ^ 0xc4a5);
    let mut crashes = case.crashes.iter();
    let (decide, guard): (Decide, Guard) = match case.mutant.map(mutants::find) {
        Some(mutant) => (mutant.decider(), mutant.guard()),
        None => (Arc::new(decide), guard()),
    };
    loop {
        if let Some(n) = crashes.next() {
            cluster.crash_after(CONTROLLER, *n);
        }
        let crashed = cluster.crashed(CONTROLLER);
        let client = wire::client(cluster.connection(CONTROLLER), requests.clone(), is_over.clone());
        let clock = cluster.clock();
        let options = Options {
            clock: Arc::new(move || clock.now()),
            decide: decide.clone(),
            guard: guard.clone(),
            decides_in_place: true,
            namespace: "kruise-rollout".to_owned(),
            config_map_wins: false,
            workers: 2,
            script_workers: 1,
            health: Health::new([CACHES]),
            metrics: Metrics::new(),
        };
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let process = tokio::spawn(controller::run(client, options, stop.clone()));
        crashed.await;
        stop.cancel();
        process.abort();
        let away = if rng.chance(0.1) { 60_000..=300_000 } else { 100..=10_000 };
        let (low, high) = (Duration::from_millis(*away.start()), Duration::from_millis(*away.end()));
        tokio::time::sleep(rng.duration(&(low..=high))).await;
        cluster.revive(CONTROLLER);
    }
}

const WRITES: [Verb; 3] = [Verb::Create, Verb::Patch, Verb::Delete];

fn add_faults(cluster: &Cluster, seed: u64) {
    let mut rng = Rng::new(seed ^ 0xfa17);
    let ms = Duration::from_millis;
    let resources = ["rollouts", "deployments", "replicasets", "services", "endpointslices", "virtualservices"];
    let late = resources[rng.below(resources.len() as u64) as usize];
    let rule = |fault| Rule::new(CONTROLLER, fault);
    for rule in [
        rule(Fault::Latency(ms(1)..=ms(80))).chance(0.2),
        rule(Fault::Conflict).on(&WRITES).chance(0.05),
        rule(Fault::TooManyRequests).chance(0.03),
        rule(Fault::InternalError).chance(0.03),
        rule(Fault::TimeoutBefore).chance(0.03),
        rule(Fault::TimeoutAfter).on(&WRITES).chance(0.06),
        rule(Fault::WatchGap(rng.below(20) as u32)).chance(0.15),
        rule(Fault::WatchDelay(ms(50)..=ms(3000))).resource(late).chance(0.7),
    ] {
        cluster.add_fault(rule);
    }
}

/// Cuts all watches now and then, for as long as faults strike.
async fn break_watches(cluster: Cluster, seed: u64) {
    let mut rng = Rng::new(seed ^ 0xb4ea);
    for _ in 0..4 {
        tokio::time::sleep(rng.duration(&(Duration::from_secs(4)..=Duration::from_secs(40)))).await;
        cluster.break_watches(CONTROLLER);
    }
}
