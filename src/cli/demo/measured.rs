//! What stories about metrics have in common: a Deployment `shop` whose versions answer well or not, and a server that speaks
//! Prometheus' HTTP API and has scraped its pods.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Bytes;
use include_dir::Dir;
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
    sim::{Builder, Cluster, Gvr},
};

const NAMESPACE: &str = "default";

/// What the server says of the pods that a query selects, and of the query; `None` for no series.
type Answer = fn(&[Arc<Value>], &str) -> Option<f64>;

struct Prometheus {
    cluster: Cluster,
    answer: Answer,
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
    fn answer(&self, query: &str) -> Value {
        let pattern = query.split("pod=~\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let Ok(pattern) = regex::Regex::new(&format!("^(?:{})$", pattern.replace("\\\\", "\\"))) else {
            return json!({"status": "error", "errorType": "bad_data", "error": "invalid parameter \"query\""});
        };
        let mut pods = self.cluster.list(&gvr("v1", "pods"), Some(NAMESPACE));
        pods.retain(|pod| pattern.is_match(object::name(pod)));
        let time = self.cluster.clock().now().as_second();
        let value =
            (self.answer)(&pods, query).map(|value| json!({"metric": {}, "value": [time, format!("{value:.4}")]}));
        json!({"status": "success", "data": {"resultType": "vector", "result": Vec::from_iter(value)}})
    }
}

/// Plays a story on the objects of an example, with such a server.
pub(super) async fn play(
    builder: Builder,
    example: &Dir<'_>,
    answer: Answer,
    story: impl AsyncFnOnce(Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let builder = install(builder)?.namespace("kruise-rollout");
    let equip = |cluster: &Cluster, options: Options| {
        let http = Arc::new(Prometheus { cluster: cluster.clone(), answer });
        let provider = Arc::new(Servers { http, logins: None, allowed: Vec::new() });
        Options { provider: Arc::new(move |_| provider.clone()), ..options }
    };
    perform(builder, manifests(example)?, equip, story).await
}

/// The cluster of a story, and where it is told.
pub(super) struct Stage {
    pub cluster: Cluster,
    pub screen: Screen,
    /// Share of requests that a version answers well, by the end of its image.
    pub success: &'static [(&'static str, f64)],
}

impl Stage {
    pub(super) async fn release(&self, version: &str) -> anyhow::Result<()> {
        self.screen.command(&format!("kubectl set image deployment/shop shop=registry.example/shop:{version}"));
        let image = format!("registry.example/shop:{version}");
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": image}]}}}});
        let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        api.patch("shop", &PatchParams::default(), &Patch::Strategic(patch)).await?;
        self.until("the release has begun", |s| s.status("phase") == phases::PROGRESSING).await
    }

    /// Lets virtual time pass until something holds.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Stage) -> bool) -> anyhow::Result<()> {
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

    pub(super) fn rollout(&self) -> Value {
        let rollout = self.cluster.get(&gvr("rollouts.kruise.io/v1beta1", "rollouts"), NAMESPACE, "shop");
        rollout.map(|r| (*r).clone()).unwrap_or_default()
    }

    pub(super) fn status(&self, field: &str) -> String {
        object::text(&self.rollout(), &["status", field]).to_owned()
    }

    pub(super) fn condition(&self, r#type: &str) -> Option<Value> {
        let rollout = self.rollout();
        let conditions = at(&rollout, &["status", "conditions"])?.as_array()?;
        conditions.iter().find(|c| object::text(c, &["type"]) == r#type).cloned()
    }

    pub(super) fn is_rolled_back(&self) -> bool {
        self.condition("Succeeded").is_some_and(|c| object::text(&c, &["status"]) == "False")
    }

    /// The first metric of a step that is measured.
    pub(super) fn metric_of(&self, step: i64) -> Option<Value> {
        let rollout = self.rollout();
        let run = at(&rollout, &["status", "canaryStatus", "analysis", "step"])?;
        let metrics = at(run, &["metrics"]).filter(|_| object::int(run, &["stepIndex"]) == Some(step))?;
        metrics.as_array()?.first().cloned()
    }

    /// What events of a reason say, oldest first.
    pub(super) fn told(&self, reason: &str) -> Vec<String> {
        let events = self.cluster.list(&gvr("events.k8s.io/v1", "events"), Some(NAMESPACE));
        let mut told: Vec<(String, String)> = events
            .iter()
            .filter(|event| object::text(event, &["reason"]) == reason)
            .map(|event| (object::text(event, &["eventTime"]).to_owned(), object::text(event, &["note"]).to_owned()))
            .collect();
        told.sort();
        told.into_iter().map(|(_, note)| note).collect()
    }

    pub(super) fn is_done(&self, version: &str) -> bool {
        let pods = self.live_pods();
        self.status("phase") == phases::HEALTHY
            && pods.len() == 10
            && pods.iter().all(|pod| image(pod).ends_with(&format!(":{version}")))
    }

    fn live_pods(&self) -> Vec<Arc<Value>> {
        let pods = self.cluster.list(&gvr("v1", "pods"), Some(NAMESPACE));
        pods.into_iter().filter(|p| !object::is_deleting(p)).collect()
    }

    pub(super) fn pods(&self) -> String {
        let pods = self.live_pods();
        let of = |version: &str| pods.iter().filter(|pod| image(pod).ends_with(version)).count();
        let all = self.success.iter().map(|(version, _)| (version, of(version))).filter(|(_, count)| *count > 0);
        all.map(|(version, count)| format!("{count} of version {}", version.trim_start_matches(':')))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The share of requests that a pod answers well.
pub(super) fn rate(success: &[(&str, f64)], pod: &Value) -> Option<f64> {
    let image = image(pod);
    success.iter().find(|(version, _)| image.ends_with(version)).map(|(_, rate)| *rate)
}

fn image(pod: &Value) -> String {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_array);
    containers.and_then(|c| c.first()).map(|c| object::text(c, &["image"]).to_owned()).unwrap_or_default()
}

pub(super) fn gvr(api_version: &str, plural: &str) -> Gvr {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Gvr::new(group, version, plural)
}
