//! A leader goes while metrics are measured and hooks are asked: what was counted counts on, and nobody is asked twice.

use std::{
    future::pending,
    sync::atomic::{AtomicBool, Ordering},
};

use futures::future::BoxFuture;
use tidegate::{
    analysis::{Answer, ask::Ask},
    gather::{desk::Answerer, measures::Provider},
    rollout::calls::{Body, Call, Outcome, Reply},
};

use super::*;

const INTERVAL: i64 = 30;

/// The servers that everybody asks, and what they were asked when; as one replica reaches them.
#[derive(Clone)]
struct Servers {
    cluster: Cluster,
    /// The replica was killed: what is left of it reaches nobody.
    is_dead: Arc<AtomicBool>,
    queries: Arc<Mutex<BTreeMap<String, Vec<Timestamp>>>>,
    hooks: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Provider for Servers {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Box::pin(pending());
        }
        let now = self.cluster.clock().now();
        self.queries.lock().unwrap().entry(ask.query.clone()).or_default().push(now);
        Box::pin(async {
            sleep(Duration::from_millis(300)).await;
            // Of both versions ten requests an interval, and no failure.
            Answer::Value(if ask.query.ends_with("failures") { 0.0 } else { 10.0 })
        })
    }
}

impl Answerer<Call> for Servers {
    fn answer<'a>(&'a self, call: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            if self.is_dead.load(Ordering::Relaxed) {
                return pending().await;
            }
            *self.hooks.lock().unwrap().entry(call.id.clone()).or_default() += 1;
            assert!(matches!(call.body, Body::Post(..)));
            sleep(Duration::from_millis(300)).await;
            Reply { at, outcome: Outcome::Answered { status: 200, body: String::new(), retry_after: None } }
        })
    }
}

fn cluster() -> Cluster {
    let (meta, app) = (json!({"name": "web", "namespace": "default"}), json!({"app": "web"}));
    let metric = |name: &str, more: Value| {
        let mut metric = json!({"name": name, "interval": format!("{INTERVAL}s"),
            "provider": {"prometheus": {"address": "http://prometheus:9090"}}});
        metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        metric
    };
    let of_version =
        |version: &str| json!({"failures": format!("{version}_failures"), "requests": format!("{version}_requests")});
    let compare = json!({"canary": of_version("canary"), "stable": of_version("stable"), "missed": 0.001});
    let counted = json!({"query": "share", "min": 1, "count": 20, "minSamples": 10, "samplesQuery": "samples"});
    let step = json!({"replicas": 1, "analysis": {"metrics": [metric("share", counted), metric("errors", json!({"compare": compare}))]}});
    let background = json!({"background": true, "metrics": [metric("behind", json!({"query": "behind", "min": 1}))]});
    let hooks = json!([{"name": "board", "url": "http://board.example.com", "when": ["BeforeStep", "AfterStep", "BeforePromotion"]}]);
    let strategy = json!({"analysis": background, "hooks": hooks, "canary": {"steps": [step, {"replicas": "100%"}]}});
    let objects = [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"replicas": 2, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                     "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}}),
        json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta,
            "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "strategy": strategy}}),
    ];
    let builder = install(Cluster::builder()).unwrap().namespace(NAMESPACE);
    objects.into_iter().fold(builder, |builder, object| builder.object(object)).build().unwrap()
}

fn status(view: &View) -> Value {
    let rollout = view.get(&Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"), "default", "web");
    rollout.map(|rollout| rollout["status"].clone()).unwrap_or_default()
}

/// What was counted so far: good values, values behind, requests that were compared.
fn counted(status: &Value) -> [u64; 3] {
    let analysis = &status["canaryStatus"]["analysis"];
    let of = |value: &Value| value.as_u64().unwrap_or_default();
    [
        of(&analysis["step"]["metrics"][0]["passed"]),
        of(&analysis["background"]["metrics"][0]["passed"]),
        of(&analysis["step"]["metrics"][1]["comparison"]["shares"]["canary"]["requests"]),
    ]
}

#[test]
fn what_was_counted_counts_on_and_nobody_is_asked_twice() {
    in_virtual_time(async {
        let cluster = cluster();
        let servers = Servers {
            cluster: cluster.clone(),
            is_dead: Arc::default(),
            queries: Arc::default(),
            hooks: Arc::default(),
        };
        let view = cluster.view();
        let start = |who: &str| {
            let stop = CancellationToken::new();
            let mut options = replica_options(&cluster, 0, Health::new([CACHES, lease::ELECTION]));
            let is_dead = Arc::new(AtomicBool::new(false));
            let reached = Servers { is_dead: is_dead.clone(), ..servers.clone() };
            let (provider, caller) = (reached.clone(), reached);
            options.provider = Arc::new(move |_| Arc::new(provider.clone()));
            options.caller = Arc::new(move |_, _| Box::new(caller.clone()));
            let run = controller::run_elected(cluster.client(who), options, election(who), stop.clone());
            (who.to_owned(), stop, tokio::spawn(run), is_dead)
        };
        let (mut leader, mut second) = (start("r0"), start("r1"));
        let until = async |what: &str, is_so: &dyn Fn(&Value) -> bool| {
            let begin = Instant::now();
            while !is_so(&status(&view)) {
                assert!(begin.elapsed() < 3600 * SECOND, "never {what}: {:#}", status(&view));
                sleep(SECOND).await;
            }
        };
        until("healthy", &|s| s["phase"] == "Healthy").await;
        let api = kube::Api::<k8s_openapi::api::apps::v1::Deployment>::default_namespaced(cluster.client("user"));
        let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
        api.patch("web", &Default::default(), &kube::api::Patch::Strategic(change)).await.unwrap();
        until("measured", &|s| s["currentStepState"] == "StepMetricsAnalysis").await;
        let mut best = [0; 3];
        for i in 2..12_u64 {
            if holder(&view) != leader.0 {
                std::mem::swap(&mut leader, &mut second);
            }
            // One in two stops, the other is killed: in between, or while a question is on its way.
            sleep(Duration::from_millis(37_000 + 1_130 * i)).await;
            if i % 3 == 0 {
                let asked = || servers.queries.lock().unwrap().values().map(Vec::len).sum::<usize>();
                let before = asked();
                while asked() == before {
                    sleep(Duration::from_millis(50)).await;
                }
            }
            if i % 2 == 0 {
                leader.1.cancel();
                leader.2.await.unwrap();
            } else {
                cluster.crash_after(&leader.0, 0);
                leader.3.store(true, Ordering::Relaxed);
                leader.2.abort();
            }
            let now = counted(&status(&view));
            assert!(now.iter().zip(best).all(|(now, best)| *now >= best), "{now:?} after {best:?}");
            best = now;
            leader = std::mem::replace(&mut second, start(&format!("r{i}")));
        }
        assert!(best.iter().all(|counted| *counted > 5), "it went on between them: {best:?}");
        until("done", &|s| s["phase"] == "Healthy").await;
        let queries = servers.queries.lock().unwrap().clone();
        let names: Vec<&str> = queries.keys().map(String::as_str).collect();
        let pairs = ["canary_failures", "canary_requests", "samples", "share", "stable_failures", "stable_requests"];
        assert_eq!(names, [&["behind"], &pairs[..]].concat());
        for (query, times) in &queries {
            let least = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis()).min().unwrap();
            assert!(least >= i128::from(INTERVAL) * 900, "{query}: {least} ms apart");
        }
        let hooks = servers.hooks.lock().unwrap().clone();
        assert_eq!(hooks.len(), 5, "before and after two steps, and before the promotion: {hooks:?}");
        assert!(hooks.values().all(|asked| *asked == 1), "{hooks:?}");
    });
}
