//! Exchanges by HTTP with servers that a user names: bounded in size and time, and to that host only.

use std::{
    collections::BTreeMap,
    error::Error as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tower::Service;

use crate::gather::calls::hosts::is_near;

/// The largest answer, in bytes.
pub const LARGEST: usize = 1024 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
/// Servers with certificates of their own that connections are kept to.
const MOST_KEPT: usize = 64;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may pass.
    Unavailable(String),
    /// A person must mend it.
    Mistake(String),
}

/// One exchange.
pub trait Http: Send + Sync {
    /// Sends a request; the server's certificate is judged by `ca`, in PEM, or by the system's authorities. The answer has
    /// at most [`LARGEST`] bytes.
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        ca: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>>;
}

type Connection = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Real servers. Connections are kept.
#[derive(Default)]
pub struct Web {
    /// By the certificates that a server is judged by.
    connections: Mutex<BTreeMap<Option<String>, Connection>>,
    /// No name may lead to this machine or link.
    is_guarded: bool,
}

/// Finds addresses; names that lead to this machine or link are refused where that is wanted.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    is_guarded: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.system, context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, is_guarded) = (self.system.call(name), self.is_guarded);
        Box::pin(async move {
            let all: Vec<SocketAddr> = found.await?.filter(|a| !is_guarded || !is_near(a.ip())).collect();
            if all.is_empty() {
                return Err(std::io::Error::other("the name leads to the controller's own machine or link"));
            }
            Ok(all.into_iter())
        })
    }
}

impl Web {
    /// One that no name leads to the controller's own machine or link.
    pub fn guarded() -> Web {
        Web { is_guarded: true, ..Web::default() }
    }

    fn connection(&self, ca: Option<&str>) -> Result<Connection, Failure> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ca.map(str::to_owned);
        if let Some(known) = connections.get(&key) {
            return Ok(known.clone());
        }
        if connections.len() >= MOST_KEPT {
            connections.clear();
        }
        let made = connect(ca, self.is_guarded)?;
        connections.insert(key, made.clone());
        Ok(made)
    }
}

fn connect(ca: Option<&str>, is_guarded: bool) -> Result<Connection, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Mistake(format!("TLS cannot be set up: {error}")))?;
    let tls = match ca {
        None => tls
            .with_native_roots()
            .map_err(|error| Failure::Mistake(format!("the system's certificates cannot be read: {error}")))?,
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let added =
                    certificate.map_err(|e| e.to_string()).and_then(|c| roots.add(c).map_err(|e| e.to_string()));
                added.map_err(|error| Failure::Mistake(format!("ca.crt: {error}")))?;
            }
            if roots.is_empty() {
                return Err(Failure::Mistake("ca.crt: there is no certificate in it".to_owned()));
            }
            tls.with_root_certificates(roots)
        }
    };
    let mut http = HttpConnector::new_with_resolver(Resolver { system: GaiResolver::new(), is_guarded });
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth()).https_or_http().enable_http1();
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_idle_timeout(Duration::from_secs(90)).pool_max_idle_per_host(4);
    Ok(builder.build(connector.wrap_connector(http)))
}

impl Http for Web {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        ca: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        Box::pin(async move {
            let answer = self.connection(ca)?.request(request.map(Full::new)).await.map_err(|e| failure(&e))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| {
                if error.downcast_ref::<LengthLimitError>().is_some() {
                    Failure::Mistake(format!("the answer is larger than {} MiB", LARGEST / 1024 / 1024))
                } else {
                    Failure::Unavailable(format!("the answer breaks off: {error}"))
                }
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
    }
}

/// What a certificate is not good for, a person must mend; everything else may pass.
fn failure(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut deepest = error.to_string();
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = next {
        // An `io::Error` names the source of what is in it, not what is in it.
        let mut inner = cause;
        while let Some(within) = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            inner = within;
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Failure::Mistake(format!("TLS: {tls}"));
        }
        deepest = cause.to_string();
        next = cause.source();
    }
    Failure::Unavailable(deepest)
}
