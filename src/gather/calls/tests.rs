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
        body: ("application/json", r#"{"step":1}"#.into()),
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

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_left() {
    struct Hangs;
    impl Http for Hangs {
        fn send<'a>(
            &'a self,
            _: Request<Bytes>,
            _: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
            Box::pin(std::future::pending())
        }
    }
    let reply = sender(Arc::new(Hangs), &[]).answer(&call("https://gate.example/"), Timestamp::UNIX_EPOCH).await;
    assert_eq!(reply.outcome, Outcome::Unavailable("no answer within 2 seconds".into()));
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
