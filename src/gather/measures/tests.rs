use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;
use crate::{
    api::analysis::{MetricProvider, Prometheus},
    gather::{desk::AT_ONCE, pods::Key},
};

/// Counts who asks, and takes its time.
#[derive(Default)]
struct Server {
    asked: Mutex<Vec<(String, i64)>>,
    at_once: AtomicUsize,
    most: AtomicUsize,
    takes: Duration,
}

struct Asked {
    server: Arc<Server>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Provider for Asked {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        Box::pin(async {
            let now = self.server.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.server.most.fetch_max(now, Ordering::SeqCst);
            self.server.asked.lock().unwrap().push((ask.query.clone(), (self.clock)().as_second()));
            tokio::time::sleep(self.server.takes).await;
            self.server.at_once.fetch_sub(1, Ordering::SeqCst);
            Answer::Value(1.0)
        })
    }
}

struct Bench {
    measures: Measures,
    changes: mpsc::UnboundedReceiver<Change>,
    server: Arc<Server>,
    stop: CancellationToken,
}

fn bench(takes: Duration) -> Bench {
    let begun = tokio::time::Instant::now();
    let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(move || {
        let passed = i64::try_from(begun.elapsed().as_millis()).unwrap();
        Timestamp::from_millisecond(1_800_000_000_000 + passed).unwrap()
    });
    let server = Arc::new(Server { takes, ..Server::default() });
    let provider = Arc::new(Asked { server: server.clone(), clock: clock.clone() });
    let (sender, changes) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let means = Means { provider, clock, metrics: Metrics::new() };
    Bench { measures: measures(means, sender, stop.clone(), TaskTracker::new()), changes, server, stop }
}

fn key(name: &str) -> Key {
    ("demo".to_owned(), name.to_owned())
}

/// A question that is due so many seconds after the beginning.
fn ask(query: &str, after: i64) -> Ask {
    let prometheus = Prometheus { address: "http://prometheus".into(), ..Prometheus::default() };
    let provider = MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() };
    Ask::new(&provider, "demo", query, 30, Timestamp::from_second(1_800_000_000 + after).unwrap())
}

async fn until(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn asks_once_when_it_is_due_and_tells_all_who_want_to_know() {
    let mut bench = bench(Duration::from_millis(20));
    for name in ["a", "b"] {
        bench.measures.want(&key(name), vec![ask("up", 30), ask("down", 40)]);
    }
    until(29).await;
    assert!(bench.server.asked.lock().unwrap().is_empty(), "not before");
    until(5).await;
    // Passes for other reasons want the same.
    bench.measures.want(&key("a"), vec![ask("up", 30), ask("down", 40)]);
    let up = ask("up", 30).id;
    assert_eq!(bench.measures.answers(&key("a")).keys().collect::<Vec<_>>(), [&up]);
    assert_eq!(bench.measures.answers(&key("b"))[&up].answer, Answer::Value(1.0));
    assert_eq!(bench.measures.answers(&key("c")), BTreeMap::new());
    until(100).await;
    let asked = bench.server.asked.lock().unwrap().clone();
    assert_eq!(asked, [("up".into(), 1_800_000_030), ("down".into(), 1_800_000_040)]);
    let mut told = Vec::new();
    while let Ok(Change::Answered((_, name))) = bench.changes.try_recv() {
        told.push(name);
    }
    assert_eq!(told, ["a", "b", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn of_what_is_asked_together_the_last_answer_is_told_as_such() {
    let mut bench = bench(Duration::from_millis(20));
    bench.measures.want(&key("a"), vec![ask("up", 0), ask("down", 0), ask("later", 30)]);
    bench.measures.want(&key("b"), vec![ask("up", 0)]);
    until(1).await;
    let mut told = Vec::new();
    while let Ok(change) = bench.changes.try_recv() {
        told.push(change);
    }
    let [a, b] = ["a", "b"].map(key);
    assert_eq!(told, [Change::AnsweredInPart(a.clone()), Change::Answered(b), Change::Answered(a)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_to_know_any_more_is_not_asked() {
    let bench = bench(Duration::ZERO);
    bench.measures.want(&key("a"), vec![ask("up", 30), ask("down", 30)]);
    bench.measures.want(&key("b"), vec![ask("up", 30)]);
    bench.measures.want(&key("a"), Vec::new());
    until(60).await;
    assert_eq!(bench.server.asked.lock().unwrap().len(), 1, "the other still wants to know");
    bench.measures.want(&key("b"), vec![ask("up", 90)]);
    bench.stop.cancel();
    until(60).await;
    assert_eq!(bench.server.asked.lock().unwrap().len(), 1, "nothing after the end");
    assert_eq!(bench.measures.len(), 1, "nothing is left of what was asked");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_up_nobody_for_ever() {
    let bench = bench(Duration::from_secs(3600));
    for i in 0..100 {
        bench.measures.want(&key(&format!("r{i}")), vec![ask(&format!("q{i}"), 0)]);
    }
    until(9).await;
    assert_eq!(bench.server.most.load(Ordering::SeqCst), AT_ONCE);
    until(2).await;
    let answers = (0..100).filter(|i| !bench.measures.answers(&key(&format!("r{i}"))).is_empty()).count();
    assert_eq!(answers, AT_ONCE);
    let sample = (0..100).find_map(|i| bench.measures.answers(&key(&format!("r{i}"))).into_values().next()).unwrap();
    assert_eq!(sample.answer, Answer::Unavailable("http://prometheus: no answer within 10 seconds".into()));
    until(70).await;
    let answers = (0..100).filter(|i| !bench.measures.answers(&key(&format!("r{i}"))).is_empty()).count();
    assert_eq!(answers, 100);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_when_the_answer_is_there_is_told_at_once() {
    let mut bench = bench(Duration::ZERO);
    bench.measures.want(&key("a"), vec![ask("up", 0)]);
    until(1).await;
    while bench.changes.try_recv().is_ok() {}
    bench.measures.want(&key("b"), vec![ask("up", 0)]);
    assert!(matches!(bench.changes.try_recv(), Ok(Change::Answered((_, name))) if name == "b"));
    bench.measures.want(&key("b"), vec![ask("up", 0)]);
    assert!(bench.changes.try_recv().is_err(), "once");
    assert_eq!(bench.server.asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_pass_that_stalled_the_answer_is_still_known() {
    let mut bench = bench(Duration::from_millis(20));
    bench.measures.want(&key("a"), vec![ask("up", 0)]);
    until(1).await;
    // The pass that the answer leads to stalls before it takes it in, and wants to know nothing.
    bench.measures.want(&key("a"), Vec::new());
    while bench.changes.try_recv().is_ok() {}
    bench.measures.want(&key("a"), vec![ask("up", 0)]);
    until(1).await;
    assert!(matches!(bench.changes.try_recv(), Ok(Change::Answered((_, name))) if name == "a"));
    assert_eq!(bench.measures.answers(&key("a")).len(), 1);
    assert_eq!(bench.server.asked.lock().unwrap().len(), 1, "asked once");
}

#[tokio::test(start_paused = true)]
async fn a_question_under_way_is_asked_to_the_end_though_nobody_wants_to_know() {
    let bench = bench(Duration::from_secs(5));
    for round in 0..3 {
        bench.measures.want(&key("a"), vec![ask("up", 0)]);
        until(1).await;
        assert_eq!(bench.server.asked.lock().unwrap().len(), 1, "round {round}");
        bench.measures.want(&key("a"), Vec::new());
    }
    until(5).await;
    assert_eq!(bench.measures.len(), 0, "nothing is left of it");
    bench.measures.want(&key("a"), vec![ask("up", 0)]);
    until(1).await;
    assert_eq!(bench.measures.answers(&key("a")).len(), 1);
    assert_eq!(bench.server.asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_question_is_asked_more_often_than_its_interval_says_whoever_asks() {
    let bench = bench(Duration::from_millis(20));
    // Others come late and want to know of other moments.
    for (after, name, due) in [(0, "a", 0), (20, "b", 10), (1, "c", 21), (3, "d", 30), (40, "a", 60)] {
        until(after).await;
        bench.measures.want(&key(name), vec![ask("up", due)]);
    }
    until(60).await;
    let asked: Vec<i64> = bench.server.asked.lock().unwrap().iter().map(|(_, at)| at - 1_800_000_000).collect();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 27), "{asked:?}");
    for name in ["a", "b", "c", "d"] {
        assert_eq!(bench.measures.answers(&key(name)).len(), 1, "{name}: {asked:?}");
    }
}
