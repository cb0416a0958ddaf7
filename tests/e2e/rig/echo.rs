//! Every pod's server, in this process: it answers on a pod's address only while that pod lives and is Ready.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A pod with this annotation answers every so many requests with 500.
pub const FAILS_EVERY: &str = "tidegate.test/fails-every";
/// A pod with this annotation is asked for its metrics.
pub const SCRAPE: &str = "prometheus.io/scrape";

/// The ports of the examples' containers. Nothing else in the namespace may listen on them.
const PORTS: [u16; 2] = [80, 8080];

/// What a pod answers.
#[derive(Clone)]
struct Server {
    uid: String,
    answer: Bytes,
    fails_every: Option<u64>,
    /// How its sidecar would call the workload.
    workload: String,
    /// Its metrics are wanted: namespace and name.
    scraped: Option<(String, String)>,
}

/// How many requests a pod has answered, and how many of these with 500.
#[derive(Clone, Copy, Default)]
struct Answered {
    all: u64,
    failed: u64,
}

pub struct Echo {
    pods: Mutex<HashMap<IpAddr, Server>>,
    /// By the pods' UIDs.
    answered: Mutex<HashMap<String, Answered>>,
    api: Api<Pod>,
    /// Changes whenever a pod is gone or no longer Ready.
    deaths: watch::Sender<u64>,
}

/// The server of a pod that runs and is Ready; a pod that is being deleted goes on until its object is gone.
fn server(pod: &Pod) -> Option<(IpAddr, Server)> {
    let status = pod.status.as_ref()?;
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if status.phase.as_deref() != Some("Running") || !ready {
        return None;
    }
    let address = status.pod_ip.as_ref()?.parse().ok()?;
    // A release changes what the pod mounts, or else its image: that is the version.
    let mounted = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).find_map(|v| v.config_map.as_ref());
    let image = pod.spec.iter().flat_map(|s| &s.containers).find_map(|c| c.image.as_deref());
    let version = mounted.map(|c| c.name.as_str()).or(image);
    let answer =
        json!({"version": version, "pod": pod.name_any(), "namespace": pod.namespace(), "labels": pod.labels()});
    let annotation = |key: &str| pod.annotations().get(key).map(String::as_str);
    let owner = pod.owner_references().iter().find(|o| o.controller == Some(true));
    let workload = owner.and_then(|o| o.name.rsplit_once('-')).map(|(workload, _)| workload.to_owned());
    let server = Server {
        uid: pod.uid().unwrap_or_default(),
        answer: answer.to_string().into(),
        fails_every: annotation(FAILS_EVERY).and_then(|every| every.parse().ok()),
        workload: workload.unwrap_or_default(),
        scraped: (annotation(SCRAPE) == Some("true")).then(|| (pod.namespace().unwrap_or_default(), pod.name_any())),
    };
    Some((address, server))
}

impl Echo {
    pub async fn start(client: Client) -> Result<Arc<Echo>> {
        let echo = Arc::new(Echo {
            pods: Mutex::default(),
            answered: Mutex::default(),
            api: Api::all(client),
            deaths: watch::Sender::new(0),
        });
        tokio::spawn(echo.clone().follow());
        for port in PORTS {
            let listener = TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("echo port {port}"))?;
            let echo = echo.clone();
            tokio::spawn(async move {
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(echo.clone().connection(stream));
                    }
                }
            });
        }
        Ok(echo)
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Server>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; whether it has to fail.
    fn fails(&self, server: &Server) -> bool {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = answered.entry(server.uid.clone()).or_default();
        answered.all += 1;
        let fails = server.fails_every.is_some_and(|every| answered.all.is_multiple_of(every));
        answered.failed += u64::from(fails);
        fails
    }

    /// What the sidecar of a pod would tell Prometheus.
    fn metrics(&self, server: &Server) -> String {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let Answered { all, failed } = answered.get(&server.uid).copied().unwrap_or_default();
        let namespace = server.scraped.as_ref().map_or("", |(namespace, _)| namespace);
        let labels = |code: u16| {
            format!(
                "reporter=\"destination\",destination_workload_namespace=\"{namespace}\",\
                 destination_workload=\"{}\",response_code=\"{code}\"",
                server.workload
            )
        };
        let series = |code, n| format!("istio_requests_total{{{}}} {n}\n", labels(code));
        format!("# TYPE istio_requests_total counter\n{}{}", series(200, all - failed), series(500, failed))
    }

    /// The pods whose metrics are wanted: address, namespace, name.
    pub fn scraped(&self) -> Vec<(IpAddr, String, String)> {
        let pods = self.pods();
        let mut scraped: Vec<_> =
            pods.iter().filter_map(|(a, s)| s.scraped.clone().map(|(namespace, name)| (*a, namespace, name))).collect();
        scraped.sort();
        scraped
    }

    async fn follow(self: Arc<Self>) {
        let mut events = watcher(self.api.clone(), watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => match server(&pod) {
                    Some((address, server)) => drop(self.pods().insert(address, server)),
                    None => self.gone(&pod),
                },
                Ok(watcher::Event::Delete(pod)) => self.gone(&pod),
                Ok(_) => {}
                Err(error) => eprintln!("echo: {error}"),
            }
        }
    }

    fn gone(&self, pod: &Pod) {
        let Some(uid) = pod.uid() else { return };
        let before = self.pods().len();
        self.pods().retain(|_, server| server.uid != uid);
        if self.pods().len() != before {
            self.deaths.send_modify(|n| *n += 1);
        }
    }

    /// Who answers at an address right now. The watch may lag behind the gateway on a busy machine, so only the API
    /// server's word makes an address a dead one.
    async fn at(&self, address: IpAddr) -> Option<Server> {
        let known = self.pods().get(&address).cloned();
        if known.is_some() {
            return known;
        }
        let list = self.api.list(&ListParams::default().fields(&format!("status.podIP={address}"))).await.ok()?;
        list.items.iter().find_map(server).map(|(_, server)| server)
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Whenever this function returns, the socket is reset, not closed: that is what the peer of a dead pod sees.
        let (Ok(()), Ok(local)) = (stream.set_zero_linger(), stream.local_addr()) else { return };
        stream.set_nodelay(true).ok();
        let mut deaths = self.deaths.subscribe();
        let address = local.ip();
        let Some(first) = self.at(address).await else { return };
        let echo = self.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let echo = echo.clone();
            async move {
                let server = echo.at(address).await.context("this pod is gone")?;
                let response = Response::builder();
                Ok::<_, anyhow::Error>(if request.uri().path() == "/metrics" {
                    response.header("content-type", "text/plain").body(Full::new(echo.metrics(&server).into()))?
                } else {
                    let status = if echo.fails(&server) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                    let response = response.status(status).header("content-type", "application/json");
                    response.body(Full::new(server.answer))?
                })
            }
        });
        let mut serving = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        loop {
            tokio::select! {
                _ = &mut serving => return,
                _ = deaths.changed() => {
                    if self.at(address).await.is_none_or(|now| now.uid != first.uid) {
                        return;
                    }
                }
            }
        }
    }
}
