//! What comes of a release in each situation that docs/analysis.md speaks of: a table, as one who has read it would expect.

mod rows;

use std::sync::atomic::{AtomicUsize, Ordering};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use tidegate::{api::v1beta1::Rollout, cli::rollout::approve::approval_patch};

use super::*;

/// What a person does at a second after the release began.
enum Deed {
    Approve,
    /// Another version of the workload.
    Release(&'static str),
    /// A merge patch of the Rollout's spec.
    Spec(Value),
    /// A merge patch of `status.canaryStatus`.
    Status(Value),
}

use Deed::{Approve, Release, Spec, Status};

/// How a release stands.
#[derive(Debug, PartialEq)]
enum End {
    /// Version 2 is everywhere.
    Done,
    /// Version 1 is everywhere.
    Back,
    /// At this step, waiting for a person.
    Waits(i64),
    /// At this step, being measured.
    Measures(i64),
}

/// A server: what it says to a query at a second after the release began.
type Says = fn(&str, i64) -> Answer;

/// How a release stands at a second after it began, and what the Rollout says then.
type Look = (i64, End, &'static str);

struct Row {
    name: &'static str,
    analysis: Value,
    steps: Value,
    says: Says,
    deeds: Vec<(i64, Deed)>,
    looks: Vec<Look>,
}

/// A server that says what a row wants, and counts how often it is asked.
#[derive(Clone)]
struct Told {
    says: Says,
    clock: Arc<Mutex<Option<(Cluster, Timestamp)>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider for Told {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        let passed = self
            .clock
            .lock()
            .unwrap()
            .as_ref()
            .map_or(0, |(cluster, begun)| cluster.clock().now().duration_since(*begun).as_secs());
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = (self.says)(&ask.query, passed);
        Box::pin(async { answer })
    }
}

/// Does it; or says why that is not possible.
async fn act(stage: &Stage, deed: &Deed) -> Result<(), String> {
    let rollouts: Api<Rollout> = Api::namespaced(stage.cluster.client("user"), NAMESPACE);
    match deed {
        Approve => {
            let patch = approval_patch(&rollouts.get(NAME).await.unwrap()).map_err(|why| why.to_string())?;
            rollouts.patch_status(NAME, &PatchParams::default(), &Patch::<Value>::Json(patch)).await.unwrap();
        }
        Release(version) => stage.release_of(NAME, version).await,
        Spec(spec) => {
            let patch = Patch::Merge(json!({"spec": spec}));
            rollouts.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
        }
        Status(status) => {
            let patch = Patch::Merge(json!({"status": {"canaryStatus": status}}));
            rollouts.patch_status(NAME, &PatchParams::default(), &patch).await.unwrap();
        }
    }
    Ok(())
}

/// How the release stands, and all that is said.
fn stands(stage: &Stage) -> (Option<End>, String) {
    let status = stage.status();
    let index = status["currentStepIndex"].as_i64().unwrap_or_default();
    let end = match (status["phase"].as_str(), status["currentStepState"].as_str()) {
        (Some("Healthy"), _) => match (stage.pods("1"), stage.pods("2")) {
            (0, 2) => Some(End::Done),
            (2, 0) => Some(End::Back),
            _ => None,
        },
        (_, Some("StepPaused")) => Some(End::Waits(index)),
        (_, Some("StepMetricsAnalysis")) => Some(End::Measures(index)),
        _ => None,
    };
    (end, format!("{}\n{}", status["message"], stage.condition("Stalled")["message"]))
}

#[test]
fn what_comes_of_a_release_in_each_situation() {
    const AT_ONCE: usize = 4;
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let each =
            |n: usize| move || rows::rows().into_iter().skip(n).step_by(AT_ONCE).flat_map(judge).collect::<Vec<_>>();
        let threads: Vec<_> = (0..AT_ONCE).map(|n| scope.spawn(each(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Plays a row; what is not as it says.
fn judge(row: Row) -> Vec<String> {
    let Row { name, analysis, steps, says, deeds, looks } = row;
    let name = format!("{name} {}", analysis["metrics"][0]["onNoData"].as_str().unwrap_or_default());
    let mut wrong = Vec::new();
    play(async {
        let told = Told { says, clock: Arc::default(), asked: Arc::default() };
        let provider = told.clone();
        let adjust = move |options: &mut tidegate::controller::Options, _: &_| {
            let provider = provider.clone();
            options.provider = Arc::new(move |_| Arc::new(provider.clone()));
        };
        let [deployment, mut rollout] = application(NAME);
        rollout["spec"]["strategy"] = json!({"analysis": analysis, "canary": {"steps": steps}});
        let stage = Stage::on(Cluster::builder(), vec![deployment, rollout], adjust).await;
        let begun = stage.cluster.clock().now();
        *told.clock.lock().unwrap() = Some((stage.cluster.clone(), begun));
        stage.release_of(NAME, "2").await;
        let mut deeds = deeds.into_iter().peekable();
        let second = async |second: i64| {
            let passed = stage.cluster.clock().now().duration_since(begun).as_secs();
            tokio::time::sleep(Duration::from_secs((second - passed).max(0) as u64)).await;
        };
        for (at, end, says) in looks {
            while let Some((at, deed)) = deeds.next_if(|(deed, _)| *deed < at) {
                second(at).await;
                wrong.extend(act(&stage, &deed).await.err().map(|why| format!("{name}: at {at} s {why}")));
            }
            second(at).await;
            let (found, said) = stands(&stage);
            if found.as_ref() != Some(&end) || !said.contains(says) {
                wrong.push(format!("{name}: at {at} s {end:?} {says:?}, found {found:?}: {said}"));
            }
        }
        // Whoever has ended asks nobody.
        let (end, _) = stands(&stage);
        let asked = told.asked.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(120)).await;
        if matches!(end, Some(End::Done | End::Back)) && told.asked.load(Ordering::Relaxed) != asked {
            wrong.push(format!("{name}: it goes on asking"));
        }
    });
    wrong
}
