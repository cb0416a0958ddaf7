//! The real process beside an API server in memory: what it takes of the machine.

// Not every benchmark asks for everything.
#![allow(dead_code)]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::client::Body;
use serde_json::{Value, json};
use tidegate::sim::Cluster;
use tokio::{net::TcpListener, time::Instant};
use tower::Service as _;

/// Identity of the process that is measured.
pub const CONTROLLER: &str = "controller";

/// The cluster's API over plain HTTP, for [`CONTROLLER`].
pub async fn serve(cluster: &Cluster) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connection = cluster.connection(CONTROLLER);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = connection.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let mut connection = connection.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes().to_vec();
                    connection.call(http::Request::from_parts(head, Body::from(body))).await
                }
            });
            tokio::spawn(
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// A running `tidegate controller`; killed when it is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it against the API at `address`, on these processors.
    pub fn start(dir: &Path, address: SocketAddr, processors: &str, args: &[&str]) -> Process {
        let kubeconfig = dir.join("kubeconfig");
        let named = |name: &str, value: Value| json!([{"name": "bench", name: value}]);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": named("cluster", json!({"server": format!("http://{address}")})),
            "users": named("user", json!({})),
            "contexts": named("context", json!({"cluster": "bench", "user": "bench"}))});
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let log = dir.join("controller.log");
        // Another build, or one under a profiler.
        let wrapper = std::env::var("TIDEGATE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidegate").to_owned());
        let mut command = Command::new("taskset");
        command.args(["-c", processors]).args(wrapper.split(' ')).arg("controller").args(args);
        command.args(["--health-addr", "127.0.0.1:0", "--log-format", "json"]).arg("--kubeconfig").arg(&kubeconfig);
        let child = command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        Process { child, log }
    }

    /// A field of `/proc/<pid>/status` in KiB, such as `VmRSS` or `VmHWM`.
    pub fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap_or_else(|e| panic!("it has ended ({e}): {}", self.log()));
        let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // User and system time, in hundredths, after the name in brackets.
        let fields: Vec<u64> =
            stat.rsplit_once(')').unwrap().1.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        Duration::from_millis(10 * (fields[11] + fields[12]))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
pub async fn until(what: &str, most: Duration, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < most, "{what}: not within {most:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A figure that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number")))
}
