//! Wiring: watches, queue, backoff and shutdown around gather → decide → apply.

mod events;
pub mod hold;
mod interests;
pub mod lease;
mod line;
mod pass;
mod queue;
mod rollout;
mod routing;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::{
    events::Events,
    hold::{KeepHold, Keeper},
    interests::Interests,
    line::LineWatch,
    pass::{Next, Reconciler, Subject, read},
    queue::Queue,
};
use crate::{
    api::{
        object::{self, ObjectRef},
        v1alpha1::TrafficRouting,
        v1beta1::Rollout,
    },
    apply::{Fence, Guard, Writer, hold::Holds},
    gather::{
        Cache, Namespaces, Objects, Settings,
        cache::Change,
        collect::{TRAFFIC_ROUTING, hold_of_all},
        desk::Answerer,
        measures::{Means, Provider},
    },
    lua::{Engine, ErrorKind},
    rollout::{Hold, Plan, Snapshot, calls::Call},
    telemetry::{Health, Metrics, Traces},
};

/// Tells the time. The in-memory cluster has a clock of its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Makes a plan of a snapshot: [`crate::rollout::decide`].
pub type Decide = Arc<dyn Fn(&Snapshot) -> Plan + Send + Sync>;

/// Makes who answers questions about a release of the client that Secrets are read with.
pub type MakeProvider = Arc<dyn Fn(Client) -> Arc<dyn Provider> + Send + Sync>;

/// Makes who sends requests to servers of the user's, of the client that Secrets are read with and the metrics that count.
pub type MakeCaller = Arc<dyn Fn(Client, Metrics) -> Box<dyn Answerer<Call>> + Send + Sync>;

/// For so long an answer waits for others that are asked for at the same moment: together they take one pass, and one
/// write of the status. The last of them waits no longer.
const TOGETHER: Duration = Duration::from_millis(200);

/// Name of the readiness check that holds once the caches are filled.
pub const CACHES: &str = "caches";

/// Makes the engine that runs the scripts: one for each term as the leader, which remembers nothing of the terms before.
pub type MakeEngine = Arc<dyn Fn() -> Engine + Send + Sync>;

/// What a controller needs beside a client.
#[derive(Clone)]
pub struct Options {
    /// Tells the time.
    pub clock: Clock,
    /// Makes the plans.
    pub decide: Decide,
    /// Who answers questions about a release: metrics servers. They are asked with the cluster's client at hand.
    pub provider: MakeProvider,
    /// Who sends requests to servers of the user's: hooks. The cluster's client is at hand.
    pub caller: MakeCaller,
    /// Judges every write: [`crate::apply::guard::guard`].
    pub guard: Guard,
    /// Decide on the runtime's own thread. In virtual time the order of everything is then a function of the seed; a
    /// real process decides on threads of its own, because a script may use its whole budget of time.
    pub decides_in_place: bool,
    /// Namespace of the ConfigMap with scripts: the controller's own.
    pub namespace: String,
    /// The namespaces of the Rollouts that are worked on; none: all.
    pub namespaces: Vec<String>,
    /// The ConfigMap's scripts replace built-in ones.
    pub config_map_wins: bool,
    /// ConfigMaps of the same name in the namespaces of Rollouts bring scripts for what has none.
    pub namespace_scripts: bool,
    /// How many releases of each Rollout are recorded as RolloutHistory; `None`: none.
    pub history_limit: Option<usize>,
    /// How many releases may be in flight in the cluster; `None`: any number.
    pub max_in_flight: Option<usize>,
    /// What holds changed workloads is kept in place; `None`: by whoever installed it.
    pub hold: Option<KeepHold>,
    /// The webhooks are served, so they say who approves and jumps.
    pub names_people: bool,
    /// Rollouts that are worked on at the same time.
    pub workers: usize,
    /// Runs the scripts.
    pub engine: MakeEngine,
    /// Readiness and warnings.
    pub health: Health,
    /// Counters.
    pub metrics: Metrics,
    /// Where traces of releases go; `None`: nowhere.
    pub traces: Option<Traces>,
}

/// Runs until `stop`; the write in hand is finished. There must be no other controller on the cluster.
pub async fn run(client: Client, options: Options, stop: CancellationToken) {
    // Without an election it decides all the same; whoever watches for nobody deciding must not be called.
    options.metrics.set_leader(true);
    lead(client, options, Fence::none(), stop).await;
}

/// Runs until `stop`, deciding while this process is the leader. Every term begins with empty caches: what was read
/// before may be older than what another leader wrote meanwhile.
pub async fn run_elected(client: Client, options: Options, election: lease::Election, stop: CancellationToken) {
    let tell = (options.health.clone(), options.metrics.clone());
    let health = options.health.clone();
    health.set(CACHES, Ok(()));
    lease::run(client.clone(), election, options.clock.clone(), tell, stop, |fence, stop| {
        let (client, options, health) = (client.clone(), options.clone(), health.clone());
        async move {
            health.set(CACHES, Err("a term as the leader begins".to_owned()));
            let metrics = options.metrics.clone();
            lead(client, options, fence, stop).await;
            metrics.forget_rollouts();
            // A replica that stands by needs none.
            health.set(CACHES, Ok(()));
        }
    })
    .await;
}

async fn lead(client: Client, options: Options, fence: Fence, stop: CancellationToken) {
    let namespaces = Namespaces::new(&options.namespace, options.namespaces.iter().cloned())
        .bringing_scripts(options.namespace_scripts);
    let (cache, changes) = Cache::start(client.clone(), namespaces, stop.clone());
    let cache = cache.measuring(Means {
        provider: (options.provider)(client.clone()),
        clock: options.clock.clone(),
        metrics: options.metrics.clone(),
    });
    let caller = (options.caller)(client.clone(), options.metrics.clone());
    let cache = cache.calling(caller, options.clock.clone());
    let holds_changed = Arc::new(Notify::new());
    let keeper = options.hold.clone().map(|hold| Keeper {
        cache: cache.clone(),
        holds: Holds::new(client.clone(), fence.clone(), &options.namespace),
        options: hold,
        health: options.health.clone(),
        changed: holds_changed.clone(),
    });
    let engine = (options.engine)();
    let metrics = options.metrics.clone();
    engine.observe(move |script, used, took| {
        metrics.script_called(&script.name, used.map_err(ErrorKind::as_str), took);
    });
    let reconciler = Arc::new(Reconciler {
        writer: Writer::new(client.clone(), cache.clone(), options.metrics.clone(), fence, options.guard.clone()),
        cache,
        engine,
        settings: Settings {
            script_namespace: options.namespace.clone(),
            config_map_wins: options.config_map_wins,
            namespace_scripts: options.namespace_scripts,
            history_limit: options.history_limit,
            max_in_flight: options.max_in_flight,
            names_people: options.names_people,
        },
        clock: options.clock.clone(),
        decide: options.decide.clone(),
        decides_in_place: options.decides_in_place,
        metrics: options.metrics.clone(),
        traces: options.traces,
        events: Events::default(),
        client,
        failures: Mutex::default(),
    });
    let queue = Arc::new(Queue::default());
    let watched = Arc::downgrade(&queue);
    options.metrics.watch_queue(Some(Box::new(move || watched.upgrade().map(|q| q.waiting()).unwrap_or_default())));
    // TrafficRoutings are few.
    let routings = Arc::new(Queue::default());
    let mut tasks = JoinSet::new();
    for _ in 0..options.workers.max(1) {
        tasks.spawn(work::<Rollout>(reconciler.clone(), queue.clone(), stop.clone()));
    }
    tasks.spawn(work::<TrafficRouting>(reconciler.clone(), routings.clone(), stop.clone()));
    if let Some(keeper) = keeper {
        tasks.spawn(keeper.run(stop.clone()));
    }
    tasks.spawn(listen(reconciler, (queue, routings), holds_changed, options.health, changes, stop));
    while tasks.join_next().await.is_some() {}
}

async fn work<S: Subject>(reconciler: Arc<Reconciler>, queue: Arc<Queue>, stop: CancellationToken) {
    while let Some((key, waited)) = stop.run_until_cancelled(queue.next()).await {
        S::taken(waited, &reconciler);
        // Not cut short by `stop`: a write that was begun is finished.
        let next = reconciler.reconcile::<S>(&key).instrument(S::span(&key)).await;
        queue.done(&key);
        if let Next::After(delay) = next {
            queue.add(key, delay);
        }
    }
}

/// Turns changes into work, on Rollouts and on TrafficRoutings.
async fn listen(
    reconciler: Arc<Reconciler>,
    (queue, routings): (Arc<Queue>, Arc<Queue>),
    holds_changed: Arc<Notify>,
    health: Health,
    mut changes: mpsc::UnboundedReceiver<Change>,
    stop: CancellationToken,
) {
    let home = reconciler.settings.script_namespace.as_str();
    let mut interests = Interests::default();
    let mut of_routings = Interests::default();
    let mut line = LineWatch::default();
    let mut is_ready = false;
    while let Some(Some(change)) = stop.run_until_cancelled(changes.recv()).await {
        let concerned = match &change {
            Change::Object(target, _) if target.kind == TRAFFIC_ROUTING.1 => {
                routing::note(&mut of_routings, &reconciler.cache, target);
                vec![(target.namespace.clone(), target.name.clone())]
            }
            Change::Object(target, _) if target.kind == "Rollout" => of_routings.in_namespace(&target.namespace),
            Change::Object(target, object) => of_routings.of(target, object, home),
            Change::Pods(_) | Change::Answered(_) | Change::AnsweredInPart(_) => Vec::new(),
            Change::Kind(..) => of_routings.all(),
        };
        for key in concerned {
            routings.add(key, Duration::ZERO);
        }
        let keys = match &change {
            Change::Object(target, object) if target.kind == "Rollout" => {
                let key = (target.namespace.clone(), target.name.clone());
                let mut keys = interests.rivals(&key);
                note_rollout(&mut interests, &reconciler.cache, target, object);
                keys.extend(interests.rivals(&key));
                keys.extend(line.note(&key, reconciler.cache.get(target).ok().as_deref()));
                keys.push(key);
                keys
            }
            Change::Object(target, object) => interests.of(target, object, home),
            Change::Pods(key) | Change::Answered(key) | Change::AnsweredInPart(key) => vec![key.clone()],
            Change::Kind(..) => interests.all(),
        };
        let after = if matches!(change, Change::AnsweredInPart(_)) { TOGETHER } else { Duration::ZERO };
        for key in keys {
            queue.add(key, after);
        }
        let unnamed = [interests.take_unnamed(), of_routings.take_unnamed()].concat();
        for kind in unnamed.iter().filter(|kind| !interests.names(kind) && !of_routings.names(kind)) {
            reconciler.cache.stop_watching(kind);
        }
        if is_about_hold(&change) {
            holds_changed.notify_one();
        }
        if is_ready && !matches!(change, Change::Kind(..)) && !is_about_hold(&change) {
            continue;
        }
        match reconciler.cache.problem() {
            None => {
                if !is_ready {
                    tracing::info!("caches are filled");
                }
                is_ready = true;
                health.set(CACHES, Ok(()));
                report_hold(&reconciler.cache, &health);
            }
            Some(problem) => health.set(CACHES, Err(problem)),
        }
    }
}

fn is_about_hold(change: &Change) -> bool {
    match change {
        Change::Object(target, _) => target.kind.starts_with("Mutating"),
        Change::Kind(_, kind) => kind.starts_with("Mutating"),
        Change::Pods(_) | Change::Answered(_) | Change::AnsweredInPart(_) => false,
    }
}

fn note_rollout(interests: &mut Interests, cache: &Cache, target: &ObjectRef, object: &Arc<serde_json::Value>) {
    let key = (target.namespace.clone(), target.name.clone());
    match cache.get(target) {
        Ok(present) if object::uid(&present) == object::uid(object) => {
            if let Some(rollout) = read::<Rollout>(&present) {
                interests.set(&key, &rollout);
            }
        }
        Ok(_) => {}
        Err(_) => interests.remove(&key),
    }
}

/// Says once, and in `/readyz`, what the cluster cannot promise.
fn report_hold(cache: &Cache, health: &Health) {
    match hold_of_all(cache) {
        Some(Hold::Unavailable(why)) if health.warn("hold", &why) => tracing::warn!("{why}"),
        Some(Hold::InForce) => health.clear_warning("hold"),
        _ => {}
    }
}
