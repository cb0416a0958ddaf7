//! Servers that stand in for those of users, for the tests of whoever asks them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Response, StatusCode};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What a server was sent.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// By name, in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A server over real connections.
pub struct Server {
    /// With the scheme, without a path.
    pub address: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// One that answers each connection once, with these bytes; the answer is cut when the other side has enough.
    pub async fn start(answer: impl FnMut() -> Vec<u8> + Send + 'static, tls: Option<TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let received = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, answer, tls, received.clone()));
        Server { address, received }
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    mut answer: impl FnMut() -> Vec<u8>,
    tls: Option<TlsAcceptor>,
    received: Arc<Mutex<Vec<Received>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        match &tls {
            None => reply(stream, &mut answer, &received).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    reply(stream, &mut answer, &received).await;
                }
            }
        }
    }
}

async fn reply(
    mut stream: impl AsyncReadExt + AsyncWrite + Unpin,
    answer: &mut impl FnMut() -> Vec<u8>,
    received: &Mutex<Vec<Received>>,
) {
    let mut got = Vec::new();
    let request = loop {
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => got.extend_from_slice(&part[..n]),
            // Whoever does not like the certificate goes away.
            _ => return,
        }
        if let Some(request) = whole(&got) {
            break request;
        }
    };
    received.lock().unwrap().push(request);
    let _ = stream.write_all(&answer()).await;
    let _ = stream.shutdown().await;
}

/// A request, once all of it is there.
fn whole(got: &[u8]) -> Option<Received> {
    let text = String::from_utf8_lossy(got);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let split = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> = split.map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    (body.len() >= length).then(|| Received { line, headers, body: body.to_owned() })
}

/// A good answer.
pub fn http_answer(body: &str) -> Vec<u8> {
    status_answer(200, "", body)
}

/// An answer; each of the headers ends in CR and LF.
pub fn status_answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
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

/// Objects that an API server has, by their paths under the namespace: `secrets/login`.
pub type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

/// An API server with objects of the namespace `demo`; of those named `forbidden` nothing may be read.
pub fn api(objects: Objects) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let path = request.uri().path().strip_prefix("/api/v1/namespaces/demo/").unwrap().to_owned();
        let found = objects.lock().unwrap().get(&path).cloned();
        let failure =
            |code: u16, reason: &str| json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code});
        let (status, body) = match found {
            Some(object) => (200, object),
            None if path.ends_with("/forbidden") => (403, failure(403, "Forbidden")),
            None => (404, failure(404, "NotFound")),
        };
        let body = kube::client::Body::from(body.to_string().into_bytes());
        async move { Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body) }
    });
    kube::Client::new(service, "default")
}

/// A Secret `login` of that namespace.
pub fn secret(keys: &[(&str, &str)]) -> Value {
    let keys: serde_json::Map<String, Value> =
        keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let data = keys.iter().map(|(key, value)| {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        (key.clone(), Value::from(BASE64_STANDARD.encode(value.as_str().unwrap())))
    });
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "demo"},
        "data": data.collect::<serde_json::Map<String, Value>>()})
}
