//! The in-memory API server (`tidegate::sim`) answers as a real one, whatever is asked: sequences of requests from a seed
//! go to both, each answer is compared at once and what watches tell at the end. Of sequences that differ the shortest is
//! shown that still does.

mod answers;
mod known;
mod requests;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future, stream};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use similar::TextDiff;
use tidegate::{sim::Cluster, yaml};

use self::{
    answers::Server,
    requests::{Kind, Maker, SELECTORS, Step},
};
use super::in_memory::CONTROLLERS;
use crate::rig::{
    Rig,
    poll::{SOON, until},
    random::Random,
};

const PORT: u16 = 16445;
/// Fixed, so that a run that passed passes again. Others find more: `TIDEGATE_E2E_SEED`.
const SEED: u64 = 1;
const SEQUENCES: usize = 21;
const LENGTH: usize = 20;
/// Differing sequences that are shortened and shown.
const SHOWN: usize = 6;
const SENTINEL: &str = "sentinel";

/// Both servers, and a fresh namespace for each sequence.
struct Pair<'a> {
    real: &'a Client,
    in_memory: Client,
    namespaces: AtomicUsize,
}

/// What a sequence came to.
#[derive(Default)]
struct Outcome {
    answers: usize,
    refused: usize,
    events: usize,
    /// The step that differs (the number of steps: the watches), and how.
    difference: Option<(usize, String)>,
}

enum Compared {
    Alike,
    /// They differ in a known way, and hold different objects from here on.
    Ended,
    Different(String),
}

async fn send(client: &Client, step: &Step) -> Result<(u16, Value)> {
    let body = if step.body.is_null() { Vec::new() } else { step.body.to_string().into_bytes() };
    let request = Request::builder()
        .method(step.method)
        .uri(step.uri())
        .header("content-type", step.media)
        .header("accept", "application/json")
        .header("user-agent", "differ/1")
        .body(Body::from(body))?;
    let response = client.send(request).await?;
    let code = response.status().as_u16();
    let text = String::from_utf8(response.into_body().collect().await?.to_bytes().into())?;
    Ok((code, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn step(method: &'static str, path: &str, body: Value) -> Step {
    Step { method, media: "application/json", path: path.into(), query: Vec::new(), body, over_live: false }
}

async fn made(client: &Client, path: &str, object: &Value) -> Result<Value> {
    let (code, answer) = send(client, &step("POST", path, object.clone())).await?;
    ensure!(code < 300, "{path}: {answer}");
    Ok(answer)
}

impl Pair<'_> {
    async fn namespace(&self) -> Result<String> {
        let name = format!("generated-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        for client in [self.real, &self.in_memory] {
            made(client, "/api/v1/namespaces", &json!({"metadata": {"name": name}})).await?;
            // No controller makes it here, and without it there are no pods.
            let account = json!({"metadata": {"name": "default"}});
            made(client, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
        }
        Ok(name)
    }

    /// Sends the steps to both until the first difference.
    async fn run(&self, kind: &Kind, steps: &[Step]) -> Result<Outcome> {
        let namespace = self.namespace().await?;
        let mut servers =
            [Server::new(self.real, &namespace, &kind.base)?, Server::new(&self.in_memory, &namespace, &kind.base)?];
        let path = kind.path.replace("{namespace}", &namespace);
        let mut starts = Vec::new();
        for server in &servers {
            let (_, list) = send(server.client, &step("GET", &path, Value::Null)).await?;
            starts.push(list["metadata"]["resourceVersion"].as_str().context("a list without version")?.to_owned());
        }
        let mut outcome = Outcome::default();
        for (i, step) in steps.iter().enumerate() {
            let [real, in_memory] = &mut servers;
            let (theirs, ours) = tokio::try_join!(real.ask(step), in_memory.ask(step))?;
            outcome.answers += 1;
            outcome.refused += usize::from(theirs.0 >= 400);
            match differ(step, theirs, ours)? {
                Compared::Alike => {}
                Compared::Ended => return Ok(outcome),
                Compared::Different(text) => {
                    outcome.difference = Some((i, text));
                    return Ok(outcome);
                }
            }
        }
        for selector in [None].into_iter().chain(SELECTORS.map(Some)) {
            let told = servers.iter_mut().zip(&starts).map(|(server, start)| {
                let query = selector.map(|s| format!("labelSelector={}&", s.0)).unwrap_or_default();
                server.told(format!("{path}?{query}watch=true&timeoutSeconds=60&resourceVersion={start}"))
            });
            // One server's watches end with the first that sees the sentinel, so each has its own.
            let mut sentinel = kind.base.clone();
            sentinel["metadata"]["name"] = json!(SENTINEL);
            if let Some((_, key, value)) = selector {
                sentinel["metadata"]["labels"] = json!({key: value});
            }
            for client in [self.real, &self.in_memory] {
                made(client, &path, &sentinel).await?;
            }
            let told = future::try_join_all(told).await?;
            for client in [self.real, &self.in_memory] {
                let mut gone = step("DELETE", &format!("{path}/{SENTINEL}"), Value::Null);
                gone.query.push("gracePeriodSeconds=0".into());
                send(client, &gone).await?;
            }
            outcome.events += told[0].as_array().map_or(0, Vec::len);
            let shown = step("WATCH", selector.map_or("all", |s| s.0), Value::Null);
            let [theirs, ours]: [Value; 2] = told.try_into().ok().context("two servers")?;
            if let Compared::Different(text) = differ(&shown, (200, theirs), (200, ours))? {
                outcome.difference = Some((steps.len(), text));
                return Ok(outcome);
            }
        }
        Ok(outcome)
    }

    /// Leaves out steps as long as both still differ.
    async fn shortened(&self, kind: &Kind, steps: &[Step], at: usize, text: String) -> Result<(Vec<Step>, String)> {
        let mut best = (steps[..steps.len().min(at + 1)].to_vec(), text);
        let mut size = best.0.len() / 2;
        while size > 0 {
            let mut from = 0;
            while from < best.0.len() {
                let mut fewer = best.0.clone();
                fewer.drain(from..fewer.len().min(from + size));
                match self.run(kind, &fewer).await?.difference {
                    Some((at, text)) => {
                        fewer.truncate(at + 1);
                        best = (fewer, text);
                    }
                    None => from += size,
                }
            }
            size /= 2;
        }
        Ok(best)
    }
}

fn differ(step: &Step, mut theirs: (u16, Value), mut ours: (u16, Value)) -> Result<Compared> {
    if known::excuse(step, &mut theirs, &mut ours) {
        return Ok(Compared::Ended);
    }
    if theirs == ours {
        return Ok(Compared::Alike);
    }
    let text = |(code, answer): &(u16, Value)| yaml::to_string(answer).map(|text| format!("{code}\n{text}"));
    let (theirs, ours) = (text(&theirs)?, text(&ours)?);
    let diff = TextDiff::from_lines(&theirs, &ours);
    let diff = diff.unified_diff().context_radius(3).header("real", "in memory").to_string();
    Ok(Compared::Different(format!("{diff}--- the whole real answer\n{theirs}")))
}

async fn install(client: &Client, definitions: &[Value], kinds: &[Kind]) -> Result<()> {
    for definition in definitions {
        made(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await?;
    }
    for kind in kinds {
        let path = kind.path.replace("{namespace}", "default");
        until(&path, SOON, async || {
            let (code, answer) = send(client, &step("GET", &path, Value::Null)).await?;
            ensure!(code == 200, "{answer}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub async fn in_memory_cluster_answers_anything_alike(rig: Arc<Rig>) -> Result<()> {
    known::is_documented()?;
    let spare = rig.empty("generated", PORT).await?;
    let cluster = Cluster::builder().build()?;
    CONTROLLERS.iter().for_each(|controller| cluster.enable_controller(controller, false));
    let pair =
        Pair { real: &spare.objects.client, in_memory: cluster.client("differ"), namespaces: AtomicUsize::new(0) };
    let kinds = requests::kinds()?;
    let mut definitions = yaml::from_str_multi(&std::fs::read_to_string(rig.tools.path("crds.yaml")?)?)?;
    definitions.retain(|d: &Value| d["metadata"]["name"] == "virtualservices.networking.istio.io");
    definitions.push(yaml::from_str(include_str!("../../../../crds/rollouts.kruise.io_rollouts.yaml"))?);
    tokio::try_join!(install(pair.real, &definitions, &kinds), install(&pair.in_memory, &definitions, &kinds))?;

    let mut random = Random::from_seed("in_memory_cluster_answers_anything_alike", SEED);
    let sequences: Vec<(&Kind, Vec<Step>)> = (0..SEQUENCES)
        .map(|i| {
            let kind = &kinds[i % kinds.len()];
            (kind, Maker { random: &mut random, kind }.sequence(LENGTH))
        })
        .collect();
    let outcomes: Vec<(&Kind, &Vec<Step>, Outcome)> = stream::iter(&sequences)
        .map(async |(kind, steps)| Ok::<_, anyhow::Error>((*kind, steps, pair.run(kind, steps).await?)))
        .buffered(6)
        .try_collect()
        .await?;
    let count = |of: fn(&Outcome) -> usize| outcomes.iter().map(|(_, _, o)| of(o)).sum::<usize>();
    let (answers, refused, events) = (count(|o| o.answers), count(|o| o.refused), count(|o| o.events));
    let differ: Vec<_> =
        outcomes.into_iter().filter_map(|(kind, steps, o)| Some((kind, steps, o.difference?))).collect();
    let mut shown = Vec::new();
    for (kind, steps, (at, text)) in differ.iter().take(SHOWN) {
        let (steps, text) = pair.shortened(kind, steps, *at, text.clone()).await?;
        let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
        shown.push(format!("{}\n{text}", steps.join("\n")));
    }
    ensure!(shown.is_empty(), "{} of {SEQUENCES} sequences differ\n\n{}", differ.len(), shown.join("\n\n"));
    ensure!(refused > answers / 10 && refused < answers * 2 / 3, "{refused} of {answers} refused: they prove little");
    eprintln!(
        "e2e: in_memory_cluster_answers_anything_alike: {answers} answers alike, {refused} of them refusals; {events} events"
    );
    Ok(())
}
