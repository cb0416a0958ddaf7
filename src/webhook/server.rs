//! The listener: TLS, and limits that keep strangers from using the process up.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// What is refused before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body in bytes. A review holds an object of at most 3 MiB twice.
    pub body: usize,
    /// Largest body of a conversion in bytes: of a list the API server sends all objects at once.
    pub list: usize,
    /// All bodies that are in memory at a time, in bytes; others wait.
    pub bodies: usize,
    /// Bytes of each body that count as nothing: an ordinary review never waits for a large one.
    pub free: usize,
    /// All reviews that are being answered, parsed, in bytes; others wait.
    pub parsed: usize,
    /// Connections at a time. The one that has been idle for longest makes room for a new one.
    pub connections: usize,
    /// For the handshake, and for a body.
    pub time: Duration,
    /// For a connection without a request, and for the head of one.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 8 << 20,
            list: 16 << 20,
            bodies: 12 << 20,
            free: 64 << 10,
            parsed: 24 << 20,
            connections: 256,
            time: Duration::from_secs(8),
            idle: Duration::from_secs(90),
        }
    }
}

/// A client that does not finish its request must not keep the process alive.
const DRAIN: Duration = Duration::from_secs(3);

/// The certificate that is served now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tls(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Tls {
    /// Serves another certificate from the next handshake on.
    pub fn set(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
    }
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `router` until `stop`; requests in hand are finished.
pub async fn serve(listener: TcpListener, tls: Tls, router: Router, limits: Limits, stop: CancellationToken) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // rustls knows nothing below TLS 1.2.
    let config = match ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder.with_no_client_auth().with_cert_resolver(Arc::new(tls)),
        Err(error) => {
            tracing::error!(%error, "no TLS; this is a bug");
            return;
        }
    };
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let guests = Guests::default();
    let tasks = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: others end meanwhile.
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(guest) = guests.admit(limits.connections) else { continue };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        tasks.spawn(async move {
            let out = guest.0.out.clone();
            let work = async {
                stream.set_nodelay(true).ok();
                let Ok(Ok(stream)) = timeout(limits.time, acceptor.accept(stream)).await else { return };
                converse(TokioIo::new(stream), router, &guest, limits, stop).await;
            };
            out.run_until_cancelled(work).await;
        });
    }
    tasks.close();
    timeout(DRAIN, tasks.wait()).await.ok();
}

async fn converse<S>(stream: S, router: Router, guest: &Guest, limits: Limits, stop: CancellationToken)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (router, busy) = (router.clone(), guest.0.busy());
        async move {
            let answer = router.oneshot(request).await;
            drop(busy);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(64 << 10)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// The open connections; the idle ones by when they became so.
#[derive(Clone, Default)]
struct Guests(Arc<Room>);

#[derive(Default)]
struct Room {
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: usize,
    idle: BTreeMap<u64, CancellationToken>,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
#[derive(Clone)]
struct Seat {
    room: Arc<Room>,
    /// Its number among the idle ones.
    number: Arc<Mutex<Option<u64>>>,
    /// Asks it to leave.
    out: CancellationToken,
}

/// An open connection; leaves the room when it is dropped.
struct Guest(Seat);

/// A request in hand; when it is dropped the connection is idle again.
struct Busy(Seat);

impl Guests {
    /// `None` when nobody can be asked to leave.
    fn admit(&self, most: usize) -> Option<Guest> {
        let mut state = self.0.lock();
        if state.count >= most {
            let (_, out) = state.idle.pop_first()?;
            out.cancel();
        }
        state.count += 1;
        let seat = Seat { room: self.0.clone(), number: Arc::default(), out: CancellationToken::new() };
        seat.rest(&mut state);
        Some(Guest(seat))
    }
}

impl Seat {
    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self, state: &mut State) {
        let number = self.room.next.fetch_add(1, Ordering::Relaxed);
        *self.number() = Some(number);
        state.idle.insert(number, self.out.clone());
    }

    fn wake(&self) {
        let number = self.number().take();
        if let Some(number) = number {
            self.room.lock().idle.remove(&number);
        }
    }

    fn busy(&self) -> Busy {
        self.wake();
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest(&mut self.0.room.lock());
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.wake();
        self.0.room.lock().count -= 1;
    }
}
