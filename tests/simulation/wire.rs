//! The controller's requests, counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use kube::client::Body;
use tidegate::sim::Connection;
use tower::ServiceExt;

/// Requests by what they are for: `patch virtualservices (dry run)`, `watch pods`.
pub type Requests = BTreeMap<String, u64>;

/// How long the wire takes: without it, a loop of writes would stop the clock.
const WIRE: Duration = Duration::from_millis(1);

/// Requests of one run: whoever makes more goes round in circles, and is left to be judged for not ending.
const MOST_REQUESTS: u64 = 5000;

/// A client over a connection that counts, and that falls silent when `is_over`.
pub fn client(connection: Connection, requests: Arc<Mutex<Requests>>, is_over: Arc<AtomicBool>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let mut counts = requests.lock().unwrap();
        *counts.entry(name(&request)).or_default() += 1;
        if counts.values().sum::<u64>() > MOST_REQUESTS {
            is_over.store(true, Ordering::Relaxed);
        }
        drop(counts);
        let (connection, is_over) = (connection.clone(), is_over.clone());
        async move {
            tokio::time::sleep(WIRE).await;
            if is_over.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            connection.oneshot(request).await
        }
    });
    kube::Client::new(service, "default")
}

fn name(request: &Request<Body>) -> String {
    let parts: Vec<&str> = request.uri().path().split('/').filter(|p| !p.is_empty()).collect();
    let query = request.uri().query().unwrap_or_default();
    // /api/v1/… or /apis/group/version/…
    let mut rest = parts.get(if parts.first() == Some(&"api") { 2 } else { 3 }..).unwrap_or_default();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 {
        rest = &rest[2..];
    }
    let (resource, object) = (rest.first().copied().unwrap_or("discovery"), rest.get(1).is_some());
    let verb = match *request.method() {
        Method::GET if query.contains("watch=true") || query.contains("watch=1") => "watch",
        Method::GET if rest.is_empty() => "get",
        Method::GET if object => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => "delete",
    };
    let subresource = rest.get(2).map(|s| format!("/{s}")).unwrap_or_default();
    let dry_run = if query.contains("dryRun") { " (dry run)" } else { "" };
    format!("{verb} {resource}{subresource}{dry_run}")
}
