//! Leader election on the in-memory cluster, in virtual time: several live replicas, wrong clocks, crashes, a process
//! that stands still, an API server that answers late or not at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod measuring;
mod upgrade;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tidegate::{
    api::{
        keys::LEASE,
        object::{self, ObjectRef},
        v1beta1::{Rollout, RolloutSpec},
    },
    apply::{Class, Fence, Guard, Reach, Writer},
    cli::demo::world::{install, manifests, options},
    controller::{
        self, CACHES, Options,
        lease::{self, Election},
    },
    gather::{Cache, Namespaces},
    rollout::{Effect, plan::Purpose},
    sim::{Cluster, Fault, Gvr, Rng, Rule, View, Write},
    telemetry::{Health, Metrics},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kruise-rollout";
const SECOND: Duration = Duration::from_secs(1);

/// Nobody in particular: what these tests write is judged by no guard.
fn nobody() -> Reach {
    Reach::of(&Rollout::new("nobody", RolloutSpec::default()))
}

fn election(identity: &str) -> Election {
    Election {
        namespace: NAMESPACE.to_owned(),
        name: LEASE.to_owned(),
        identity: identity.to_owned(),
        duration: 10 * SECOND,
        deadline: 7 * SECOND,
        retry: 2 * SECOND,
    }
}

/// A clock that is wrong by so many seconds.
fn skewed(cluster: &Cluster, seconds: i64) -> controller::Clock {
    let clock = cluster.clock();
    Arc::new(move || clock.now() + jiff::SignedDuration::from_secs(seconds))
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

fn holder(view: &View) -> String {
    let lease = view.get(&leases(), NAMESPACE, LEASE);
    lease.and_then(|l| l["spec"]["holderIdentity"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Who wrote what when, and whether it held the Lease at that moment.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<(String, Timestamp)>>>);

impl Record {
    /// Judges every write of a replica but those of the Lease and of events.
    fn of(cluster: &Cluster, replicas: &[&str]) -> Record {
        let record = Record::default();
        let (kept, view) = (record.clone(), cluster.view());
        let replicas: Vec<String> = replicas.iter().map(|r| (*r).to_owned()).collect();
        cluster.on_write(Box::new(move |write: &Write| {
            let who = write.identity.to_string();
            let plural = write.gvr.resource.as_str();
            if replicas.contains(&who) && plural != "leases" && plural != "events" {
                let holder = holder(&view);
                assert_eq!(holder, who, "{who} wrote {plural} {} at {} while {holder:?} led", write.name, write.time);
                kept.0.lock().unwrap().push((who, write.time));
            }
        }));
        record
    }

    fn last(&self, who: &str) -> Option<Timestamp> {
        self.0.lock().unwrap().iter().rev().find(|(w, _)| w == who).map(|(_, at)| *at)
    }

    fn first(&self, who: &str) -> Option<Timestamp> {
        self.0.lock().unwrap().iter().find(|(w, _)| w == who).map(|(_, at)| *at)
    }

    fn count(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.0.lock().unwrap().iter().for_each(|(who, _)| *counts.entry(who.clone()).or_default() += 1);
        counts
    }
}

fn gap(before: Timestamp, after: Timestamp) -> Duration {
    Duration::try_from(after.duration_since(before)).expect("in this order")
}

/// A process that can be made to stand still: none of its code runs, not even its timers'.
struct Process<F> {
    work: Pin<Box<F>>,
    is_frozen: watch::Receiver<bool>,
    thawed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

fn process<F: Future>(work: F) -> (watch::Sender<bool>, Process<F>) {
    let (freeze, is_frozen) = watch::channel(false);
    (freeze, Process { work: Box::pin(work), is_frozen, thawed: None })
}

impl<F: Future> Future for Process<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            let mut is_frozen = self.is_frozen.clone();
            if let Some(thawed) = &mut self.thawed {
                if thawed.as_mut().poll(context).is_pending() && *is_frozen.borrow() {
                    return Poll::Pending;
                }
                self.thawed = None;
            }
            let was_frozen = *is_frozen.borrow_and_update();
            // Registers for the next change, whether frozen or not.
            let mut change: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                let _ = is_frozen.changed().await;
            });
            let is_unchanged = change.as_mut().poll(context).is_pending();
            self.thawed = Some(change);
            if was_frozen {
                if is_unchanged {
                    return Poll::Pending;
                }
                continue;
            }
            return self.work.as_mut().poll(context);
        }
    }
}

/// Leads, and writes all the time, as the real writer does.
async fn writer(cluster: Cluster, who: String, skew: i64, stop: CancellationToken) {
    let client = cluster.client(&who);
    // Its watches are not what is looked at.
    let (cache, _changes) = Cache::start(cluster.client("cache"), Namespaces::all(NAMESPACE), stop.clone());
    let clock = skewed(&cluster, skew);
    let tell = (Health::default(), Metrics::new());
    let mut n = 0;
    lease::run(client.clone(), election(&who), clock, tell, stop, |fence: Fence, term| {
        let writer = Writer::new(client.clone(), cache.clone(), Metrics::new(), fence, Arc::new(|_, _, _| Ok(())));
        let who = who.clone();
        n += 1;
        async move {
            for i in 0.. {
                if term.is_cancelled() {
                    return;
                }
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "written", "namespace": "default"}, "data": {"by": format!("{who}/{n}/{i}")}});
                let _ =
                    writer.execute(&[Effect::Apply { purpose: Purpose::CreateCanaryService, object }], &nobody()).await;
                sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
}

async fn one_writer_at_a_time(seed: u64) -> BTreeMap<String, usize> {
    const REPLICAS: [(&str, i64); 3] = [("a", 0), ("b", 3600), ("c", -90_000)];
    let cluster = Cluster::builder().namespace(NAMESPACE).seed(seed).build().unwrap();
    let record = Record::of(&cluster, &REPLICAS.map(|(who, _)| who));
    let mut random = Rng::new(seed);
    let mut below = |n: u64| random.next_u64() % n;
    let mut running = BTreeMap::new();
    let ms = Duration::from_millis;
    for (who, skew) in REPLICAS {
        cluster.add_fault(Rule::new(who, Fault::Latency(ms(0)..=ms(300))));
        cluster.add_fault(Rule::new(who, Fault::Latency(ms(0)..=ms(12_000))).chance(0.05));
        for fault in [Fault::TimeoutBefore, Fault::TimeoutAfter, Fault::Conflict, Fault::InternalError] {
            cluster.add_fault(Rule::new(who, fault).chance(0.05));
        }
        let stop = CancellationToken::new();
        let (freeze, work) = process(writer(cluster.clone(), who.to_owned(), skew, stop.clone()));
        running.insert(who, (stop, freeze, tokio::spawn(work)));
    }
    for _ in 0..30 {
        sleep(ms(below(20_000))).await;
        let (who, skew) = REPLICAS[below(3) as usize];
        let (stop, freeze, task) = running.remove(who).unwrap();
        match below(4) {
            0 => {
                // It stands still, for as long as a machine may be suspended.
                freeze.send(true).unwrap();
                sleep(ms(below(40_000))).await;
                freeze.send(false).unwrap();
                running.insert(who, (stop, freeze, task));
                continue;
            }
            1 => {
                // kill -9
                task.abort();
                let _ = task.await;
            }
            2 => {
                stop.cancel();
                timeout(60 * SECOND, task).await.expect("it stops").unwrap();
            }
            _ => {
                // Somebody else's tool.
                let user = kube::Api::<kube::api::DynamicObject>::namespaced_with(
                    cluster.client("user"),
                    NAMESPACE,
                    &kube::api::ApiResource::erase::<k8s_openapi::api::coordination::v1::Lease>(&()),
                );
                let label = kube::api::Patch::Merge(json!({"metadata": {"labels": {"seen": below(9).to_string()}}}));
                let _ = user.patch(LEASE, &Default::default(), &label).await;
                running.insert(who, (stop, freeze, task));
                continue;
            }
        }
        let stop = CancellationToken::new();
        let (freeze, work) = process(writer(cluster.clone(), who.to_owned(), skew, stop.clone()));
        running.insert(who, (stop, freeze, tokio::spawn(work)));
    }
    for (_, _, task) in running.values() {
        assert!(!task.is_finished(), "a replica ended by itself");
        task.abort();
    }
    record.count()
}

fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

#[test]
fn never_two_writers() {
    let mut total = BTreeMap::<String, usize>::new();
    for seed in 0..6 {
        for (who, n) in in_virtual_time(one_writer_at_a_time(seed)) {
            *total.entry(who).or_default() += n;
        }
    }
    // Each had its turns.
    assert!(total.len() == 3 && total.values().all(|n| *n > 500), "{total:?}");
}

/// Without the fence the same judge finds two writers: it is the fence that keeps them apart.
#[test]
fn the_judge_sees_a_leader_without_a_fence() {
    let seen = in_virtual_time(async {
        let cluster = Cluster::builder().namespace(NAMESPACE).build().unwrap();
        let stop = CancellationToken::new();
        let (freeze, work) = process(writer(cluster.clone(), "a".to_owned(), 0, stop.clone()));
        tokio::spawn(work);
        sleep(SECOND).await;
        assert_eq!(holder(&cluster.view()), "a");
        freeze.send(true).unwrap();
        let second = tokio::spawn(writer(cluster.clone(), "b".to_owned(), 0, stop.clone()));
        sleep(20 * SECOND).await;
        assert_eq!(holder(&cluster.view()), "b");
        drop(second);
        let verdict = Arc::new(Mutex::new(Vec::new()));
        let (kept, view) = (verdict.clone(), cluster.view());
        cluster.on_write(Box::new(move |write: &Write| {
            if write.gvr.resource == "configmaps" {
                kept.lock().unwrap().push((write.identity.to_string(), holder(&view)));
            }
        }));
        let (cache, _changes) = Cache::start(cluster.client("cache"), Namespaces::all(NAMESPACE), stop.clone());
        let unfenced =
            Writer::new(cluster.client("a"), cache, Metrics::new(), Fence::none(), Arc::new(|_, _, _| Ok(())));
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "written", "namespace": "default"},
            "data": {"by": "nobody"}});
        unfenced.execute(&[Effect::Apply { purpose: Purpose::CreateCanaryService, object }], &nobody()).await.unwrap();
        verdict.lock().unwrap().clone()
    });
    assert!(seen.contains(&("a".to_owned(), "b".to_owned())), "{seen:?}");
}

/// A process that leads no longer and learns of Rollouts late may know the present Service: the version of what it changes
/// does not stop it, that of what it decided on does.
#[test]
fn who_decided_on_what_has_changed_since_moves_no_requests() {
    in_virtual_time(async {
        let cluster = Cluster::builder().namespace(NAMESPACE).build().unwrap();
        let (cache, _changes) =
            Cache::start(cluster.client("cache"), Namespaces::all(NAMESPACE), CancellationToken::new());
        let allow: Guard = Arc::new(|_, _, _| Ok(()));
        let writer = Writer::new(cluster.client("a"), cache, Metrics::new(), Fence::none(), allow);
        let map = |by: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": "default"},
                "data": {"by": by}})
        };
        let owner = ObjectRef::new("v1", "ConfigMap", "default", "owner");
        let read = object::resource_version(&cluster.create(map("a")).unwrap()).to_owned();
        let effect = |purpose| Effect::Apply { purpose, object: json!({}) };
        let mut seen = Vec::new();
        for change in [None, Some("b"), Some("gone")] {
            let api: Api<DynamicObject> =
                Api::namespaced_with(cluster.client("b"), "default", &ApiResource::erase::<ConfigMap>(&()));
            match change {
                Some("gone") => drop(api.delete("owner", &DeleteParams::default()).await.unwrap()),
                Some(by) => {
                    api.patch("owner", &PatchParams::default(), &Patch::Merge(json!({"data": {"by": by}})))
                        .await
                        .unwrap();
                }
                None => {}
            }
            for purpose in [Purpose::PinStableService, Purpose::RouteStep, Purpose::RestoreRoutes] {
                let result = writer.confirm(&[effect(Purpose::ScaleCanary), effect(purpose)], &owner, &read).await;
                seen.push(result.map_err(|error| (error.class(), error.to_string())).err());
            }
        }
        let overtaken = Some((Class::Conflict, "ConfigMap default/owner: changed since it was decided on".to_owned()));
        let gone = |purpose: &str| {
            let text = format!("{purpose}: ConfigMap default/owner: configmaps \"owner\" not found (404)");
            Some((Class::Conflict, text))
        };
        let expected = [
            [None, None, None],
            [overtaken.clone(), overtaken, None],
            [gone("PinStableService"), gone("RouteStep"), None],
        ];
        assert_eq!(seen, expected.concat());
    });
}

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/istio");

/// `examples/istio` with its first release begun.
struct Story {
    cluster: Cluster,
    record: Record,
}

struct Replica {
    health: Health,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// How a replica is set up whose clock is wrong by so many seconds.
fn replica_options(cluster: &Cluster, skew: i64, health: Health) -> Options {
    Options { clock: skewed(cluster, skew), workers: 2, health, ..options(cluster) }
}

impl Story {
    fn begin(replicas: &[&str], seed: u64) -> Story {
        let mut builder = install(Cluster::builder()).unwrap().namespace(NAMESPACE).seed(seed);
        for (plural, kind) in
            [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule"), ("gateways", "Gateway")]
        {
            builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
        }
        for object in manifests(&MANIFESTS).unwrap() {
            builder = builder.object(object);
        }
        let cluster = builder.build().unwrap();
        let record = Record::of(&cluster, replicas);
        Story { cluster, record }
    }

    fn replica(&self, who: &str, skew: i64) -> Replica {
        let (health, stop) = (Health::new([CACHES, lease::ELECTION]), CancellationToken::new());
        let options = replica_options(&self.cluster, skew, health.clone());
        let work = controller::run_elected(self.cluster.client(who), options, election(who), stop.clone());
        Replica { health, stop, task: tokio::spawn(work) }
    }

    fn get(&self, api_version: &str, plural: &str, name: &str) -> Value {
        let (group, version) = api_version.split_once('/').unwrap();
        let object = self.cluster.get(&Gvr::new(group, version, plural), "default", name);
        object.map(|o| (*o).clone()).unwrap_or_default()
    }

    fn status(&self) -> Value {
        self.get("rollouts.kruise.io/v1beta1", "rollouts", "rollouts-demo")["status"].clone()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        while !holds(&self.status()) {
            assert!(begin.elapsed() < 120 * SECOND, "{what}: {:#}", self.status());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn healthy(&self) {
        self.until("healthy", |s| s["phase"] == "Healthy").await;
    }

    async fn release(&self) {
        let api = kube::Api::<k8s_openapi::api::apps::v1::Deployment>::default_namespaced(self.cluster.client("user"));
        let change = json!({"spec": {"template": {"metadata": {"annotations": {"restarted": self.cluster.writes().to_string()}}}}});
        api.patch("nginx-deployment", &Default::default(), &kube::api::Patch::Merge(change)).await.unwrap();
    }

    async fn paused_at(&self, step: i64) {
        self.until("paused", |s| s["currentStepIndex"] == step && s["currentStepState"] == "StepPaused").await;
    }

    fn leads(&self) -> String {
        holder(&self.cluster.view())
    }
}

#[test]
fn a_leader_that_stops_hands_over_within_two_seconds() {
    for (seed, skew) in [(1, 0), (2, 3600), (3, -3600)] {
        in_virtual_time(async {
            let story = Story::begin(&["a", "b"], seed);
            let a = story.replica("a", skew);
            story.healthy().await;
            let b = story.replica("b", 0);
            sleep(30 * SECOND).await;
            assert_eq!(story.leads(), "a");
            assert!(b.health.is_ready(), "who stands by is ready: {}", b.health.report());
            assert_eq!(story.record.first("b"), None);
            story.release().await;
            story.until("step 1 begins", |s| s["currentStepIndex"] == 1).await;
            a.stop.cancel();
            let begin = Instant::now();
            a.task.await.unwrap();
            while story.leads() != "b" {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(begin.elapsed() < 2 * SECOND, "{:?}", begin.elapsed());
            story.paused_at(1).await;
            assert!(story.record.last("a").unwrap() < story.record.first("b").unwrap());
        });
    }
}

#[test]
fn a_killed_leader_is_followed_within_fifteen_seconds() {
    for seed in 0..12 {
        in_virtual_time(async {
            let story = Story::begin(&["a", "b"], seed);
            let a = story.replica("a", 2);
            story.healthy().await;
            let _b = story.replica("b", -2);
            sleep(5 * SECOND).await;
            story.release().await;
            // At any moment between two renewals, and between any two writes.
            sleep(Duration::from_millis(seed * 170)).await;
            story.cluster.crash_after("a", 0);
            a.task.abort();
            let begin = Instant::now();
            while story.leads() != "b" {
                sleep(Duration::from_millis(10)).await;
                assert!(begin.elapsed() < 15 * SECOND, "nobody leads after {:?}", begin.elapsed());
            }
            assert!(begin.elapsed() >= 7 * SECOND, "taken while the other might still write: {:?}", begin.elapsed());
            story.paused_at(1).await;
        });
    }
}

#[test]
fn a_leader_that_cannot_renew_stops_writing_before_another_starts() {
    in_virtual_time(async {
        let story = Story::begin(&["a", "b"], 7);
        let a = story.replica("a", 0);
        story.healthy().await;
        let b = story.replica("b", 1000);
        sleep(5 * SECOND).await;
        // It reaches everything but the Lease.
        story.cluster.add_fault(Rule::new("a", Fault::TimeoutBefore).resource("leases"));
        let cut = story.cluster.clock().now();
        while story.leads() != "b" {
            // Work for whoever leads.
            story.release().await;
            sleep(Duration::from_millis(100)).await;
            assert!(gap(cut, story.cluster.clock().now()) < 15 * SECOND, "nobody leads");
        }
        let taken = story.cluster.clock().now();
        let last = story.record.last("a").unwrap();
        assert!(gap(cut, last) > 3 * SECOND, "it went on while it could: {:?}", gap(cut, last));
        assert!(gap(last, taken) >= 3 * SECOND - Duration::from_millis(300), "{:?}", gap(last, taken));
        story.paused_at(1).await;
        // It goes back into the second row, and may lead again.
        story.cluster.clear_faults("a");
        sleep(20 * SECOND).await;
        assert!(!a.task.is_finished() && a.health.is_ready(), "{}", a.health.report());
        b.stop.cancel();
        b.task.await.unwrap();
        sleep(2 * SECOND).await;
        assert_eq!(story.leads(), "a");
    });
}

#[test]
fn a_lease_of_the_original_is_respected_and_taken_when_it_ends() {
    in_virtual_time(async {
        let story = Story::begin(&["a"], 9);
        let original = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": NAMESPACE, "labels": {"kept": "yes"}},
            "spec": {"holderIdentity": "manager_1", "leaseDurationSeconds": 15, "leaseTransitions": 4,
                     "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:00.000000Z"}});
        story.cluster.create(original).unwrap();
        let begin = Instant::now();
        let _a = story.replica("a", 0);
        while story.leads() != "a" {
            sleep(Duration::from_millis(10)).await;
        }
        let waited = begin.elapsed();
        assert!(waited >= 15 * SECOND && waited < 16 * SECOND, "its clock is not believed: {waited:?}");
        let lease = story.cluster.get(&leases(), NAMESPACE, LEASE).unwrap();
        assert_eq!(
            (&lease["metadata"]["labels"]["kept"], &lease["spec"]["leaseTransitions"]),
            (&json!("yes"), &json!(5))
        );
    });
}

#[test]
fn a_deleted_lease_changes_nothing() {
    in_virtual_time(async {
        let story = Story::begin(&["a", "b"], 10);
        let _a = story.replica("a", 0);
        story.healthy().await;
        let _b = story.replica("b", 0);
        sleep(5 * SECOND).await;
        let api: kube::Api<k8s_openapi::api::coordination::v1::Lease> =
            kube::Api::namespaced(story.cluster.client("user"), NAMESPACE);
        api.delete(LEASE, &Default::default()).await.unwrap();
        sleep(30 * SECOND).await;
        assert_eq!((story.leads().as_str(), story.record.first("b")), ("a", None));
    });
}

#[test]
fn who_waits_costs_nothing() {
    in_virtual_time(async {
        let story = Story::begin(&["a", "b"], 11);
        let _a = story.replica("a", 0);
        story.healthy().await;
        let _b = story.replica("b", 0);
        sleep(30 * SECOND).await;
        let of = |who: &str| -> u64 {
            story.cluster.requests().iter().filter(|((w, _), _)| &**w == who).map(|(_, n)| *n).sum()
        };
        let before = (of("a"), of("b"));
        sleep(200 * SECOND).await;
        let (leader, second) = (of("a") - before.0, of("b") - before.1);
        assert!(leader <= 105, "a renewal each 2 s: {leader}");
        assert!(second <= 4, "a watch: {second}");
    });
}

#[test]
fn times_that_do_not_fit_are_refused_with_the_remedy() {
    let mut wrong = election("a");
    wrong.deadline = Duration::from_millis(9500);
    assert!(wrong.check().unwrap_err().contains("at least 1s shorter"));
    let mut wrong = election("a");
    wrong.retry = 4 * SECOND;
    assert!(wrong.check().unwrap_err().contains("at most half"));
    let mut wrong = election("a");
    wrong.duration = Duration::from_millis(10_500);
    assert!(wrong.check().unwrap_err().contains("whole seconds"));
    election("a").check().unwrap();
}
