//! What holds changed workloads is kept in place by the controller, and changes without a gap when the API server does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::{
    api::crd,
    cli::{
        demo::world::{CONTROLLER, options},
        policy, webhooks,
    },
    controller::{self, Options, hold::Wish},
    sim::{Cluster, Gvr},
    telemetry::Health,
    webhook::VALIDATING,
    workload::hold,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const SETTLE: Duration = Duration::from_secs(600);

fn ours(name: &str, more: Value) -> Value {
    let metadata = json!({"name": name, "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "tidegate", "kubectl.kubernetes.io/last-applied-configuration": "{}"}});
    let mut object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": metadata});
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn validating() -> Value {
    let service = json!({"namespace": "tidegate", "name": "tidegate-webhooks", "port": 8443, "path": "/validate"});
    let webhook = json!({"name": "vrollout.kb.io", "clientConfig": {"service": service, "caBundle": "Q0E="},
        "sideEffects": "None", "admissionReviewVersions": ["v1"]});
    ours(VALIDATING, json!({"kind": "ValidatingWebhookConfiguration", "webhooks": [webhook]}))
}

/// As an installation by webhooks left it, trusted.
fn mutating() -> Value {
    let mut webhooks = webhooks::holding();
    for webhook in webhooks["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = json!("Q0E=");
    }
    ours(hold::WEBHOOKS, json!({"kind": "MutatingWebhookConfiguration", "webhooks": webhooks["webhooks"]}))
}

/// A cluster without policies, whose server acts on them or not.
fn cluster(acts: bool, objects: impl IntoIterator<Item = Value>) -> Cluster {
    let mut builder = Cluster::builder().namespace("kruise-rollout");
    for (plural, kind) in [
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    ] {
        builder = builder.kind("admissionregistration.k8s.io", &["v1"], plural, kind, false);
    }
    for definition in crd::all().unwrap() {
        builder = builder.definition(definition);
    }
    for object in objects {
        builder = builder.object(object);
    }
    if acts { builder.hold() } else { builder }.build().unwrap()
}

struct Plane(Cluster);

impl Plane {
    fn start(&self, wish: Wish, stop: &CancellationToken) -> Health {
        let options = Options { hold: Some(policy::keep(wish, SETTLE, true)), ..options(&self.0) };
        let health = options.health.clone();
        let client = self.0.client(CONTROLLER);
        tokio::spawn(controller::run(client, options, stop.clone()));
        health
    }

    fn count(&self, resource: &str) -> usize {
        self.0.list(&Gvr::new("admissionregistration.k8s.io", "v1", resource), None).len()
    }

    /// Policies, their bindings, and configurations of webhooks that hold.
    fn holds(&self) -> [usize; 3] {
        ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "mutatingwebhookconfigurations"]
            .map(|resource| self.count(resource))
    }

    fn probes(&self) -> usize {
        self.0.list(&Gvr::new("apps", "v1", "deployments"), None).len()
    }
}

#[tokio::test(start_paused = true)]
async fn policies_take_over_from_webhooks_without_a_gap() {
    let plane = Plane(cluster(true, [mutating(), validating()]));
    let stop = CancellationToken::new();
    let all = hold::rules().count();
    plane.start(Wish::Auto, &stop);
    let begin = Instant::now();
    while plane.holds() != [all, all, 0] {
        assert!(plane.holds()[2] == 1, "the webhooks went before the policies were there: {:?}", plane.holds());
        assert!(begin.elapsed() < 2 * SETTLE, "{:?}", plane.holds());
        sleep(Duration::from_millis(200)).await;
    }
    assert!(begin.elapsed() >= SETTLE, "{:?}", begin.elapsed());
    // Whoever has the webhooks, such as Helm, has the policies as well.
    let policies = Gvr::new("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies");
    for policy in plane.0.list(&policies, None) {
        assert_eq!(policy["metadata"]["annotations"], json!({"meta.helm.sh/release-name": "tidegate"}));
        assert_eq!(policy["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    }
    sleep(2 * SETTLE).await;
    assert_eq!((plane.holds(), plane.probes()), ([all, all, 0], 0));
    // Who puts the webhooks back wants them.
    plane.0.create(mutating()).unwrap();
    sleep(2 * SETTLE).await;
    assert_eq!(plane.holds(), [all, all, 1]);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn webhooks_stay_where_the_server_does_not_act_on_policies() {
    let plane = Plane(cluster(false, [mutating(), validating()]));
    let stop = CancellationToken::new();
    let all = hold::rules().count();
    let health = plane.start(Wish::Auto, &stop);
    sleep(3 * SETTLE).await;
    assert_eq!(plane.holds(), [all, all, 1]);
    assert!(health.report().contains("does not act on them"), "{}", health.report());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn webhooks_come_where_nothing_else_holds() {
    let objects = policy::all().into_iter().chain([validating()]);
    let plane = Plane(cluster(false, objects));
    let stop = CancellationToken::new();
    plane.start(Wish::Auto, &stop);
    sleep(SETTLE).await;
    let found = plane.0.list(&Gvr::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"), None);
    assert_eq!(found.len(), 1);
    let webhooks = found[0]["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), hold::rules().count());
    for (webhook, rule) in webhooks.iter().zip(hold::rules()) {
        let service = json!({"namespace": "tidegate", "name": "tidegate-webhooks", "port": 8443, "path": rule.path});
        assert_eq!(webhook["clientConfig"], json!({"service": service, "caBundle": "Q0E="}));
    }
    assert!(hold::is_ours(&found[0]) && hold::rules().all(|rule| hold::is_served(&found[0], rule)));
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn webhooks_that_are_wanted_take_over_from_policies() {
    let plane = Plane(cluster(true, policy::all().into_iter().chain([mutating(), validating()])));
    let stop = CancellationToken::new();
    let all = hold::rules().count();
    plane.start(Wish::Webhook, &stop);
    sleep(SETTLE / 2).await;
    assert_eq!(plane.holds(), [all, all, 1]);
    sleep(SETTLE).await;
    assert_eq!(plane.holds(), [0, 0, 1]);
    stop.cancel();
}
