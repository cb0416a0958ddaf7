use std::sync::Mutex;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::gather::measures::http::Web;

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

/// A server that answers one request with these bytes; what it was sent.
async fn server(answer: impl Into<Vec<u8>>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/gate", listener.local_addr().unwrap());
    let answer = answer.into();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains(r#"{"step":1}"#) {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "the request breaks off");
            got.extend_from_slice(&part[..n]);
        }
        // A client that has read enough goes away.
        let _ = stream.write_all(&answer).await;
        String::from_utf8(got).unwrap()
    });
    (address, served)
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
    let (address, served) =
        server(b"HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 18\r\n\r\n{\"message\":\"soon\"}").await;
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let reply = sender(Arc::new(Web::default()), &["127.0.0.1"]).answer(&call(&address), at).await;
    let body = r#"{"message":"soon"}"#.to_owned();
    assert_eq!(reply, Reply { at, outcome: Outcome::Answered { status: 429, body, retry_after: Some(7) } });
    let got = served.await.unwrap().to_ascii_lowercase();
    assert!(got.starts_with("post /gate http/1.1\r\n"), "{got}");
    for header in [
        "content-type: application/json",
        "idempotency-key: rel-key",
        "webhook-id: rel-key",
        "webhook-timestamp: 1800000000",
    ] {
        assert!(got.contains(header), "{header}: {got}");
    }
    assert!(!got.contains("webhook-signature"), "nothing to sign with");
}

#[tokio::test]
async fn redirects_are_not_followed_and_answers_are_bounded() {
    let (address, _served) =
        server(b"HTTP/1.1 307 T\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n").await;
    let sender = sender(Arc::new(Web::default()), &["127.0.0.1"]);
    let reply = sender.answer(&call(&address), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(reply.outcome, Outcome::Answered { status: 307, .. }), "{reply:?}");
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let (address, _served) = server(large).await;
    let reply = sender.answer(&call(&address), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Mistake("the answer is larger than 64 KiB".into()));
}

/// Keeps what it was sent.
#[derive(Default)]
struct Kept(Mutex<Vec<Request<Bytes>>>);

impl Http for Kept {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        self.0.lock().unwrap().push(request);
        Box::pin(async { Ok(Response::new(Bytes::new())) })
    }
}

#[tokio::test]
async fn hosts_are_the_operators_to_restrict() {
    let http = Arc::new(Kept::default());
    for (hosts, url, says) in [
        (&[][..], "http://127.0.0.1:10250/", "own machine"),
        (&["gate.example"], "https://metadata.internal/", "--hook-hosts"),
    ] {
        let reply = sender(http.clone(), hosts).answer(&call(url), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(&reply.outcome, Outcome::Mistake(why) if why.contains(says)), "{reply:?}");
    }
    assert!(http.0.lock().unwrap().is_empty(), "nothing is sent");
    let reply =
        sender(http.clone(), &["gate.example"]).answer(&call("https://gate.example/"), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Answered { status: 200, body: String::new(), retry_after: None });
    // The administrator's own receivers are where he says.
    let notice = Call { kind: Kind::Notification, ..call("https://chat.example/") };
    sender(http.clone(), &["gate.example"]).answer(&notice, Timestamp::UNIX_EPOCH).await;
    assert_eq!(http.0.lock().unwrap().len(), 2);
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
    let (address, served) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = address.trim_end_matches("/gate").rsplit(':').next().unwrap().to_owned();
    // Any name would do; of this one every system knows where it leads.
    let named = format!("http://localhost:{port}/gate");
    let guarded = sender(Arc::new(Web::guarded()), &["localhost"]);
    let reply = guarded.answer(&call(&named), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(&reply.outcome, Outcome::Unavailable(why) if why.contains("own machine or link")), "{reply:?}");
    served.abort();
}

fn proof(url: &str, count: u32) -> Call {
    let headers = vec![("host".into(), "shop.example".to_owned()), ("x-canary".into(), "1".to_owned())];
    Call { body: Body::Probe { count }, headers, kind: Kind::Proof, timeout: 1, ..call(url) }
}

/// A gateway that answers each connection with the next of these statuses; what it was sent.
async fn gateway(statuses: &'static [u16]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/checkout?a=1", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut requests = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n\r\n") {
                got.push(stream.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nlocation: http://[::1]/\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.unwrap();
            requests.push(String::from_utf8(got).unwrap());
        }
        requests
    });
    (address, served)
}

#[tokio::test]
async fn a_probe_counts_what_a_gateway_answers() {
    let (address, served) = gateway(&[200, 302, 503, 200]).await;
    let sender = sender(Arc::new(Web::default()), &["127.0.0.1"]);
    let reply = sender.answer(&proof(&address, 4), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Probed([(200, 2), (302, 1), (503, 1)].into()), "a redirect is not followed");
    let requests = served.await.unwrap();
    assert_eq!(requests.len(), 4, "each by a connection of its own");
    for request in requests {
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("get /checkout?a=1 http/1.1\r\n"), "{request}");
        for header in ["host: shop.example\r\n", "x-canary: 1\r\n", "connection: close\r\n", "user-agent: tidegate/"] {
            assert!(request.contains(header), "{header}: {request}");
        }
        assert_eq!(request.matches("host:").count(), 1, "{request}");
        assert!(!request.contains("webhook-") && !request.contains("content-type"), "{request}");
    }
}

#[tokio::test]
async fn probes_go_where_hooks_may_be() {
    let http = Arc::new(Kept::default());
    for (hosts, url, says) in [
        (&[][..], "http://169.254.169.254/latest/meta-data", "own machine"),
        (&["gateway.infra"], "http://kubernetes.default/", "--hook-hosts"),
    ] {
        let reply = sender(http.clone(), hosts).answer(&proof(url, 3), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(&reply.outcome, Outcome::Mistake(why) if why.contains(says)), "{reply:?}");
    }
    assert!(http.0.lock().unwrap().is_empty(), "nothing is sent");
    let gateway = proof("http://gateway.infra/", 3);
    let reply = sender(http.clone(), &["gateway.infra"]).answer(&gateway, Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Probed([(200, 3)].into()));
    assert_eq!(http.0.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_gateway_that_is_away_proves_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let reply = sender(Arc::new(Web::default()), &["127.0.0.1"]).answer(&proof(&url, 9), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(&reply.outcome, Outcome::Unavailable(why) if why.contains("refused")), "{reply:?}");
}
