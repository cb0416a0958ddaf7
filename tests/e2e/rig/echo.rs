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

/// The ports of the examples' containers. Nothing else in the namespace may listen on them.
const PORTS: [u16; 2] = [80, 8080];

/// What a pod answers.
#[derive(Clone)]
struct Server {
    uid: String,
    answer: Bytes,
}

pub struct Echo {
    pods: Mutex<HashMap<IpAddr, Server>>,
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
    // A release changes what the pod mounts, so the mount is the version.
    let mounted = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).find_map(|v| v.config_map.as_ref());
    let version = mounted.map(|c| c.name.as_str()).or_else(|| pod.labels().get("version").map(String::as_str));
    let answer =
        json!({"version": version, "pod": pod.name_any(), "namespace": pod.namespace(), "labels": pod.labels()});
    Some((address, Server { uid: pod.uid().unwrap_or_default(), answer: answer.to_string().into() }))
}

impl Echo {
    pub async fn start(client: Client) -> Result<Arc<Echo>> {
        let echo = Arc::new(Echo { pods: Mutex::default(), api: Api::all(client), deaths: watch::Sender::new(0) });
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
        let service = service_fn(move |_request| {
            let echo = echo.clone();
            async move {
                let server = echo.at(address).await.context("this pod is gone")?;
                let response = Response::builder().status(StatusCode::OK).header("content-type", "application/json");
                Ok::<_, anyhow::Error>(response.body(Full::new(server.answer))?)
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
