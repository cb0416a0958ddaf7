use std::sync::Mutex;

use jiff::Timestamp;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    api::analysis::{Prometheus, SecretRef},
    gather::measures::http::{LARGEST, Web},
};

fn ask(address: &str) -> Ask {
    let provider = Prometheus { address: address.into(), tenant: Some("shop".into()), secret_ref: None };
    Ask::new(&provider, "demo", "sum(rate(x[1m])) > 0 & 1", 30, Timestamp::UNIX_EPOCH)
}

/// Says always the same, and keeps what it was asked.
struct Canned {
    status: u16,
    body: String,
    asked: Mutex<Vec<Request<Bytes>>>,
}

impl Http for Canned {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        self.asked.lock().unwrap().push(request);
        let response = Response::builder().status(self.status).header(LOCATION, "http://elsewhere/");
        Box::pin(async { Ok(response.body(self.body.clone().into()).unwrap()) })
    }
}

async fn answer(status: u16, body: &str) -> (Answer, Request<Bytes>) {
    let http = Arc::new(Canned { status, body: body.to_owned(), asked: Mutex::default() });
    let servers = Servers { http: http.clone(), logins: None, allowed: Vec::new() };
    let answer = servers.ask(&ask("http://p:9090/prefix/")).await;
    let asked = http.asked.lock().unwrap().remove(0);
    (answer, asked)
}

fn vector(result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}},"warnings":["w"]}}"#)
}

#[tokio::test]
async fn asks_as_the_api_wants_it() {
    let (_, asked) = answer(200, &vector("")).await;
    assert_eq!(asked.uri(), "http://p:9090/prefix/api/v1/query");
    assert_eq!(asked.method(), "POST");
    assert_eq!(asked.headers()["x-scope-orgid"], "shop");
    assert_eq!(asked.body(), "query=sum%28rate%28x%5B1m%5D%29%29+%3E+0+%26+1");
}

#[tokio::test]
async fn answers() {
    let one = r#"{"metric":{"a":"b"},"value":[1.5,"0.25"]}"#;
    let scalar = |n: &str| format!(r#"{{"data":{{"resultType":"scalar","result":[1,"{n}"]}},"status":"success"}}"#);
    for (body, wanted) in [
        (vector(one), Answer::Value(0.25)),
        (scalar("3"), Answer::Value(3.0)),
        (scalar("+Inf"), Answer::Value(f64::INFINITY)),
        (scalar("-Inf"), Answer::Value(f64::NEG_INFINITY)),
        (scalar("1e-3"), Answer::Value(0.001)),
        (vector(""), Answer::Empty),
        (vector(&format!("{one},{one},{one}")), Answer::Several(3)),
    ] {
        assert_eq!(answer(200, &body).await.0, wanted, "{body}");
    }
    assert!(matches!(answer(200, &scalar("NaN")).await.0, Answer::Value(n) if n.is_nan()));
}

#[tokio::test]
async fn trouble_is_named_and_told_from_what_may_pass() {
    let bad = r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error: unexpected end of input"}"#;
    let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    let histogram = vector(r#"{"metric":{},"histogram":[1,{}]}"#);
    let mistakes = [
        (400, bad, "http://p:9090/prefix/: 400, bad_data: 1:5: parse error: unexpected end of input"),
        (422, bad, "422, bad_data"),
        (401, "<html>hidden</html>", "401: the server asks for another login"),
        (404, "not found", "404"),
        (302, "", "redirects to http://elsewhere/, which is not followed"),
        (307, "", "not followed"),
        (200, "<html>", "none of Prometheus' HTTP API"),
        (200, "{}", "none of Prometheus' HTTP API"),
        (200, matrix, "is a matrix"),
        (200, &histogram, "is a histogram"),
        (200, r#"{"data":{"resultType":"vector","result":7}}"#, "cannot be read"),
        (200, r#"{"data":{"resultType":"scalar","result":[1,"one"]}}"#, "is no number"),
    ];
    for (status, body, says) in mistakes {
        match answer(status, body).await.0 {
            Answer::Mistake(why) => assert!(why.contains(says) && !why.contains("hidden"), "{why}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    for (status, says) in [(500, "500"), (503, "503"), (429, "429"), (408, "408")] {
        match answer(status, "").await.0 {
            Answer::Unavailable(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    let long = format!(r#"{{"status":"error","errorType":"bad_data","error":"{}"}}"#, "ü".repeat(5000));
    let Answer::Mistake(why) = answer(400, &long).await.0 else { panic!() };
    assert!(why.len() < 400, "{}", why.len());
}

#[tokio::test]
async fn only_servers_that_are_allowed() {
    let http = Arc::new(Canned { status: 200, body: vector(""), asked: Mutex::default() });
    let servers = Servers { http: http.clone(), logins: None, allowed: vec!["http://p:9090/".into()] };
    assert_eq!(servers.ask(&ask("http://p:9090")).await, Answer::Empty);
    assert!(
        matches!(servers.ask(&ask("http://q:9090")).await, Answer::Mistake(why) if why.contains("--metrics-servers"))
    );
    assert_eq!(http.asked.lock().unwrap().len(), 1, "the other was not asked");
}

/// Answers one connection after the other with these bytes; the answer is cut when the other side has enough.
async fn serve(answer: impl Fn() -> Vec<u8> + Send + 'static, tls: Option<TlsAcceptor>) -> String {
    async fn reply(mut stream: impl AsyncReadExt + AsyncWrite + Unpin, answer: Vec<u8>) {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer();
            match &tls {
                None => reply(stream, answer).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        reply(stream, answer).await;
                    }
                }
            }
        }
    });
    format!("{scheme}://localhost:{}", address.port())
}

fn servers() -> Servers {
    Servers { http: Arc::new(Web::default()), logins: None, allowed: Vec::new() }
}

fn http_answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_real_exchange() {
    let address = serve(|| http_answer(&vector(r#"{"metric":{},"value":[1,"2"]}"#)), None).await;
    assert_eq!(servers().ask(&ask(&address)).await, Answer::Value(2.0));
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let endless =
        || [b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n".to_vec(), vec![b' '; LARGEST * 4]].concat();
    let address = serve(endless, None).await;
    assert!(matches!(servers().ask(&ask(&address)).await, Answer::Mistake(why) if why.contains("larger than 1 MiB")));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let there = serve(|| http_answer(&vector("")), None).await;
    let to = there.clone();
    let redirect = move || format!("HTTP/1.1 307 T\r\nlocation: {to}/x\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let here = serve(redirect, None).await;
    assert!(matches!(servers().ask(&ask(&here)).await, Answer::Mistake(why) if why.contains(&there)));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(servers().ask(&ask(&address)).await, Answer::Unavailable(why) if why.contains("refused")));
}

/// A server's certificate with its authority's in PEM, which ended in a year.
fn certificate(year: i32) -> (TlsAcceptor, String) {
    let key = || KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, key()).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(year, 1, 1));
    let own = key();
    let leaf = params.signed_by(&own, &ca).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], own.serialize_der().try_into().unwrap())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca.pem())
}

/// A Secret that is at hand.
async fn with_ca(address: &str, ca: Option<&str>) -> Result<Response<Bytes>, Failure> {
    let request = request(&ask(address), address, &Login::default()).unwrap();
    Web::default().send(request, ca).await
}

#[tokio::test]
async fn certificates() {
    let body = || http_answer(&vector(""));
    let (good, ca) = certificate(2999);
    let address = serve(body, Some(good)).await;
    assert!(with_ca(&address, Some(&ca)).await.is_ok());
    let mistake = |result: Result<Response<Bytes>, Failure>| match result.unwrap_err() {
        Failure::Mistake(why) => why,
        Failure::Unavailable(why) => panic!("{why}"),
    };
    let (_, other) = certificate(2999);
    let why = mistake(with_ca(&address, Some(&other)).await);
    assert!(why.starts_with("TLS: invalid peer certificate"), "{why}");
    assert!(mistake(with_ca(&address, Some("no PEM")).await).contains("no certificate"));
    let (old, ca) = certificate(2001);
    let why = mistake(with_ca(&serve(body, Some(old)).await, Some(&ca)).await);
    assert!(why.contains("expired"), "{why}");
}

/// An API server with one Secret, or none yet.
fn api(secret: Arc<Mutex<Option<serde_json::Value>>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        assert_eq!(request.uri().path(), "/api/v1/namespaces/demo/secrets/login");
        let found = secret.lock().unwrap().clone();
        let missing = serde_json::json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        let status = if found.is_some() { 200 } else { 404 };
        let body = found.unwrap_or(missing).to_string().into_bytes();
        async move { Response::builder().status(status).body(kube::client::Body::from(body)) }
    });
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let secret = Arc::new(Mutex::new(None));
    let http = Arc::new(Canned { status: 200, body: vector(""), asked: Mutex::default() });
    let logins = Some(Logins::new(api(secret.clone())));
    let servers = Servers { http: http.clone(), logins, allowed: Vec::new() };
    let mut ask = ask("http://p");
    ask.provider.secret_ref = Some(SecretRef { name: "login".into() });
    assert!(matches!(servers.ask(&ask).await, Answer::Mistake(why) if why.contains("Secret demo/login is missing")));
    assert!(http.asked.lock().unwrap().is_empty(), "nobody is asked without the login");
    *secret.lock().unwrap() = Some(serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "login", "namespace": "demo"}, "data": {"token": "YWJj", "address": "aHR0cDovL3A="}}));
    assert_eq!(servers.ask(&ask).await, Answer::Empty);
    assert_eq!(http.asked.lock().unwrap()[0].headers()["authorization"], "Bearer abc");
}
