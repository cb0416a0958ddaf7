//! What people are told of a release: `examples/notifications` with the real controller on the in-memory cluster, and each kind
//! of receiver over a real connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod stage;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Status;
use serde_json::{Value, json};
use stage::{Stage, play};
use tidegate::{
    api::notifications::{News, Notifications, Occasion, Receiver},
    cli::demo::world::manifests,
    controller::Options,
    gather::{
        calls::{Sender, hosts::Hosts},
        desk::Answerer,
        measures::http::Web,
    },
    rollout::{
        calls::{Body, Call, Kind, Outcome, Reply},
        notifications::message::{About, taken, write},
    },
    sim::{AdmissionRequest, Cluster},
    telemetry::Metrics,
    yaml,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/notifications");

/// Slack and a broker, as far as they matter here.
#[derive(Clone, Default)]
struct Receivers {
    /// Text of each message in the channel.
    channel: Arc<Mutex<Vec<String>>>,
    /// Types of events.
    events: Arc<Mutex<Vec<String>>>,
    /// Every text that Slack was sent.
    texts: Arc<Mutex<Vec<String>>>,
    is_away: Arc<Mutex<bool>>,
}

impl Answerer<Call> for Receivers {
    fn answer<'a>(&'a self, call: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let outcome = if *self.is_away.lock().unwrap() {
                Outcome::Unavailable("connection refused".into())
            } else {
                let Body::Post(_, body) = &call.body else { panic!("{call:?}") };
                let body = self.take(call, &serde_json::from_str(body).unwrap());
                Outcome::Answered { status: 200, body, retry_after: None }
            };
            Reply { at, outcome }
        })
    }
}

impl Receivers {
    fn take(&self, call: &Call, body: &Value) -> String {
        let Some(method) = call.url.as_ref().unwrap().strip_prefix("https://slack.com/api/") else {
            self.events.lock().unwrap().push(body["type"].as_str().unwrap().to_owned());
            return String::new();
        };
        let mut channel = self.channel.lock().unwrap();
        let text = body["text"].as_str().unwrap().to_owned();
        self.texts.lock().unwrap().push(text.clone());
        let ts = match method {
            "chat.postMessage" => {
                channel.push(text);
                channel.len()
            }
            "chat.update" => {
                let ts = body["ts"].as_str().unwrap().parse().unwrap();
                let message: &mut String = channel.get_mut(ts - 1usize).unwrap();
                *message = text;
                ts
            }
            other => panic!("{other}"),
        };
        json!({"ok": true, "channel": body["channel"], "ts": ts.to_string()}).to_string()
    }
}

async fn stage() -> (Stage, Receivers) {
    let receivers = Receivers::default();
    (Stage::new(&MANIFESTS, adjust(&receivers)).await, receivers)
}

fn adjust(receivers: &Receivers) -> impl Fn(&mut Options, &CancellationToken) + 'static {
    let caller = receivers.clone();
    move |options, _| {
        let caller = caller.clone();
        options.caller = Arc::new(move |_, _| Box::new(caller.clone()));
    }
}

fn waits(status: &Value) -> bool {
    status["currentStepState"] == "StepPaused" && status["notifications"].get("news").is_none()
}

#[test]
fn a_release_is_one_message_in_slack() {
    play(async {
        let (stage, receivers) = stage().await;
        assert!(receivers.texts.lock().unwrap().is_empty(), "nothing to tell of a Rollout that is installed");
        stage.release("2").await;
        stage.until("waits, and all know it", waits).await;
        let said = |text: &str| format!("default/shop ({text}");
        assert_eq!(*receivers.channel.lock().unwrap(), [said("1/2): step 1 of 2 waits for approval")]);
        stage.approve().await;
        let is_known = |s: &Value| s["phase"] == "Healthy" && s["notifications"].get("news").is_none();
        stage.until("done, and all know it", is_known).await;
        assert_eq!(*receivers.channel.lock().unwrap(), [said("2/2): Rollout progressing has been completed")]);
        let events = receivers.events.lock().unwrap().clone();
        assert_eq!(events, ["io.kruise.rollouts.Started.v1", "io.kruise.rollouts.Finished.v1"], "only what it wants");
        // The next release is another message.
        stage.release("3").await;
        stage.until("waits again", waits).await;
        assert_eq!(receivers.channel.lock().unwrap().len(), 2);
    });
}

#[test]
fn a_restart_tells_nothing_twice_and_forgets_nothing() {
    play(async {
        let (mut stage, receivers) = stage().await;
        stage.release("2").await;
        stage.until("waits, and all know it", waits).await;
        let before = receivers.texts.lock().unwrap().len();
        stage.stop();
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.start();
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(receivers.texts.lock().unwrap().len(), before, "no flood");
        // It stops before it can tell of the end.
        *receivers.is_away.lock().unwrap() = true;
        stage.approve().await;
        stage.until("done", |s| s["phase"] == "Healthy").await;
        stage.stop();
        *receivers.is_away.lock().unwrap() = false;
        stage.start();
        stage.until("all know it", |s| s["notifications"].get("news").is_none()).await;
        let channel = receivers.channel.lock().unwrap().clone();
        assert_eq!(channel.last().unwrap(), "default/shop (2/2): Rollout progressing has been completed");
        assert_eq!(channel.len(), 1);
    });
}

#[test]
fn nobody_who_is_away_holds_up_a_release() {
    play(async {
        let (stage, receivers) = stage().await;
        *receivers.is_away.lock().unwrap() = true;
        stage.release("2").await;
        stage.until("waits", |s| s["currentStepState"] == "StepPaused").await;
        stage.approve().await;
        stage.until("done", |s| s["phase"] == "Healthy").await;
        tokio::time::sleep(Duration::from_secs(1200)).await;
        assert!(stage.status()["notifications"].get("news").is_none(), "it is given up: {:#}", stage.status());
    });
}

/// A webhook of others that refuses whatever opens a Deployment.
fn no_changes_today(write: &AdmissionRequest<'_>, refuses: &AtomicBool) -> Result<Option<Value>, Box<Status>> {
    let is_opened = write.gvr.resource == "deployments"
        && write.subresource.is_none()
        && write.old_object.is_some_and(|old| old["spec"]["template"] == write.object["spec"]["template"]);
    if is_opened && refuses.load(Ordering::Relaxed) {
        let why = "admission webhook \"freeze.example.com\" denied the request: no changes today";
        return Err(Box::new(Status::failure(why, "Forbidden").with_code(403)));
    }
    Ok(None)
}

/// What the API server refuses is known only after everything else was decided; people are told all the same, once.
#[test]
fn a_write_that_is_refused_is_told_once() {
    play(async {
        let is_refusing = Arc::new(AtomicBool::new(false));
        let refuses = is_refusing.clone();
        let policy = move |write: &AdmissionRequest<'_>| no_changes_today(write, &refuses);
        let receivers = Receivers::default();
        let stage =
            Stage::on(Cluster::builder().admission(policy), manifests(&MANIFESTS).unwrap(), adjust(&receivers)).await;
        is_refusing.store(true, Ordering::Relaxed);
        stage.release("2").await;
        stage.until("refused", |_| stage.condition("Stalled")["reason"] == "WriteRefused").await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let told = receivers.texts.lock().unwrap().clone();
        let failed: Vec<&String> = told.iter().filter(|text| text.contains("no changes today")).collect();
        assert_eq!(failed.len(), 1, "{told:#?}");
        assert!(stage.status()["notifications"].get("news").is_none(), "{:#}", stage.status());
        is_refusing.store(false, Ordering::Relaxed);
        stage.until("goes on by itself", waits).await;
        assert_eq!(stage.condition("Stalled"), Value::Null);
        let last = receivers.channel.lock().unwrap().clone();
        assert_eq!(last, ["default/shop (1/2): step 1 of 2 waits for approval"], "the release is one message");
    });
}

/// Where nobody is told, nothing is kept of what there would be to tell.
#[test]
fn a_write_that_is_refused_leaves_nothing_where_nobody_is_told() {
    play(async {
        let is_refusing = Arc::new(AtomicBool::new(false));
        let kept = Arc::new(AtomicBool::new(false));
        let (refuses, keeps) = (is_refusing.clone(), kept.clone());
        let policy = move |write: &AdmissionRequest<'_>| {
            if write.gvr.resource == "rollouts" && write.object["status"].get("notifications").is_some() {
                keeps.store(true, Ordering::Relaxed);
            }
            no_changes_today(write, &refuses)
        };
        let receivers = Receivers::default();
        let objects =
            manifests(&MANIFESTS).unwrap().into_iter().filter(|object| object["kind"] != "ConfigMap").collect();
        let stage = Stage::on(Cluster::builder().admission(policy), objects, adjust(&receivers)).await;
        is_refusing.store(true, Ordering::Relaxed);
        stage.release("2").await;
        stage.until("refused", |_| stage.condition("Stalled")["reason"] == "WriteRefused").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        is_refusing.store(false, Ordering::Relaxed);
        stage.until("goes on by itself", waits).await;
        assert!(!kept.load(Ordering::Relaxed), "nobody would ever read it");
    });
}

/// A server that answers each request with the next of these; what it was sent: request line and headers by name, and body.
async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<(BTreeMap<String, String>, Value)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut all = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            let (head, body) = loop {
                let mut part = [0; 4096];
                let n = stream.read(&mut part).await.unwrap();
                assert!(n > 0, "the request breaks off");
                got.extend_from_slice(&part[..n]);
                let text = String::from_utf8_lossy(&got);
                if let Some((head, body)) = text.split_once("\r\n\r\n")
                    && let Ok(body) = serde_json::from_str::<Value>(body)
                {
                    break (head.to_owned(), body);
                }
            };
            let mut lines = head.lines();
            let mut headers = BTreeMap::from([("".to_owned(), lines.next().unwrap().to_owned())]);
            let split = lines.filter_map(|line| line.split_once(": "));
            headers.extend(split.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())));
            all.push((headers, body));
            let close =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(close.as_bytes()).await.unwrap();
        }
        all
    });
    (address, served)
}

fn receiver(text: &str) -> Receiver {
    let mut read: Notifications = yaml::from_str(&format!("receivers: [{text}]")).unwrap();
    read.receivers.remove(0)
}

/// Sends one piece of news for real; what came back.
async fn send(receiver: &Receiver, reference: &str) -> Result<Option<String>, (String, Option<i64>)> {
    let time = Some(Time("2026-11-22T06:10:00Z".parse().unwrap()));
    let news = News { number: 2, event: Occasion::StepDone, step: 1, message: "good".into(), time };
    let about = About {
        namespace: "shop".into(),
        rollout: "web".into(),
        data: json!({"event": "StepDone", "step": 1}),
        id: "rel-2".into(),
        text: "shop/web: <1> & \"good\"".into(),
    };
    let message = write(receiver, &news, &about, reference);
    let call = Call {
        id: about.id,
        due: Timestamp::UNIX_EPOCH,
        to: "receiver".into(),
        url: message.url,
        body: Body::Post(message.body.0, message.body.1),
        headers: message.headers.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        timeout: 60,
        secret: None,
        trust: None,
        kind: Kind::Notification,
    };
    let (http, hosts) = (Arc::new(Web::default()), Hosts::default());
    let sender = Sender { hooks: http.clone(), receivers: http, logins: None, hosts, metrics: Metrics::new() };
    taken(receiver, &sender.answer(&call, Timestamp::UNIX_EPOCH).await.outcome)
}

#[tokio::test]
async fn slack_by_its_web_api() {
    let posted = json!({"ok": true, "channel": "C1", "ts": "1503435956.000247", "message": {"text": "x"}});
    let gone = json!({"ok": false, "error": "message_not_found"});
    let (address, served) = server([&posted, &posted, &gone].map(Value::to_string).to_vec()).await;
    let slack = receiver(&format!("{{name: a, type: slack, channel: C1, url: '{address}/api'}}"));
    let reference = send(&slack, "").await.unwrap().unwrap();
    send(&slack, &reference).await.unwrap();
    assert_eq!(send(&slack, &reference).await, Err(("message_not_found".into(), None)));
    let sent = served.await.unwrap();
    assert_eq!(sent[0].0[""], "POST /api/chat.postMessage HTTP/1.1");
    assert_eq!(sent[0].0["content-type"], "application/json; charset=utf-8");
    let text = "shop/web: &lt;1&gt; &amp; \"good\"";
    assert_eq!(sent[0].1, json!({"channel": "C1", "text": text}));
    assert_eq!(sent[1].0[""], "POST /api/chat.update HTTP/1.1");
    assert_eq!(sent[1].1, json!({"channel": "C1", "ts": "1503435956.000247", "text": text}));
}

#[tokio::test]
async fn slack_and_teams_by_a_webhook() {
    let (address, served) = server(vec!["ok".into(), String::new()]).await;
    let of = |kind: &str| receiver(&format!("{{name: a, type: {kind}, url: '{address}/hook'}}"));
    assert_eq!(send(&of("slack"), "").await, Ok(None));
    assert_eq!(send(&of("teams"), "").await, Ok(None));
    let sent = served.await.unwrap();
    assert_eq!(sent[0].1, json!({"text": "shop/web: &lt;1&gt; &amp; \"good\""}));
    let card = &sent[1].1["attachments"][0];
    assert_eq!(
        (&sent[1].1["type"], &card["contentType"]),
        (&json!("message"), &json!("application/vnd.microsoft.card.adaptive"))
    );
    assert_eq!(card["content"]["body"][0]["text"], "shop/web: <1> & \"good\"");
}

#[tokio::test]
async fn cloud_events_in_both_modes_and_plain_json() {
    let (address, served) = server(vec![String::new(); 3]).await;
    for more in ["type: cloudevents", "type: cloudevents, mode: binary", "type: webhook"] {
        assert_eq!(send(&receiver(&format!("{{name: a, {more}, url: '{address}'}}")), "").await, Ok(None));
    }
    let sent = served.await.unwrap();
    let data = json!({"event": "StepDone", "step": 1});
    assert_eq!(sent[0].0["content-type"], "application/cloudevents+json; charset=utf-8");
    let source = "/apis/rollouts.kruise.io/v1beta1/namespaces/shop/rollouts/web";
    let event = json!({"specversion": "1.0", "id": "rel-2", "source": source, "type": "io.kruise.rollouts.StepDone.v1",
        "time": "2026-11-22T06:10:00Z", "datacontenttype": "application/json", "data": data});
    assert_eq!(sent[0].1, event);
    assert_eq!((&sent[1].1, &sent[2].1), (&data, &data));
    assert_eq!(sent[1].0["content-type"], "application/json");
    for name in ["specversion", "id", "source", "type", "time"] {
        assert_eq!(sent[1].0[&format!("ce-{name}")], event[name].as_str().unwrap(), "{name}");
    }
    assert_eq!(sent[2].0["webhook-id"], "rel-2");
}
