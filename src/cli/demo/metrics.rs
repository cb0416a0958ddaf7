//! The story of `examples/metrics`.

use std::{sync::Arc, time::Duration};

use anyhow::{bail, ensure};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Bytes;
use include_dir::{Dir, include_dir};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    screen::Screen,
    world::{install, manifests, perform},
};
use crate::{
    api::{conditions::phases, object, object::at},
    controller::Options,
    gather::measures::{
        http::{Failure, Http},
        servers::Servers,
    },
    sim::{Cluster, Gvr},
};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/metrics");

const NAMESPACE: &str = "default";
/// Requests that a version answers well: the last digit of its image is its number.
const SUCCESS: [(&str, f64); 3] = [(":1", 0.9995), (":2", 0.9991), (":3", 0.93)];

/// A server that speaks Prometheus' HTTP API and has scraped the pods of the cluster.
struct Prometheus {
    cluster: Cluster,
}

impl Http for Prometheus {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        Box::pin(async move {
            // As long as a network takes.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let query = form_urlencoded::parse(request.body()).find(|(key, _)| key == "query");
            let answer = self.answer(&query.map(|(_, query)| query.into_owned()).unwrap_or_default());
            Response::builder()
                .status(answer.get("error").map_or(200, |_| 400))
                .body(answer.to_string().into())
                .map_err(|error| Failure::Mistake(error.to_string()))
        })
    }
}

impl Prometheus {
    /// The success rate of the pods that the query selects; it knows no other query.
    fn answer(&self, query: &str) -> Value {
        let pattern = query.split("pod=~\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let Ok(pattern) = regex::Regex::new(&format!("^(?:{})$", pattern.replace("\\\\", "\\"))) else {
            return json!({"status": "error", "errorType": "bad_data", "error": "invalid parameter \"query\""});
        };
        let pods = self.cluster.list(&gvr("v1", "pods"), Some(NAMESPACE));
        let rates: Vec<f64> = pods.iter().filter(|pod| pattern.is_match(object::name(pod))).filter_map(rate).collect();
        let time = self.cluster.clock().now().as_second();
        #[allow(clippy::cast_precision_loss)] // So many pods there are not.
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let result =
            if rates.is_empty() { json!([]) } else { json!([{"metric": {}, "value": [time, format!("{mean:.4}")]}]) };
        json!({"status": "success", "data": {"resultType": "vector", "result": result}})
    }
}

fn rate(pod: &Arc<Value>) -> Option<f64> {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_array)?;
    let image = object::text(containers.first()?, &["image"]);
    SUCCESS.iter().find(|(version, _)| image.ends_with(version)).map(|(_, rate)| *rate)
}

/// Plays the story; an error when it does not end as it should.
pub async fn play(screen: Screen) -> anyhow::Result<()> {
    let objects = manifests(&MANIFESTS)?;
    let mut builder = install(Cluster::builder())?.namespace("kruise-rollout");
    builder = builder.kind("networking.istio.io", &["v1"], "virtualservices", "VirtualService", true);
    let equip = |cluster: &Cluster, options: Options| {
        let http = Arc::new(Prometheus { cluster: cluster.clone() });
        let provider = Arc::new(Servers { http, logins: None, allowed: Vec::new() });
        Options { provider: Arc::new(move |_| provider.clone()), ..options }
    };
    perform(builder, objects, equip, async |cluster| Story { cluster, screen }.tell().await).await
}

struct Story {
    cluster: Cluster,
    screen: Screen,
}

impl Story {
    async fn tell(&self) -> anyhow::Result<()> {
        let screen = &self.screen;
        screen.scene("Version 1 runs; a Rollout says how good a version must be")?;
        self.until("the Rollout is healthy", |s| s.status("phase") == phases::HEALTHY).await?;
        let original = self.route();
        screen.fact("success-rate", "min 0.99, measured 4 times a step, 1 bad value forgiven; else rollback");
        screen.fact("restarts", "max 0");
        screen.fact("pods", &self.pods());

        screen.scene("Version 2 is good: nobody has to say so")?;
        self.release("2").await?;
        for step in [1, 2] {
            self.until("a step is measured", |s| s.is_measured(step)).await?;
            self.show_measured();
        }
        self.until("version 2 has taken over", |s| s.is_done("2")).await?;
        screen.fact("rollout", &self.status("message"));
        screen.fact("pods", &self.pods());
        ensure!(self.route() == original, "the VirtualService differs from what it was");

        screen.scene("Version 3 fails 7 % of its requests")?;
        self.release("3").await?;
        let begun = self.cluster.clock().now();
        self.until("a value is out of bounds", |s| {
            s.step_metric().is_some_and(|m| object::int(&m, &["failed"]) == Some(1))
        })
        .await?;
        self.show_measured();
        self.until("it is rolled back", |s| {
            s.condition("Succeeded").is_some_and(|c| object::text(&c, &["status"]) == "False")
        })
        .await?;
        let took = self.cluster.clock().now().duration_since(begun).as_secs();
        self.until("version 2 serves alone", |s| s.is_done("2")).await?;
        let condition = self.condition("Succeeded").unwrap_or_default();
        screen.fact("rolled back", &format!("{took} s after the change: {}", object::text(&condition, &["reason"])));
        screen.fact("why", object::text(&condition, &["message"]));
        screen.fact("pods", &self.pods());
        ensure!(object::text(&condition, &["reason"]) == "AnalysisFailed", "another reason: {condition}");
        ensure!(self.route() == original, "the VirtualService differs from what it was");
        screen
            .fact("end", "the VirtualService equals its original; version 3 never had more than 10 % of the requests");
        Ok(())
    }

    async fn release(&self, version: &str) -> anyhow::Result<()> {
        self.screen.command(&format!("kubectl set image deployment/shop shop=registry.example/shop:{version}"));
        let image = format!("registry.example/shop:{version}");
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": image}]}}}});
        let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        api.patch("shop", &PatchParams::default(), &Patch::Strategic(patch)).await?;
        self.until("the release has begun", |s| s.status("phase") == phases::PROGRESSING).await
    }

    /// Lets virtual time pass until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Story) -> bool) -> anyhow::Result<()> {
        let begun = self.cluster.clock().now();
        while !holds(self) {
            if self.cluster.clock().now().duration_since(begun).as_secs() > 900 {
                bail!(
                    "waited 15 minutes of the cluster's time until {what}; the Rollout says: {}",
                    self.status("message")
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn show_measured(&self) {
        self.screen.fact("requests", &self.share());
        self.screen.fact("rollout", &self.status("message"));
    }

    fn rollout(&self) -> Value {
        let rollout = self.cluster.get(&gvr("rollouts.kruise.io/v1beta1", "rollouts"), NAMESPACE, "shop");
        rollout.map(|r| (*r).clone()).unwrap_or_default()
    }

    fn status(&self, field: &str) -> String {
        object::text(&self.rollout(), &["status", field]).to_owned()
    }

    fn condition(&self, r#type: &str) -> Option<Value> {
        let rollout = self.rollout();
        let conditions = at(&rollout, &["status", "conditions"])?.as_array()?;
        conditions.iter().find(|c| object::text(c, &["type"]) == r#type).cloned()
    }

    fn step_metric(&self) -> Option<Value> {
        let rollout = self.rollout();
        at(&rollout, &["status", "canaryStatus", "analysis", "step", "metrics"])?.as_array()?.first().cloned()
    }

    /// The metrics of a step have their last value but one.
    fn is_measured(&self, step: i64) -> bool {
        object::int(&self.rollout(), &["status", "currentStepIndex"]) == Some(step)
            && self.step_metric().is_some_and(|m| object::int(&m, &["passed"]) == Some(3))
    }

    fn is_done(&self, version: &str) -> bool {
        let pods = self.live_pods();
        self.status("phase") == phases::HEALTHY
            && pods.len() == 10
            && pods.iter().all(|pod| image(pod).ends_with(&format!(":{version}")))
    }

    fn live_pods(&self) -> Vec<Arc<Value>> {
        let pods = self.cluster.list(&gvr("v1", "pods"), Some(NAMESPACE));
        pods.into_iter().filter(|p| !object::is_deleting(p)).collect()
    }

    fn pods(&self) -> String {
        let pods = self.live_pods();
        let of = |version: &str| pods.iter().filter(|pod| image(pod).ends_with(version)).count();
        let all = SUCCESS.iter().map(|(version, _)| (version, of(version))).filter(|(_, count)| *count > 0);
        all.map(|(version, count)| format!("{count} of version {}", version.trim_start_matches(':')))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn route(&self) -> Value {
        let route = self.cluster.get(&gvr("networking.istio.io/v1", "virtualservices"), NAMESPACE, "shop");
        route.and_then(|r| at(&r, &["spec"]).cloned()).unwrap_or_default()
    }

    fn share(&self) -> String {
        let spec = self.route();
        let routes = spec.pointer("/http/0/route").and_then(Value::as_array).cloned().unwrap_or_default();
        let to = |r: &Value| {
            let weight = object::int(r, &["weight"]).unwrap_or(100);
            format!("{weight} % to Service {}", object::text(r, &["destination", "host"]))
        };
        routes.iter().map(to).collect::<Vec<_>>().join(", ")
    }
}

fn image(pod: &Value) -> String {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_array);
    containers.and_then(|c| c.first()).map(|c| object::text(c, &["image"]).to_owned()).unwrap_or_default()
}

fn gvr(api_version: &str, plural: &str) -> Gvr {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Gvr::new(group, version, plural)
}
