//! The plugin's commands against the in-memory cluster: what really becomes of the objects.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::time::Duration;

use clap::Parser as _;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tidegate::{
    api::v1beta1::Rollout,
    cli::rollout::{Command, execute, output::Io},
    sim::{Cluster, Fault, Gvr, Rule, Verb},
};

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn rollouts() -> Gvr {
    Gvr { group: "rollouts.kruise.io".into(), version: "v1beta1".into(), resource: "rollouts".into() }
}

fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    tidegate::yaml::from_str(&text).unwrap()
}

/// A cluster with the real schema and the story's Rollout, waiting at a step.
async fn cluster(step: i32, state: &str) -> Cluster {
    let cluster = Cluster::builder()
        .definition(read("crds/rollouts.kruise.io_rollouts.yaml"))
        .object(read("examples/istio/rollout.yaml"))
        .build()
        .unwrap();
    set_status(&cluster, &status(step, state)).await;
    cluster
}

fn status(step: i32, state: &str) -> Value {
    json!({
        "phase": "Progressing", "message": "", "observedGeneration": 1,
        "currentStepIndex": step, "currentStepState": state,
        "canaryStatus": {
            "stableRevision": "s", "podTemplateHash": "c", "canaryRevision": "r", "canaryReplicas": 1, "canaryReadyReplicas": 1,
            "currentStepIndex": step, "nextStepIndex": 2, "currentStepState": state, "finalisingStep": ""
        }
    })
}

/// Writes as the controller does.
async fn set_status(cluster: &Cluster, status: &Value) {
    let resource = ApiResource::erase::<Rollout>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client("controller"), "default", &resource);
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status("rollouts-demo", &PatchParams::default(), &patch).await.unwrap();
}

fn stored(cluster: &Cluster) -> Value {
    let mut object = (*cluster.get(&rollouts(), "default", "rollouts-demo").unwrap()).clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| key != "managedFields" && key != "resourceVersion");
    object
}

/// Result, output and notes of a command line of the person.
async fn run(cluster: &Cluster, line: &str) -> (bool, String, String) {
    let line = Line::try_parse_from(std::iter::once("rollout").chain(line.split(' '))).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { out: &mut out, err: &mut err, colour: false, terminal: false, program: "tidegate" };
    let result = execute(&line.command, cluster.client("person"), "default", &mut io).await;
    (result.unwrap(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn writes_of_person(cluster: &Cluster) -> u64 {
    cluster.requests().iter().filter(|((who, verb), _)| &**who == "person" && verb.writes()).map(|(_, n)| n).sum()
}

#[tokio::test(start_paused = true)]
async fn an_approval_changes_the_step_state_and_nothing_else() {
    let cluster = cluster(1, "StepPaused").await;
    let mut expected = stored(&cluster);
    let (ok, out, err) = run(&cluster, "approve rollout/rollouts-demo").await;
    assert!(ok, "{err}");
    assert_eq!(out, "rollout.rollouts.kruise.io/rollouts-demo approved (step 1 of 2)\n");
    expected["status"]["canaryStatus"]["currentStepState"] = json!("StepReady");
    assert_eq!(stored(&cluster), expected);

    let writes = cluster.writes();
    let (ok, out, _) = run(&cluster, "approve rollout/rollouts-demo").await;
    assert!(ok && out.ends_with("already approved (step 1 of 2)\n"), "{out}");
    assert_eq!((cluster.writes(), writes_of_person(&cluster)), (writes, 1), "nothing to do, nothing sent");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_on_the_server_keeps_nothing() {
    let cluster = cluster(2, "StepPaused").await;
    let (before, writes) = (stored(&cluster), cluster.writes());
    let (ok, out, err) = run(&cluster, "approve rollout/rollouts-demo --dry-run=server").await;
    assert!(ok, "{err}");
    assert!(out.ends_with("approved (step 2 of 2) (server dry run)\n"), "{out}");
    assert_eq!((stored(&cluster), cluster.writes()), (before, writes));
}

/// The controller moves on between the person's read and write: whatever it did, the approval hits no other step.
#[tokio::test(start_paused = true)]
async fn an_approval_that_comes_late_hits_no_other_step() {
    let newer = {
        let mut newer = status(1, "StepPaused");
        newer["canaryStatus"]["canaryRevision"] = json!("newer");
        newer
    };
    for (meanwhile, ok) in [
        (status(2, "StepPaused"), false),
        (status(1, "StepUpgrade"), false),
        (newer, false),
        (status(1, "StepReady"), true),
    ] {
        let cluster = cluster(1, "StepPaused").await;
        // The person's patch takes a second to arrive.
        let latency = Fault::Latency(Duration::from_secs(1)..=Duration::from_secs(1));
        cluster.add_fault(Rule::new("person", latency).on(&[Verb::Patch]));
        let late = run(&cluster, "approve rollout/rollouts-demo");
        let moves = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            set_status(&cluster, &meanwhile).await;
        };
        let ((done, out, err), ()) = tokio::join!(late, moves);
        assert_eq!(done, ok, "{out}{err}");
        assert_eq!(stored(&cluster)["status"], meanwhile, "as the controller left it");
        if ok {
            assert!(out.ends_with("already approved (step 1 of 2)\n"), "{out}");
        } else {
            assert!(err.contains("changed while step 1 was being approved, nothing was approved"), "{err}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_who_follows_sees_every_change_across_a_broken_watch() {
    let cluster = cluster(1, "StepUpgrade").await;
    let follow = run(&cluster, "status rollout/rollouts-demo");
    let play = async {
        let pause = || tokio::time::sleep(Duration::from_secs(2));
        pause().await;
        set_status(&cluster, &status(1, "StepPaused")).await;
        pause().await;
        cluster.break_watches("person");
        set_status(&cluster, &status(2, "StepPaused")).await;
        pause().await;
        pause().await;
        let end = json!({"phase": "Healthy", "message": "rollout is healthy",
                         "conditions": [{"type": "Succeeded", "status": "True", "reason": "", "message": ""}]});
        set_status(&cluster, &end).await;
    };
    let ((ok, out, err), ()) = tokio::join!(follow, play);
    assert!(ok, "{err}");
    let lines: Vec<_> = out.lines().collect();
    let marks = [
        "step 1/2 StepUpgrade",
        "step 1/2 StepPaused",
        "step 2/2 StepPaused",
        "Healthy: rollout is healthy",
        "released (revision r)",
    ];
    assert_eq!(lines.len(), marks.len(), "{lines:?}");
    for (line, mark) in lines.iter().zip(marks) {
        assert!(line.contains(mark), "{line}");
    }
    assert_eq!(writes_of_person(&cluster), 0);
}

#[tokio::test(start_paused = true)]
async fn describe_and_get_read_only() {
    let cluster = cluster(1, "StepPaused").await;
    let (ok, page, err) = run(&cluster, "describe rollout/rollouts-demo").await;
    assert!(ok, "{err}");
    for line in ["  → 1  20% of requests, then approval  (StepPaused)", "Pods:         none", "Events:       none"] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    let (ok, table, _) = run(&cluster, "get -A").await;
    assert!(ok && table.starts_with("NAMESPACE   NAME"), "{table}");
    let (_, object, _) = run(&cluster, "get rollout/rollouts-demo -o json").await;
    let mut object: Value = serde_json::from_str(&object).unwrap();
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(object, stored(&cluster));
    assert_eq!(writes_of_person(&cluster), 0);
}
