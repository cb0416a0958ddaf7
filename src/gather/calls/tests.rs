mod secrets;

use tokio::net::TcpListener;

use super::*;
use crate::gather::{
    measures::{http::Web, stand_ins::Canned},
    stand_ins::{Server, http_answer, status_answer},
};

fn call(url: &str) -> Call {
    Call {
        id: "rel-key".into(),
        due: Timestamp::UNIX_EPOCH,
        to: "hook \"gate\"".into(),
        url: Some(url.into()),
        body: Body::Post("application/json", r#"{"step":1}"#.into()),
        headers: Vec::new(),
        timeout: 2,
        secret: None,
        trust: None,
        kind: Kind::Hook,
    }
}

fn sender(http: Arc<dyn Http>, hosts: &[&str]) -> Sender {
    let hosts = Hosts::new(hosts.iter().map(|host| (*host).to_owned()).collect());
    Sender { hooks: http.clone(), receivers: http, logins: None, hosts, metrics: Metrics::new() }
}

#[test]
fn signs_as_standard_webhooks_do() {
    // The example of the specification.
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = r#"{"test": 2432232314}"#;
    let value = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body).unwrap();
    assert_eq!(value, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let other = signature("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
    assert_ne!(other.unwrap(), value, "a key without the prefix is taken as it is");
    assert!(matches!(signature("whsec_?", "i", "1", ""), Err(Failure::Mistake(why)) if why.contains("no base64")));
}

#[tokio::test]
async fn a_real_exchange() {
    let answer = || status_answer(429, "retry-after: 7\r\n", r#"{"message":"soon"}"#);
    let server = Server::start(answer, None).await;
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let call = call(&format!("{}/gate", server.address));
    let reply = sender(Arc::new(Web::default()), &["localhost"]).answer(&call, at).await;
    let body = r#"{"message":"soon"}"#.to_owned();
    assert_eq!(reply, Reply { at, outcome: Outcome::Answered { status: 429, body, retry_after: Some(7) } });
    let got = server.received().remove(0);
    assert_eq!((got.line.as_str(), got.body.as_str()), ("POST /gate HTTP/1.1", r#"{"step":1}"#));
    for (name, value) in [
        ("content-type", "application/json"),
        ("idempotency-key", "rel-key"),
        ("webhook-id", "rel-key"),
        ("webhook-timestamp", "1800000000"),
    ] {
        assert_eq!(got.headers[name], value, "{name}");
    }
    assert!(!got.headers.contains_key("webhook-signature"), "nothing to sign with");
}

#[tokio::test]
async fn redirects_are_not_followed_and_answers_are_bounded() {
    let large = "x".repeat(LARGEST + 1);
    for (answer, wanted) in [
        (
            status_answer(307, "location: http://169.254.169.254/\r\n", ""),
            Outcome::Answered { status: 307, body: String::new(), retry_after: None },
        ),
        (http_answer(&large), Outcome::Mistake("the answer is larger than 64 KiB".into())),
    ] {
        let server = Server::start(move || answer.clone(), None).await;
        let sender = sender(Arc::new(Web::default()), &["localhost"]);
        let reply = sender.answer(&call(&server.address), Timestamp::UNIX_EPOCH).await;
        assert_eq!(reply.outcome, wanted);
    }
}

#[tokio::test]
async fn hosts_are_the_operators_to_restrict() {
    let http = Arc::new(Canned { status: 200, ..Canned::default() });
    for (hosts, url, says) in [
        (&[][..], "http://127.0.0.1:10250/", "own machine"),
        (&["gate.example"], "https://metadata.internal/", "--hook-hosts"),
    ] {
        let reply = sender(http.clone(), hosts).answer(&call(url), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(&reply.outcome, Outcome::Mistake(why) if why.contains(says)), "{reply:?}");
    }
    assert!(http.asked.lock().unwrap().is_empty(), "nothing is sent");
    let reply =
        sender(http.clone(), &["gate.example"]).answer(&call("https://gate.example/"), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Answered { status: 200, body: String::new(), retry_after: None });
    // The administrator's own receivers are where he says.
    let notice = Call { kind: Kind::Notification, ..call("https://chat.example/") };
    sender(http.clone(), &["gate.example"]).answer(&notice, Timestamp::UNIX_EPOCH).await;
    assert_eq!(http.asked.lock().unwrap().len(), 2);
}

struct Hangs;

impl Http for Hangs {
    fn send<'a>(&'a self, _: Request<Bytes>, _: Option<&'a str>) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_left() {
    let sender = sender(Arc::new(Hangs), &[]);
    let reply = sender.answer(&call("https://gate.example/"), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Unavailable("no answer within 2 seconds".into()));
    // However many requests it is, the first that is not answered ends it.
    let began = tokio::time::Instant::now();
    let reply = sender.answer(&proof("https://gate.example/", 100), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Unavailable("no answer within 1 seconds".into()));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_name_that_leads_here_is_refused() {
    let server = Server::start(|| http_answer(""), None).await;
    // Any name would do; of this one every system knows where it leads.
    let guarded = sender(Arc::new(Web::guarded()), &["localhost"]);
    let reply = guarded.answer(&call(&server.address), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(&reply.outcome, Outcome::Unavailable(why) if why.contains("own machine or link")), "{reply:?}");
    assert!(server.received().is_empty());
}

fn proof(url: &str, count: u32) -> Call {
    let headers = vec![("host".into(), "shop.example".to_owned()), ("x-canary".into(), "1".to_owned())];
    Call { body: Body::Probe { count }, headers, kind: Kind::Proof, timeout: 1, ..call(url) }
}

#[tokio::test]
async fn a_probe_counts_what_a_gateway_answers() {
    let mut statuses = [200, 302, 503, 200].into_iter();
    let answer = move || status_answer(statuses.next().unwrap(), "location: http://[::1]/\r\n", "ok");
    let gateway = Server::start(answer, None).await;
    let sender = sender(Arc::new(Web::default()), &["localhost"]);
    let proof = proof(&format!("{}/checkout?a=1", gateway.address), 4);
    let reply = sender.answer(&proof, Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Probed([(200, 2), (302, 1), (503, 1)].into()), "a redirect is not followed");
    let received = gateway.received();
    assert_eq!(received.len(), 4, "each by a connection of its own");
    for request in received {
        assert_eq!(request.line, "GET /checkout?a=1 HTTP/1.1");
        for (name, value) in [("host", "shop.example"), ("x-canary", "1"), ("connection", "close")] {
            assert_eq!(request.headers[name], value, "{name}");
        }
        assert!(request.headers["user-agent"].starts_with("tidegate/"), "{request:?}");
        let ours = |name: &String| name.starts_with("webhook-") || name == "content-type";
        assert!(!request.headers.keys().any(ours), "{request:?}");
    }
}

#[tokio::test]
async fn probes_go_where_hooks_may_be() {
    let http = Arc::new(Canned { status: 200, ..Canned::default() });
    for (hosts, url, says) in [
        (&[][..], "http://169.254.169.254/latest/meta-data", "own machine"),
        (&["gateway.infra"], "http://kubernetes.default/", "--hook-hosts"),
    ] {
        let reply = sender(http.clone(), hosts).answer(&proof(url, 3), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(&reply.outcome, Outcome::Mistake(why) if why.contains(says)), "{reply:?}");
    }
    assert!(http.asked.lock().unwrap().is_empty(), "nothing is sent");
    let gateway = proof("http://gateway.infra/", 3);
    let reply = sender(http.clone(), &["gateway.infra"]).answer(&gateway, Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Probed([(200, 3)].into()));
    assert_eq!(http.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_gateway_that_is_away_proves_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let reply = sender(Arc::new(Web::default()), &["127.0.0.1"]).answer(&proof(&url, 9), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(&reply.outcome, Outcome::Unavailable(why) if why.contains("refused")), "{reply:?}");
}
