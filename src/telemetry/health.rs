//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::{CONTENT_TYPE, Metrics};

/// A client that does not finish its request must not keep the process alive.
const DRAIN: Duration = Duration::from_secs(3);

/// Named checks that decide on readiness, and warnings that only say what cannot be promised. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Checks>>);

#[derive(Debug, Default)]
struct Checks {
    checks: BTreeMap<String, Result<(), String>>,
    warnings: BTreeMap<String, String>,
}

impl Health {
    /// Not ready until each of these checks was set to `Ok`.
    pub fn new<'a>(expected: impl IntoIterator<Item = &'a str>) -> Self {
        let health = Self::default();
        for name in expected {
            health.set(name, Err("not checked yet".to_owned()));
        }
        health
    }

    /// Sets a check; the text of an `Err` says what is wrong and what would mend it.
    pub fn set(&self, name: &str, result: Result<(), String>) {
        self.lock().checks.insert(name.to_owned(), result);
    }

    /// Something that works less well than it should; readiness does not depend on it. Returns whether it is news.
    pub fn warn(&self, name: &str, detail: &str) -> bool {
        self.lock().warnings.insert(name.to_owned(), detail.to_owned()).as_deref() != Some(detail)
    }

    /// The reason for a warning is gone.
    pub fn clear_warning(&self, name: &str) {
        self.lock().warnings.remove(name);
    }

    /// Whether there are checks and all of them hold.
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        !state.checks.is_empty() && state.checks.values().all(Result::is_ok)
    }

    /// Whether a check holds.
    pub fn holds(&self, name: &str) -> bool {
        self.lock().checks.get(name).is_some_and(Result::is_ok)
    }

    /// One line a check, in the form of the API server's own `/readyz?verbose`.
    pub fn report(&self) -> String {
        let state = self.lock();
        let mut text = String::new();
        for (name, result) in &state.checks {
            // Writing to a String cannot fail.
            let _ = match result {
                Ok(()) => writeln!(text, "[+]{name} ok"),
                Err(detail) => writeln!(text, "[-]{name} failed: {detail}"),
            };
        }
        for (name, detail) in &state.warnings {
            let _ = writeln!(text, "[!]{name}: {detail}");
        }
        let ready = !state.checks.is_empty() && state.checks.values().all(Result::is_ok);
        text.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
        text
    }

    fn lock(&self) -> MutexGuard<'_, Checks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown` resolves.
///
/// # Errors
/// The address cannot be bound; the error names it.
pub async fn serve(
    addr: SocketAddr,
    health: Health,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(addr)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr} for health and metrics: {e}")))?;
    serve_on(listener, health, metrics, shutdown).await
}

/// As [`serve`], on a socket that is already bound.
///
/// # Errors
/// As of the socket.
pub async fn serve_on(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(expose))
        .with_state((health, metrics));
    let stopping = CancellationToken::new();
    let signal = {
        let stopping = stopping.clone();
        async move {
            shutdown.await;
            stopping.cancel();
        }
    };
    let drained = async move {
        stopping.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = async { axum::serve(listener, app).with_graceful_shutdown(signal).await } => result,
        () = drained => Ok(()),
    }
}

async fn readyz(State((health, _)): State<(Health, Metrics)>) -> impl IntoResponse {
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, health.report())
}

async fn expose(State((_, metrics)): State<(Health, Metrics)>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Status, content type and body of one request.
    async fn fetch(addr: SocketAddr, path: &'static str) -> (u16, String, String) {
        tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let kind = head.lines().find_map(|l| l.strip_prefix("content-type: ")).unwrap_or_default();
            (head[9..12].parse().unwrap(), kind.to_owned(), body.to_owned())
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn readiness_follows_the_checks_and_shows_warnings() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (health, metrics, stop) = (Health::new(["api", "caches"]), Metrics::new(), CancellationToken::new());
        let server = tokio::spawn(serve_on(listener, health.clone(), metrics.clone(), stop.clone().cancelled_owned()));

        assert_eq!(fetch(addr, "/healthz").await.0, 200);
        health.set("api", Ok(()));
        let (status, _, body) = fetch(addr, "/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (503, "[+]api ok\n[-]caches failed: not checked yet\nreadyz check failed\n")
        );

        health.set("caches", Ok(()));
        health.warn("hold", "MutatingAdmissionPolicy not served");
        let (status, _, body) = fetch(addr, "/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (200, "[+]api ok\n[+]caches ok\n[!]hold: MutatingAdmissionPolicy not served\nreadyz check passed\n")
        );
        health.clear_warning("hold");
        assert!(!health.report().contains("hold"));

        metrics.reconciled("ok", Duration::from_millis(1), None);
        let (status, kind, body) = fetch(addr, "/metrics").await;
        assert_eq!((status, kind.as_str()), (200, CONTENT_TYPE));
        assert!(body.contains("tidegate_reconciles_total{result=\"ok\"} 1\n") && body.ends_with("# EOF\n"), "{body}");
        assert_eq!(fetch(addr, "/other").await.0, 404);

        stop.cancel();
        server.await.unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "the socket is closed");
    }

    #[test]
    fn without_checks_nothing_is_ready() {
        assert!(!Health::default().is_ready());
        assert_eq!(Health::default().report(), "readyz check failed\n");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = taken.local_addr().unwrap();
        let error = serve(addr, Health::default(), Metrics::new(), std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_does_not_hold_the_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server =
            tokio::spawn(serve_on(listener, Health::default(), Metrics::new(), stop.clone().cancelled_owned()));
        let mut slow = std::net::TcpStream::connect(addr).unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap();
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
