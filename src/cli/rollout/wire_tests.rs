//! What the commands send, byte for byte, to a scripted API server.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::{Command, Io, execute, view::fixtures::*};

const ROLLOUTS: &str = "/apis/rollouts.kruise.io/v1beta1/namespaces/shop/rollouts";

/// One request: method, path with query, content type, body.
type Seen = (String, String, String, Value);

#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn answering(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let server = Self::default();
        server.answers.lock().unwrap().extend(answers.into_iter().map(|(code, body)| (code, body.to_string())));
        server
    }

    /// A watch: one event a line.
    fn then_events(self, events: &[(&str, &Value)]) -> Self {
        let lines = events.iter().map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object})));
        self.answers.lock().unwrap().push_back((200, lines.collect()));
        self
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect().await?.to_bytes();
                let kind = head.headers.get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
                let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
                server.seen.lock().unwrap().push((head.method.to_string(), head.uri.to_string(), kind, body));
                let Some((code, text)) = server.answers.lock().unwrap().pop_front() else {
                    // Nothing scripted: a watch that stays open.
                    return std::future::pending().await;
                };
                let answer = Response::builder().status(code).body(Body::from(text.into_bytes()))?;
                Ok::<_, tower::BoxError>(answer)
            }
        });
        Client::new(service, "shop")
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn methods(&self) -> Vec<(String, String)> {
        self.seen().into_iter().map(|(method, path, ..)| (method, path)).collect()
    }
}

fn problem(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "RolloutList", "metadata": {"resourceVersion": "9"}, "items": items})
}

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// Result, output and notes of a command line.
async fn run(server: &Server, line: &str) -> (anyhow::Result<bool>, String, String) {
    let line = Line::try_parse_from(std::iter::once("rollout").chain(line.split(' '))).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { out: &mut out, err: &mut err, colour: false, terminal: false, program: "kubectl-kruise" };
    let result = execute(&line.command, server.client(), "shop", &mut io).await;
    (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn approve_reads_once_and_writes_one_guarded_patch() {
    let server = Server::answering([(200, at(1, "StepPaused")), (200, at(1, "StepReady"))]);
    let (result, out, err) = run(&server, "approve rollout/rollouts-demo").await;
    assert!(result.unwrap());
    assert_eq!((out.as_str(), err.as_str()), ("rollout.rollouts.kruise.io/rollouts-demo approved (step 1 of 2)\n", ""));
    assert_eq!(
        server.seen(),
        [
            ("GET".into(), format!("{ROLLOUTS}/rollouts-demo"), String::new(), Value::Null),
            (
                "PATCH".into(),
                format!("{ROLLOUTS}/rollouts-demo/status?&fieldManager=tidegate-approve"),
                "application/json-patch+json".into(),
                json!([
                    {"op": "test", "path": "/status/canaryStatus/currentStepIndex", "value": 1},
                    {"op": "test", "path": "/status/canaryStatus/currentStepState", "value": "StepPaused"},
                    {"op": "test", "path": "/status/canaryStatus/canaryRevision", "value": "rev2"},
                    {"op": "replace", "path": "/status/canaryStatus/currentStepState", "value": "StepReady"}
                ])
            ),
        ]
    );
}

#[tokio::test]
async fn approving_what_is_approved_or_busy_writes_nothing() {
    for (state, ok, text) in [
        ("StepReady", true, "rollout.rollouts.kruise.io/rollouts-demo already approved (step 1 of 2)\n"),
        (
            "StepUpgrade",
            false,
            "error: rollout.rollouts.kruise.io \"rollouts-demo\" cannot be approved: step 1 of 2 is StepUpgrade",
        ),
    ] {
        let server = Server::answering([(200, at(1, state))]);
        let (result, out, err) = run(&server, "approve rollouts rollouts-demo").await;
        assert_eq!(result.unwrap(), ok);
        assert!(format!("{out}{err}").starts_with(text), "{out}{err}");
        assert_eq!(server.methods(), [("GET".to_owned(), format!("{ROLLOUTS}/rollouts-demo"))]);
    }
}

#[tokio::test]
async fn a_lost_race_is_told_and_not_repeated() {
    let refused = || problem(422, "Invalid", "the server rejected our request due to an error in our request");
    let moved = Server::answering([(200, at(1, "StepPaused")), refused(), (200, at(2, "StepPaused"))]);
    let (result, out, err) = run(&moved, "approve rollout/rollouts-demo").await;
    assert!(!result.unwrap());
    assert_eq!(out, "");
    assert_eq!(
        err,
        "error: rollout.rollouts.kruise.io \"rollouts-demo\" changed while step 1 was being approved, nothing was approved: \
         it is at step 2 of 2 (StepPaused), not at step 1\n"
    );
    assert_eq!(moved.seen().len(), 3);

    let by_another = Server::answering([(200, at(1, "StepPaused")), refused(), (200, at(1, "StepReady"))]);
    let (result, out, _) = run(&by_another, "approve rollout/rollouts-demo").await;
    assert!(result.unwrap());
    assert!(out.ends_with("already approved (step 1 of 2)\n"), "{out}");
}

#[tokio::test]
async fn dry_runs_keep_nothing() {
    let client = Server::answering([(200, at(2, "StepPaused"))]);
    let (result, out, _) = run(&client, "approve rollout/rollouts-demo --dry-run=client").await;
    assert!(result.unwrap());
    assert_eq!(out, "rollout.rollouts.kruise.io/rollouts-demo approved (step 2 of 2) (dry run)\n");
    assert_eq!(client.seen().len(), 1);

    let shown = Server::answering([(200, at(2, "StepPaused"))]);
    let (_, out, _) = run(&shown, "approve rollout/rollouts-demo --dry-run -o json").await;
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["status"]["canaryStatus"]["currentStepState"], "StepReady");
    assert!(object["spec"]["objectRef"].is_object() && object["spec"]["workloadRef"].is_null(), "as the server has it");

    let server = Server::answering([(200, at(2, "StepPaused")), (200, at(2, "StepReady"))]);
    let (_, out, _) = run(&server, "approve rollout/rollouts-demo --dry-run=server").await;
    assert_eq!(out, "rollout.rollouts.kruise.io/rollouts-demo approved (step 2 of 2) (server dry run)\n");
    let path = format!("{ROLLOUTS}/rollouts-demo/status?&dryRun=All&fieldManager=tidegate-approve");
    assert_eq!(server.methods()[1], ("PATCH".to_owned(), path));
}

#[tokio::test]
async fn each_of_several_is_tried_and_a_failure_counts() {
    let missing = problem(404, "NotFound", "rollouts.rollouts.kruise.io \"a\" not found");
    let b = with(at(1, "StepPaused"), &json!({"metadata": {"name": "b"}}));
    let server = Server::answering([missing, (200, b.clone()), (200, b)]);
    let (result, out, err) = run(&server, "approve rollout/a rollout/b").await;
    assert!(!result.unwrap());
    assert_eq!(out, "rollout.rollouts.kruise.io/b approved (step 1 of 2)\n");
    assert_eq!(
        err,
        "error: rollout.rollouts.kruise.io \"a\" not found in namespace \"shop\"; `rollout get -A` lists those that there are\n"
    );
}

#[tokio::test]
async fn a_frozen_rollout_is_approved_with_a_note() {
    let frozen = with(at(1, "StepPaused"), &json!({"spec": {"strategy": {"paused": true}}}));
    let server = Server::answering([(200, frozen.clone()), (200, frozen)]);
    let (result, _, err) = run(&server, "approve rollout/rollouts-demo").await;
    assert!(result.unwrap());
    assert!(err.contains("spec.strategy.paused"), "{err}");
}

#[tokio::test]
async fn a_cluster_without_the_kinds_and_a_refusal_say_what_to_do() {
    let bare = Server::answering([(404, json!("404 page not found"))]);
    let (_, _, err) = run(&bare, "approve rollout/a").await;
    assert!(err.contains("does not serve rollouts.kruise.io/v1beta1; install the custom resources"), "{err}");
    let forbidden = Server::answering([problem(403, "Forbidden", "User \"eve\" cannot get resource \"rollouts\"")]);
    let (_, _, err) = run(&forbidden, "approve rollout/a").await;
    assert_eq!(
        err,
        "error: rollout.rollouts.kruise.io \"a\" in namespace \"shop\": User \"eve\" cannot get resource \"rollouts\"\n"
    );
}

#[tokio::test]
async fn get_lists_names_and_whole_objects() {
    let managed = with(at(1, "StepPaused"), &json!({"metadata": {"managedFields": [{"manager": "kubectl"}]}}));
    let mut item = managed.clone();
    item.as_object_mut().unwrap().retain(|k, _| k != "apiVersion" && k != "kind");

    let server = Server::answering([(200, list(&[item.clone()]))]);
    let (_, out, _) = run(&server, "get").await;
    assert!(out.starts_with("NAME            STATUS        STEP   STATE        WEIGHT"), "{out}");
    assert_eq!(server.methods(), [("GET".to_owned(), format!("{ROLLOUTS}?"))]);

    let server = Server::answering([(200, list(&[item]))]);
    let (_, out, _) = run(&server, "get rollouts -A -l team=web -o yaml").await;
    let shown: Value = crate::yaml::from_str(&out).unwrap();
    assert_eq!(shown["kind"], "List");
    assert_eq!(shown["items"][0], at(1, "StepPaused"), "kind put back, managedFields hidden, nothing else changed");
    assert_eq!(server.methods()[0].1, "/apis/rollouts.kruise.io/v1beta1/rollouts?&labelSelector=team%3Dweb");

    let server = Server::answering([(200, managed)]);
    let (_, out, _) = run(&server, "get rollout/rollouts-demo -o json").await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), at(1, "StepPaused"));
    assert!(out.starts_with("{\n    \"apiVersion\""), "{out}");

    let server = Server::answering([(200, list(&[]))]);
    let (result, out, err) = run(&server, "get").await;
    assert!(result.unwrap());
    assert_eq!((out.as_str(), err.as_str()), ("", "No rollouts found in namespace \"shop\".\n"));
}

#[tokio::test]
async fn get_names_what_is_missing_and_shows_the_rest() {
    let missing = problem(404, "NotFound", "rollouts.rollouts.kruise.io \"a\" not found");
    let server = Server::answering([(200, at(1, "StepPaused")), missing]);
    let (result, out, err) = run(&server, "get rollout rollouts-demo a -o name").await;
    assert!(!result.unwrap());
    assert_eq!(out, "rollout.rollouts.kruise.io/rollouts-demo\n");
    assert!(err.contains("\"a\" not found"), "{err}");
}

#[tokio::test]
async fn status_follows_the_release_to_its_end() {
    let healthy = with(at(2, "Completed"), &json!({"status": {"phase": "Healthy", "message": "rollout is healthy"}}));
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx-deployment"}});
    let server = Server::answering([(200, at(1, "StepUpgrade")), (200, list(&[at(1, "StepUpgrade")]))]).then_events(&[
        ("MODIFIED", &at(1, "StepPaused")),
        ("MODIFIED", &at(1, "StepPaused")),
        ("MODIFIED", &healthy),
    ]);
    server.answers.lock().unwrap().push_back((200, workload.to_string()));
    let (result, out, err) = run(&server, "status rollout/rollouts-demo").await;
    assert!(result.unwrap(), "{err}");
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "rollout/rollouts-demo: step 1/2 StepUpgrade, 0% of requests, 1/1 canary pods ready: Rollout is in step(1/2)",
            "rollout/rollouts-demo: step 1/2 StepPaused, 20% of requests, 1/1 canary pods ready: Rollout is in step(1/2); \
             approve with: kubectl-kruise rollout approve rollout/rollouts-demo -n shop",
            "rollout/rollouts-demo: Healthy: rollout is healthy",
            "rollout/rollouts-demo released (revision rev2)",
        ]
    );
    let methods = server.methods();
    assert_eq!(methods[0].1, format!("{ROLLOUTS}/rollouts-demo"));
    assert!(
        methods[1].1.starts_with(&format!("{ROLLOUTS}?&fieldSelector=metadata.name%3Drollouts-demo")),
        "{methods:?}"
    );
    assert!(methods[2].1.contains("watch=true") && methods[2].1.contains("resourceVersion=9"), "{methods:?}");
    assert_eq!(methods[3].1, "/apis/apps/v1/namespaces/shop/deployments/nginx-deployment");
    assert_eq!(methods.len(), 4);
}

#[tokio::test]
async fn status_waits_while_a_change_is_held_but_not_taken_up() {
    let healthy = with(at(2, "Completed"), &json!({"status": {"phase": "Healthy", "message": ""}}));
    let held = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx-deployment",
        "annotations": {"rollouts.kruise.io/in-progressing": "{}"}}});
    let server = Server::answering([
        (200, healthy.clone()),
        (200, held.clone()),
        (200, list(std::slice::from_ref(&healthy))),
        (200, held),
    ])
    .then_events(&[("MODIFIED", &at(1, "StepPaused"))]);
    let (result, out, _) = run(&server, "status rollout/rollouts-demo --until=paused").await;
    assert!(result.unwrap());
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "rollout/rollouts-demo: Healthy; a change is held and waits for the controller");
    assert_eq!(lines.last().unwrap(), &"rollout/rollouts-demo paused at step 1/2");
}

#[tokio::test]
async fn status_fails_on_a_cancelled_release_and_on_a_deleted_rollout() {
    let cancelled = with(
        at(1, "StepPaused"),
        &json!({"spec": {"objectRef": null}, "status": {"phase": "Healthy", "conditions": [
            {"type": "Succeeded", "status": "False", "reason": "", "message": ""}]}}),
    );
    let server = Server::answering([(200, cancelled)]);
    let (result, _, err) = run(&server, "status rollout/rollouts-demo").await;
    assert!(!result.unwrap());
    assert!(err.contains("was cancelled"), "{err}");

    let server = Server::answering([(200, at(1, "StepPaused")), (200, list(&[at(1, "StepPaused")]))])
        .then_events(&[("DELETED", &at(1, "StepPaused"))]);
    let (result, _, err) = run(&server, "status rollout/rollouts-demo").await;
    assert!(!result.unwrap());
    assert_eq!(err, "error: rollout.rollouts.kruise.io \"rollouts-demo\" was deleted\n");
}

#[tokio::test(start_paused = true)]
async fn status_gives_up_when_the_time_is_over_and_says_where_it_was() {
    let server = Server::answering([(200, at(1, "StepPaused")), (200, list(&[at(1, "StepPaused")]))]);
    let (result, _, err) = run(&server, "status rollout/rollouts-demo --timeout=90s").await;
    assert!(!result.unwrap());
    assert!(err.starts_with("error: timed out after 90 s; rollout/rollouts-demo: step 1/2 StepPaused"), "{err}");
}

#[tokio::test]
async fn status_without_watch_asks_once() {
    let server = Server::answering([(200, at(1, "StepPaused"))]);
    let (result, out, _) = run(&server, "status rollout/rollouts-demo --watch=false").await;
    assert!(result.unwrap());
    assert_eq!(out.lines().count(), 1);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_is_told_once_and_goes_on() {
    let server = Server::answering([
        (200, at(1, "StepUpgrade")),
        (200, list(&[at(1, "StepUpgrade")])),
        problem(500, "InternalError", "etcd is away"),
        problem(500, "InternalError", "etcd is away"),
    ])
    .then_events(&[("MODIFIED", &at(1, "StepPaused"))]);
    let (result, out, err) = run(&server, "status rollout/rollouts-demo --until=paused").await;
    assert!(result.unwrap());
    assert_eq!(err, "note: the watch was interrupted and goes on: etcd is away\n");
    assert!(out.ends_with("paused at step 1/2\n"), "{out}");
}

#[tokio::test]
async fn describe_asks_for_the_pods_and_events_of_this_rollout_only() {
    let server = Server::answering([
        (200, at(1, "StepPaused")),
        (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})),
        problem(403, "Forbidden", "events is forbidden"),
    ]);
    let (result, out, _) = run(&server, "describe rollout/rollouts-demo").await;
    assert!(result.unwrap());
    assert!(out.contains("Events:       cannot be read: events is forbidden\n"), "{out}");
    assert_eq!(
        server.methods(),
        [
            ("GET".to_owned(), format!("{ROLLOUTS}/rollouts-demo")),
            (
                "GET".to_owned(),
                "/api/v1/namespaces/shop/pods?&labelSelector=pod-template-hash+in+%28stable1%2Ccanary1%29".to_owned()
            ),
            (
                "GET".to_owned(),
                "/api/v1/namespaces/shop/events?&fieldSelector=involvedObject.kind%3DRollout%2CinvolvedObject.name%3D\
             rollouts-demo%2CinvolvedObject.uid%3Du-1"
                    .to_owned()
            ),
        ]
    );
}

#[tokio::test]
async fn a_wrong_command_line_asks_nothing() {
    for line in ["approve web", "approve rollout/a rollout/b --step 1", "get rollout/a -A", "status deployment/web"] {
        let server = Server::default();
        let (result, ..) = run(&server, line).await;
        assert!(result.unwrap_err().is::<super::Usage>(), "{line}");
        assert_eq!(server.seen().len(), 0, "{line}");
    }
}
