//! The controller's processes: they start, die, come back, and sometimes there are two.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Request;
use jiff::SignedDuration;
use kube::client::Body;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{hook_server::HookServer, metrics_server::MetricsServer};

use crate::{
    apply::{self, Guard},
    controller::{self, CACHES, Decide, Options},
    lua::Engine,
    rollout,
    sim::{Cluster, Connection, Rng},
    telemetry::{Health, Metrics},
};

/// Identity of the controller's client.
pub const CONTROLLER: &str = "controller";
const TWIN: &str = "controller-twin";

/// How long the wire takes: without it, a loop of writes would stop the clock.
const WIRE: Duration = Duration::from_millis(1);

/// Requests of one rehearsal: whoever makes more goes round in circles, and is left to be judged for not ending.
const MOST_REQUESTS: u64 = 5_000;

/// Changes a request on its way to the API server: its head, and its body as JSON.
pub type Wire = fn(&mut http::request::Parts, &mut Value);

/// What the controller is made of: its own parts, or those of a deliberate bug.
#[derive(Clone)]
pub struct Mind {
    /// Makes the plans.
    pub decide: Decide,
    /// Judges the writes before they are made.
    pub guard: Guard,
    /// What `gather` and `apply` get wrong, as the API server sees it.
    pub wire: Option<Wire>,
    /// Runs the scripts of all rehearsals. Each process remembers only what it did itself.
    pub engine: Engine,
}

impl Mind {
    /// The controller as it is.
    pub fn real() -> Mind {
        let engine = Engine::new(std::thread::available_parallelism().map_or(1, usize::from));
        Mind { decide: Arc::new(rollout::decide), guard: apply::guard::guard(), wire: None, engine }
    }
}

async fn bend(request: Request<Body>, wire: Wire) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let bytes = body.collect_bytes().await.unwrap_or_default();
    let Ok(mut value) = serde_json::from_slice(&bytes) else { return Request::from_parts(head, Body::from(bytes)) };
    wire(&mut head, &mut value);
    Request::from_parts(head, Body::from(value.to_string().into_bytes()))
}

/// Starts processes of the controller.
#[derive(Clone)]
pub struct Processes {
    pub cluster: Cluster,
    pub mind: Mind,
    pub is_over: Arc<AtomicBool>,
    /// Milliseconds by which the controller's clock is wrong.
    pub skew: Arc<AtomicI64>,
    /// Milliseconds for which the next crash keeps the controller away; 0 is a short while.
    pub away: Arc<AtomicU64>,
    /// Requests that were made, watches left out.
    pub requests: Arc<AtomicU64>,
    /// How many releases are recorded.
    pub history_limit: Option<usize>,
    /// How many releases may be in flight.
    pub max_in_flight: Option<usize>,
    pub servers: Servers,
}

/// Servers of the user's.
#[derive(Clone)]
pub struct Servers {
    pub metrics: MetricsServer,
    pub hooks: HookServer,
}

impl Servers {
    /// Whatever they answer badly is mended.
    pub fn mend(&self) {
        self.metrics.mend();
        self.hooks.mend();
    }
}

impl Processes {
    fn client(&self, connection: Connection) -> kube::Client {
        let (requests, is_over, wire) = (self.requests.clone(), self.is_over.clone(), self.mind.wire);
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_watch = request.uri().query().is_some_and(|q| q.contains("watch=true"));
            if !is_watch && requests.fetch_add(1, Ordering::Relaxed) > MOST_REQUESTS {
                is_over.store(true, Ordering::Relaxed);
            }
            let (connection, is_over) = (connection.clone(), is_over.clone());
            async move {
                tokio::time::sleep(WIRE).await;
                if is_over.load(Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                let request = match wire {
                    Some(wire) if !is_watch => bend(request, wire).await,
                    _ => request,
                };
                connection.oneshot(request).await
            }
        });
        kube::Client::new(service, "default")
    }

    fn options(&self) -> Options {
        let (clock, skew) = (self.cluster.clock(), self.skew.clone());
        Options {
            clock: Arc::new(move || clock.now() + SignedDuration::from_millis(skew.load(Ordering::Relaxed))),
            decide: self.mind.decide.clone(),
            guard: self.mind.guard.clone(),
            provider: {
                let (server, requests) = (self.servers.metrics.clone(), self.requests.clone());
                Arc::new(move |_| {
                    let requests = requests.clone();
                    server.line(move || {
                        requests.fetch_add(1, Ordering::Relaxed);
                    })
                })
            },
            caller: {
                let (server, requests) = (self.servers.hooks.clone(), self.requests.clone());
                Arc::new(move |_, _| {
                    let requests = requests.clone();
                    server.line(move || {
                        requests.fetch_add(1, Ordering::Relaxed);
                    })
                })
            },
            decides_in_place: true,
            namespace: "kruise-rollout".to_owned(),
            config_map_wins: false,
            namespace_scripts: false,
            max_in_flight: self.max_in_flight,
            history_limit: self.history_limit,
            namespaces: Vec::new(),
            hold: None,
            names_people: false,
            workers: 2,
            engine: {
                let engine = self.mind.engine.clone();
                Arc::new(move || engine.anew())
            },
            health: Health::new([CACHES]),
            metrics: Metrics::new(),
            traces: None,
        }
    }

    /// Starts the controller, and starts it again after each crash.
    pub async fn keep_running(self, seed: u64) {
        let mut rng = Rng::new(seed ^ 0xc4a5);
        loop {
            let crashed = self.cluster.crashed(CONTROLLER);
            let stop = CancellationToken::new();
            let _stop = stop.clone().drop_guard();
            let client = self.client(self.cluster.connection(CONTROLLER));
            let process = tokio::spawn(controller::run(client, self.options(), stop.clone()));
            crashed.await;
            stop.cancel();
            process.abort();
            let away = match self.away.swap(0, Ordering::Relaxed) {
                0 => rng.duration(&(Duration::from_millis(100)..=Duration::from_secs(10))),
                away => Duration::from_millis(away),
            };
            tokio::time::sleep(away).await;
            self.cluster.revive(CONTROLLER);
        }
    }

    /// A second controller, as when a lease was lost and the loser does not know yet.
    pub async fn run_twin(self, period: Duration) {
        let stop = CancellationToken::new();
        let client = self.client(self.cluster.connection(TWIN));
        let process = tokio::spawn(controller::run(client, self.options(), stop.clone()));
        tokio::time::sleep(period).await;
        stop.cancel();
        process.abort();
    }
}
