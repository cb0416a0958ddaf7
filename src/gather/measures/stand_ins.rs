//! Stand-ins for servers, for the tests of the providers.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use http::{Request, Response, header::LOCATION};
use hyper::body::Bytes;
use jiff::Timestamp;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Provider as _,
    http::{Failure, Http, Web},
    login::Logins,
    servers::Servers,
};
use crate::{
    analysis::{Answer, ask::Ask},
    api::analysis::{MetricProvider, Prometheus},
};

/// A question to a Prometheus.
pub fn ask(address: &str) -> Ask {
    let prometheus = Prometheus { address: address.into(), tenant: Some("shop".into()), secret_ref: None };
    ask_of(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }, "sum(rate(x[1m])) > 0 & 1")
}

/// A question of the interval 30 s that is due at 1,000,000,000.
pub fn ask_of(provider: MetricProvider, query: &str) -> Ask {
    Ask::new(&provider, "demo", query, 30, Timestamp::from_second(1_000_000_000).unwrap())
}

/// Says always the same, and keeps what it was asked.
pub struct Canned {
    pub status: u16,
    pub body: String,
    pub asked: Mutex<Vec<Request<Bytes>>>,
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

/// What is made of an answer of a server that needs no login.
pub async fn answer_to(ask: &Ask, status: u16, body: &str) -> (Answer, Request<Bytes>) {
    let http = Arc::new(Canned { status, body: body.to_owned(), asked: Mutex::default() });
    // A login that is not checked: it is what a test of its own is about.
    let servers = Servers { http: http.clone(), logins: Some(Logins::new(api(Arc::default()))), allowed: Vec::new() };
    let answer = servers.ask(ask).await;
    let asked = http.asked.lock().unwrap().remove(0);
    (answer, asked)
}

pub fn vector(result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}},"warnings":["w"]}}"#)
}

/// Answers one connection after the other with these bytes; the answer is cut when the other side has enough.
pub async fn serve(answer: impl Fn() -> Vec<u8> + Send + 'static, tls: Option<TlsAcceptor>) -> String {
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

pub fn servers() -> Servers {
    Servers { http: Arc::new(Web::default()), logins: None, allowed: Vec::new() }
}

pub fn http_answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A server's certificate with its authority's in PEM, which ended in a year.
pub fn certificate(year: i32) -> (TlsAcceptor, String) {
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

/// An API server with one Secret, or none yet.
pub fn api(secret: Arc<Mutex<Option<serde_json::Value>>>) -> kube::Client {
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
