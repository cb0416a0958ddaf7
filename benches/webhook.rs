//! What the webhooks of the real process cost: how long reviews take at 500 a second on two processors, and that they
//! go on, within 100 MB, while others send it everything that it should not be sent. `make webhook-process`.
//!
//! `RATE` and `SECONDS` may be set. Latencies count from when a review was due, so one that waits for others is late too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod rig;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tidegate::{
    api::keys::WORKLOAD_TYPE,
    cli::{demo::world::install, webhooks::SECRET},
    sim::{Cluster, Gvr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::rig::{Process, serve, setting, until};

/// Promised for 99 of 100 reviews.
const LATENCY: Duration = Duration::from_millis(5);
/// Promised while everything bad is sent, in KiB.
const MEMORY: u64 = 100 << 10;
/// As many as an API server keeps open at this rate.
const CONNECTIONS: usize = 16;
const HOLD: &str = "/mutate-apps-v1-deployment";
const CONVERT: &str = "/convert";
const VALIDATE: &str = "/validate-rollouts-kruise-io-rollout";
const APPROVER: &str = "/mutate-rollouts-kruise-io-rollout-status";

type Stream = TlsStream<TcpStream>;

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Server {
    fn new(address: SocketAddr, ca: &[u8]) -> Server {
        let mut roots = RootCertStore::empty();
        CertificateDer::pem_slice_iter(ca).for_each(|ca| roots.add(ca.unwrap()).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Server { address, config: Arc::new(config.with_root_certificates(roots).with_no_client_auth()) }
    }

    async fn connect(&self) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(self.config.clone()).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
    }

    /// Status and text of the answer to a review, on a connection of its own.
    async fn once(&self, path: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
        post(&mut self.connect().await?, path, body).await
    }
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

async fn post(stream: &mut Stream, path: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    stream.write_all(head(path, body.len()).as_bytes()).await?;
    // An answer may come before all of it was sent.
    let sent = stream.write_all(body).await;
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length =
                text.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
            if bytes.len() >= at + 4 + length {
                return Ok((text[9..12].parse().unwrap(), String::from_utf8_lossy(&bytes[at + 4..]).into_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            sent?;
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn review(object: &Value, old: &Value) -> Vec<u8> {
    let request = json!({"uid": "u-1", "operation": "UPDATE", "namespace": "shop", "name": "web", "object": object,
        "oldObject": old, "userInfo": {"username": "jane", "groups": ["system:authenticated"]}});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string().into_bytes()
}

/// Of ordinary size, or padded with so many bytes.
fn deployment(image: &str, padding: usize) -> Value {
    let env: Vec<Value> =
        (0..40).map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value of {i}")})).collect();
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {WORKLOAD_TYPE: "deployment"}, "annotations": {"pad": "x".repeat(padding)}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "main", "image": image, "env": env}]}}}})
}

fn rollout(first: &str, state: &str) -> Value {
    let steps: Vec<Value> =
        [first, "40%", "60%", "80%", "100%"].iter().map(|r| json!({"replicas": r, "pause": {}})).collect();
    let sub = json!({"currentStepIndex": 1, "nextStepIndex": 2, "currentStepState": state, "podTemplateHash": "b",
        "finalisingStep": "", "canaryRevision": "b", "canaryReplicas": 1, "canaryReadyReplicas": 1});
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                 "strategy": {"canary": {"steps": steps}}},
        "status": {"phase": "Progressing", "canaryStatus": sub}})
}

/// What is asked, and a part of the answer. Half of it holds workloads.
fn questions() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let hold = (HOLD, review(&deployment("main:2", 0), &deployment("main:1", 0)), "\"JSONPatch\"");
    let validate = (VALIDATE, review(&rollout("30%", ""), &rollout("20%", "")), "\"allowed\":true");
    let approve = (APPROVER, review(&rollout("20%", "StepReady"), &rollout("20%", "StepPaused")), "\"JSONPatch\"");
    vec![hold.clone(), validate.clone(), hold, approve]
}

/// How long reviews took, sorted, and how many were not answered as they should.
struct Figures {
    latencies: Vec<Duration>,
    lost: u64,
}

impl Figures {
    fn at(&self, share: f64) -> Duration {
        self.latencies[((self.latencies.len() - 1) as f64 * share) as usize]
    }

    fn print(&self, what: &str) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.at(share));
        println!(
            "{what}: {} reviews, p50 {p50:?}, p99 {p99:?}, longest {max:?}, lost {}",
            self.latencies.len(),
            self.lost
        );
    }
}

/// Asks at a steady rate, as an API server does: on open connections, and once more on a new one when one was closed.
async fn ask(server: &Server, rate: u64, seconds: u64) -> Figures {
    let questions = Arc::new(questions());
    let (due, work) = mpsc::channel::<(u64, Instant)>(100_000);
    let work = Arc::new(Mutex::new(work));
    let lost = Arc::new(AtomicU64::new(0));
    let mut askers = Vec::new();
    for _ in 0..CONNECTIONS {
        let (server, work, lost, questions) = (server.clone(), work.clone(), lost.clone(), questions.clone());
        askers.push(tokio::spawn(async move {
            let mut stream = server.connect().await.ok();
            let mut latencies = Vec::new();
            loop {
                let next = work.lock().await.recv().await;
                let Some((i, due)) = next else { return latencies };
                let (path, body, part) = &questions[i as usize % questions.len()];
                let mut answer = None;
                for _ in 0..2 {
                    if stream.is_none() {
                        stream = timeout(Duration::from_secs(10), server.connect()).await.ok().and_then(Result::ok);
                    }
                    let Some(open) = &mut stream else { continue };
                    answer = timeout(Duration::from_secs(10), post(open, path, body)).await.ok().and_then(Result::ok);
                    if answer.is_some() {
                        break;
                    }
                    stream = None;
                }
                latencies.push(due.elapsed());
                if !answer.as_ref().is_some_and(|(status, text)| *status == 200 && text.contains(part)) {
                    eprintln!("{path}: {answer:?}");
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    // Handshakes are not what is measured.
    sleep(Duration::from_millis(500)).await;
    let begin = Instant::now();
    for i in 0..rate * seconds {
        let at = begin + Duration::from_micros(i * 1_000_000 / rate);
        sleep_until(at).await;
        // The clock of the runtime is late by up to a millisecond.
        due.send((i, Instant::now())).await.unwrap();
    }
    drop(due);
    let mut latencies = Vec::new();
    for asker in askers {
        latencies.extend(asker.await.unwrap());
    }
    latencies.sort();
    Figures { latencies, lost: lost.load(Ordering::Relaxed) }
}

/// Everything that it should not be sent, at once; runs until it is dropped.
fn misuse(server: &Server) -> Vec<JoinHandle<()>> {
    let mut all = Vec::new();
    // Ten thousand connections: some mute, some with a handshake and half a head, opened again when they are closed.
    for i in 0..10_000 {
        let server = server.clone();
        all.push(tokio::spawn(async move {
            sleep(Duration::from_micros(300 * i)).await;
            loop {
                let mut byte = [0];
                if i % 20 == 0 {
                    if let Ok(mut stream) = server.connect().await {
                        let _ = stream.write_all(b"POST /convert HTTP/1.1\r\nX-Slow: ").await;
                        let _ = stream.read(&mut byte).await;
                    }
                } else if let Ok(mut stream) = TcpStream::connect(server.address).await {
                    let _ = stream.read(&mut byte).await;
                }
                sleep(Duration::from_secs(5)).await;
            }
        }));
    }
    let padded = review(&deployment("main:2", 3 << 20), &deployment("main:1", 3 << 20));
    // As many values as fit: each takes many times its text once it is parsed.
    let dense = |item: &str, n: usize| format!("[{}{item}]", format!("{item},").repeat(n));
    let object = format!(r#"{{"object":{}}}"#, dense("[]", 2_500_000));
    let dense_body = format!(r#"{{"apiVersion":"admission.k8s.io/v1","request":{object}}}"#).into_bytes();
    let keys: Vec<String> = (0..700_000).map(|i| format!("\"{i:x}\":0")).collect();
    let keyed =
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","request":{{"object":{{{}}}}}}}"#, keys.join(",")).into_bytes();
    let list = |objects: String| {
        format!(
            r#"{{"apiVersion":"apiextensions.k8s.io/v1","request":{{"uid":"1","desiredAPIVersion":"rollouts.kruise.io/v1alpha1","objects":{objects}}}}}"#
        )
    };
    let dense_list = list(dense(r#"{"a":[]}"#, 90_000)).into_bytes();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        (HOLD, padded.clone()),
        (VALIDATE, padded),
        (HOLD, dense_body),
        (HOLD, keyed),
        (CONVERT, dense_list),
        (HOLD, b"{".to_vec()),
        (HOLD, "[".repeat(1 << 20).into_bytes()),
        (VALIDATE, vec![0xff; 1 << 20]),
        ("/mutate-elsewhere", vec![b'x'; 1 << 20]),
    ];
    for (path, body) in bad.into_iter().cycle().take(24) {
        let server = server.clone();
        all.push(tokio::spawn(async move {
            loop {
                let _ = timeout(Duration::from_secs(10), server.once(path, &body)).await;
                sleep(Duration::from_millis(200)).await;
            }
        }));
    }
    // A byte a second, of bodies that were announced as large.
    for _ in 0..64 {
        let server = server.clone();
        all.push(tokio::spawn(async move {
            loop {
                if let Ok(mut stream) = server.connect().await {
                    let _ = stream.write_all(head(HOLD, 4 << 20).as_bytes()).await;
                    while stream.write_all(b" ").await.is_ok() {
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }));
    }
    all
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (rate, seconds) = (setting("RATE", 500), setting("SECONDS", 20));
    let builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").namespace("shop");
    let cluster = builder.object(rollout("20%", "")).build().unwrap();
    let api = serve(&cluster).await;
    let address: SocketAddr = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let listen = address.to_string();
    // The cluster in memory knows no rights.
    let args = ["--leader-elect", "--webhook-addr", &listen, "--webhook-host", "127.0.0.1", "--check-authority=false"];
    let process = Process::start(dir.path(), api, "0,1", &args);
    let secrets = Gvr::new("", "v1", "secrets");
    let ca = || -> Option<Vec<u8>> {
        let secret = cluster.get(&secrets, "kruise-rollout", SECRET)?;
        serde_json::from_value::<k8s_openapi::ByteString>(secret["data"]["ca.crt"].clone()).ok().map(|ca| ca.0)
    };
    until("there is a certificate", Duration::from_secs(30), || ca().is_some()).await;
    let server = Server::new(address, &ca().unwrap());
    while server.connect().await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    ask(&server, 50, 2).await;
    let (used, at_rest) = (process.processor_time(), process.memory("VmRSS"));
    let calm = ask(&server, rate, seconds).await;
    calm.print(&format!("{rate} reviews a second for {seconds} s on two processors"));
    let each = (process.processor_time() - used) / u32::try_from(rate * seconds).unwrap();
    println!("  processor {each:?} a review; memory {:.1} MB", at_rest as f64 / 1024.0);

    let crowd = misuse(&server);
    // All have knocked.
    sleep(Duration::from_secs(5)).await;
    let hard = ask(&server, rate / 5, seconds).await;
    hard.print(&format!("{} reviews a second amid 10,000 connections and bad input", rate / 5));
    let peak = process.memory("VmHWM");
    println!("  memory at most {:.1} MB", peak as f64 / 1024.0);
    crowd.iter().for_each(JoinHandle::abort);

    assert_eq!((calm.lost, hard.lost), (0, 0), "{}", process.log());
    assert!(calm.at(0.99) < LATENCY, "p99 {:?} of at most {LATENCY:?}", calm.at(0.99));
    assert!(peak < MEMORY, "{peak} KiB of at most {MEMORY}");
}
