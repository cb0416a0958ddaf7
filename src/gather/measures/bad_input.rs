//! What users get wrong and what servers do wrong, in one table: each is bounded in time and size, named with its remedy, and
//! no reason to promote or to roll back.

use std::time::{Duration, Instant};

use super::{
    http::{LARGEST, Web},
    login::Logins,
    servers::Servers,
    stand_ins::{ask_of, vector},
    *,
};
use crate::{
    analysis::{
        judge::{self, Finding},
        metric::{self, Metric},
        templates,
    },
    api::analysis::{self as api, AnalysisPhase, MetricProvider, MetricStatus, OnNoData, Prometheus, SecretRef},
    gather::stand_ins::{Objects, Server, api as api_server, certificate, http_answer, secret, status_answer},
};

/// How a question comes to nothing.
enum Bad {
    /// The server's bytes.
    Says(Vec<u8>),
    /// A certificate that ended in a year, and whether the Secret has its authority.
    Tls(i32, bool),
    /// The Secret of the Rollout's namespace.
    Secret(Option<serde_json::Value>),
    /// It never answers.
    Hangs,
    /// Nobody listens.
    Away,
}

struct Never;

impl Provider for Never {
    fn ask<'a>(&'a self, _: &'a Ask) -> BoxFuture<'a, Answer> {
        Box::pin(std::future::pending())
    }
}

/// What comes of it, by real connections.
async fn answer(bad: Bad) -> Answer {
    let question = |address: &str, has_login: bool| {
        let secret_ref = has_login.then(|| SecretRef { name: "login".into() });
        let prometheus = Prometheus { address: address.into(), tenant: None, secret_ref };
        ask_of(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }, "up")
    };
    let objects = Objects::default();
    let logins = Some(Logins::new(api_server(objects.clone())));
    let keep = |secret: serde_json::Value| objects.lock().unwrap().insert("secrets/login".into(), secret);
    let mut provider: Arc<dyn Provider> =
        Arc::new(Servers { http: Arc::new(Web::default()), logins, allowed: Vec::new() });
    let ask = match bad {
        Bad::Says(bytes) => question(&Server::start(move || bytes.clone(), None).await.address, false),
        Bad::Tls(year, is_known) => {
            let (tls, ca) = certificate(year);
            let ca = if is_known { ca } else { certificate(2999).1 };
            keep(secret(&[("ca.crt", &ca)]));
            question(&Server::start(|| http_answer(&vector("")), Some(tls)).await.address, true)
        }
        Bad::Secret(secret) => {
            secret.map(keep);
            question(&Server::start(|| http_answer(&vector("")), None).await.address, true)
        }
        Bad::Hangs => {
            provider = Arc::new(Never);
            tokio::time::pause();
            question("http://localhost", false)
        }
        Bad::Away => {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            question(&format!("http://localhost:{}", listener.local_addr().unwrap().port()), false)
        }
    };
    let means = Means { provider, clock: Arc::new(|| Timestamp::UNIX_EPOCH), metrics: Metrics::new() };
    means.answer(&ask, Timestamp::UNIX_EPOCH).await.answer
}

/// A metric without any mercy: what has no data long enough has failed.
fn metric(on_no_data: OnNoData) -> Metric {
    let prometheus = Prometheus { address: "http://prometheus:9090".into(), ..Prometheus::default() };
    let metric = api::Metric {
        name: "errors".into(),
        provider: Some(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }),
        query: Some("up".into()),
        max: Some(0.01),
        interval: Some("30s".into()),
        no_data_timeout: Some("1m".into()),
        on_no_data: Some(on_no_data),
        ..api::Metric::default()
    };
    metric::read("a", &api::Analysis { metrics: vec![metric], ..api::Analysis::default() }).unwrap().metrics.remove(0)
}

/// How a metric stands after two hours of the same answer, and what is said of it.
fn judged(metric: &Metric, answer: &Answer) -> (Finding, AnalysisPhase, String) {
    let mut status = MetricStatus::default();
    let mut at = Timestamp::from_second(1_800_000_000).unwrap();
    let end = at + SignedDuration::from_hours(2);
    let mut found = Finding::NoData;
    while at < end && status.phase == AnalysisPhase::Running {
        found = judge::take_in(&mut status, metric, "up", &[Sample { at, answer: answer.clone() }]).0;
        status.phase = judge::phase(&status, metric, false);
        at = status.next_time.as_ref().unwrap().0;
    }
    (found, status.phase, judge::describe(&status, metric))
}

#[test]
fn what_is_wrong_is_bounded_and_named_and_the_release_stands_still() {
    use AnalysisPhase::{Inconclusive, Running};
    use Finding::{Mistake, NoData, Unavailable};
    let error = |status, kind: &str, text: &str| {
        let body = serde_json::json!({"status": "error", "errorType": kind, "error": text}).to_string();
        Bad::Says(status_answer(status, "", &body))
    };
    let says = |result: &str| Bad::Says(http_answer(&vector(result)));
    let series = |count: usize| vec![r#"{"metric":{},"value":[1,"0.25"]}"#; count].join(",");
    let hundred = || {
        // As much of 100 MB as it takes until nobody reads on.
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n";
        Bad::Says([head.to_vec(), vec![b' '; 4 * LARGEST]].concat())
    };
    let chunked =
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400000\r\n".to_vec(), vec![b' '; 4 * LARGEST]];
    let to = "location: http://169.254.169.254/api/v1/query\r\n";
    let (inf, no_number) = (r#"{"metric":{},"value":[1,"+Inf"]}"#, r#"{"metric":{},"value":[1,"x"]}"#);
    let table: Vec<(&str, Bad, Finding, AnalysisPhase, &[&str])> = vec![
        (
            "a syntax error",
            error(400, "bad_data", "1:3: parse error"),
            Mistake,
            Running,
            &["400, bad_data: 1:3: parse error"],
        ),
        ("an error of a page", error(422, "execution", &"ü".repeat(9000)), Mistake, Running, &["422, execution: ü"]),
        (
            "no Secret",
            Bad::Secret(None),
            Mistake,
            Running,
            &["Secret demo/login is missing; create it, or name another"],
        ),
        (
            "a Secret without what it takes",
            Bad::Secret(Some(secret(&[("token", "t")]))),
            Mistake,
            Running,
            &["Secret login does not say where it may be sent; add the key address with http://localhost"],
        ),
        (
            "an expired certificate",
            Bad::Tls(2001, true),
            Mistake,
            Running,
            &["TLS: invalid peer certificate", "xpired"],
        ),
        ("another authority's", Bad::Tls(2999, false), Mistake, Running, &["TLS: invalid peer certificate: "]),
        ("100 MB", hundred(), Mistake, Running, &["the answer is larger than 1 MiB"]),
        ("endless parts", Bad::Says(chunked.concat()), Mistake, Running, &["the answer is larger than 1 MiB"]),
        ("100,000 series", says(&series(100_000)), Mistake, Running, &["the answer is larger than 1 MiB"]),
        (
            "a redirect to another host",
            Bad::Says(status_answer(307, to, "")),
            Mistake,
            Running,
            &["redirects to http://169.254.169.254/", "not followed; name the right address"],
        ),
        (
            "another login",
            Bad::Says(status_answer(401, "", "")),
            Mistake,
            Running,
            &["401: the server asks for another login; see secretRef"],
        ),
        ("a page", Bad::Says(http_answer("<html>")), Mistake, Running, &["none of Prometheus' HTTP API"]),
        ("no number", says(no_number), Mistake, Running, &["\"x\" is no number"]),
        ("slow", Bad::Hangs, Unavailable, Running, &["no answer within 10 seconds", "(onNoData: wait)"]),
        ("away", Bad::Away, Unavailable, Running, &["refused", "(onNoData: wait)"]),
        ("trouble", Bad::Says(status_answer(503, "", "")), Unavailable, Running, &["503", "(onNoData: wait)"]),
        (
            "half an answer",
            Bad::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{".to_vec()),
            Unavailable,
            Running,
            &["the answer breaks off"],
        ),
        (
            "NaN",
            says(r#"{"metric":{},"value":[1,"NaN"]}"#),
            NoData,
            Running,
            &["the value is NaN: nothing was counted"],
        ),
        ("nothing", says(""), NoData, Running, &["the answer is empty: no series matches"]),
        ("infinite", says(inf), Finding::Inconclusive, Inconclusive, &["value inf is no number"]),
        (
            "10,000 series",
            says(&series(10_000)),
            Finding::Inconclusive,
            Inconclusive,
            &["the answer has 10000 series, of which one is wanted; aggregate them, such as by sum()"],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bad, finding, phase, says) in table {
        // One of its own each: of one the clock stands still.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let begun = Instant::now();
        let answer = runtime.block_on(answer(bad));
        let took = begun.elapsed();
        let (found, stands, text) = judged(&metric(OnNoData::Wait), &answer);
        let is_named = text.starts_with("metric errors: ") && says.iter().all(|part| text.contains(part));
        // It says so much at most, and takes less than what a person would wait.
        if (found, stands) != (finding, phase)
            || !is_named
            || text.len() > 800
            || took > LIMIT + Duration::from_secs(50)
        {
            wrong.push(format!("{name}: {found:?}, {stands:?} after {took:?}: {text}"));
        }
        // What a person must mend never leads to a verdict, however the metric deals with missing data.
        let (_, merciless, _) = judged(&metric(OnNoData::Fail), &answer);
        if finding == Mistake && merciless != Running {
            wrong.push(format!("{name}: {merciless:?} with onNoData: fail"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_cannot_be_asked_at_all_is_named() {
    let named = |template: &str| {
        let mut metric = metric(OnNoData::Fail);
        let (provider, name) = (None, template.to_owned());
        metric.question = metric::Question::Template { provider, name, arguments: Default::default(), compare: None };
        templates::resolve(&metric, &Default::default(), |_| None).unwrap_err()
    };
    let missing = "MetricTemplate errors is neither in the Rollout's namespace nor in the controller's; create it";
    assert_eq!(named("errors"), missing);
    let unknown = "there is no built-in template istio/errors; `tidegate analysis templates` lists them";
    assert!(named("istio/errors").contains(unknown));
    assert!(named("istio/request-success-rate").contains("names no provider; name one at the metric"));
}
