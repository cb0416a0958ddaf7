//! etcd, the API server, its controllers, the scheduler and kwok.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::{Client, Config, config::Kubeconfig};
use serde_json::{Value, json};

use super::{
    audit,
    netns::Tools,
    objects::Objects,
    pki::Pki,
    poll::{SOON, until},
    process::Daemon,
};

/// A pod with this annotation never becomes Ready.
pub const NEVER_READY: &str = "tidegate.test/never-ready";
/// How long a deleted pod goes on answering, as a container with a preStop hook does. A pod deleted with a grace period of
/// 0 is gone at once.
pub const DRAIN: Duration = Duration::from_millis(1500);

pub struct Cluster {
    pub pki: Pki,
    pub admin: Client,
    pub daemons: Vec<Daemon>,
}

impl Cluster {
    /// The API server hangs for a while: no answer, no refusal.
    pub async fn without_api_server(&self, time: Duration) -> Result<()> {
        let api = self.daemons.iter().find(|d| d.name == "kube-apiserver").context("no kube-apiserver")?;
        api.signal("STOP")?;
        tokio::time::sleep(time).await;
        api.signal("CONT")
    }
}

/// A client with the identity of the kubeconfig's user.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?)
}

/// The same under a name of its own in the audit log.
pub async fn client_as(kubeconfig: &Path, agent: &'static str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    Ok(Client::try_from(config)?)
}

/// How kube-apiserver is started, but for what a second one needs. What the controller asks is noted under `name`.
pub fn api_server_arguments(pki: &Pki, port: u16, dir: &Path, name: &str) -> Result<Vec<String>> {
    let file = |name: &str| pki.file(name).display().to_string();
    let mut arguments = vec![
        "--etcd-servers=http://127.0.0.1:12379".into(),
        format!("--secure-port={port}"),
        "--bind-address=0.0.0.0".into(),
        // No default route from which it could guess.
        "--advertise-address=172.31.0.1".into(),
        "--endpoint-reconciler-type=none".into(),
        format!("--tls-cert-file={}", file("api.crt")),
        format!("--tls-private-key-file={}", file("api.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        // The taint would stay: only the node lifecycle controller, which does not run, takes it away.
        "--disable-admission-plugins=TaintNodesByCondition".into(),
    ];
    arguments.extend(audit::arguments(dir, name)?);
    Ok(arguments)
}

pub async fn start(tools: &Tools, dir: &Path) -> Result<Cluster> {
    let pki = Pki::create(&dir.join("pki"))?;
    let run = |name: &str, args: &[String]| -> Result<Daemon> {
        Daemon::start(Command::new(tools.path(name)?).args(args).current_dir(dir), name, dir)
    };
    let file = |name: &str| pki.file(name).display().to_string();
    let kubeconfig = format!("--kubeconfig={}", pki.kubeconfig("admin").display());

    let etcd = run(
        "etcd",
        &[
            format!("--data-dir={}", dir.join("etcd").display()),
            "--unsafe-no-fsync".into(),
            "--listen-client-urls=http://127.0.0.1:12379".into(),
            "--advertise-client-urls=http://127.0.0.1:12379".into(),
            "--listen-peer-urls=http://127.0.0.1:12380".into(),
            "--log-level=warn".into(),
        ],
    )?;
    let api = run("kube-apiserver", &api_server_arguments(&pki, 16443, dir, "main")?)?;
    let admin = client(&pki.kubeconfig("admin")).await?;
    until("kube-apiserver is ready", SOON, async || {
        etcd.alive()?;
        api.alive()?;
        Ok(admin.request_text(http::Request::get("/readyz").body(Vec::new())?).await?)
    })
    .await?;

    let objects = Objects::new(admin.clone());
    objects
        .apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n0", "labels": {"kubernetes.io/hostname": "n0", "kubernetes.io/os": "linux"}},
                       "spec": {"podCIDR": "10.244.0.0/16"}}))
        .await?;
    let stages = stages(tools.path("stages.yaml")?, dir)?;
    let controllers = [
        "deployment",
        "replicaset",
        "statefulset",
        "daemonset",
        "job",
        "endpointslice",
        "garbage-collector",
        "namespace",
        "serviceaccount",
        "root-ca-certificate-publisher",
        "disruption",
        "clusterrole-aggregation",
        "pod-garbage-collector",
    ]
    .map(|c| format!("{c}-controller"))
    .join(",");
    let daemons = vec![
        etcd,
        api,
        run(
            "kube-controller-manager",
            &[
                kubeconfig.clone(),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
                "--secure-port=16257".into(),
                format!("--service-account-private-key-file={}", file("sa.key")),
                format!("--root-ca-file={}", file("ca.crt")),
                "--endpointslice-updates-batch-period=0s".into(),
                format!("--controllers={controllers}"),
            ],
        )?,
        run(
            "kube-scheduler",
            &[
                kubeconfig.clone(),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
                "--secure-port=16259".into(),
            ],
        )?,
        run(
            "kwok",
            &[
                kubeconfig,
                "--manage-all-nodes=true".into(),
                "--cidr=10.244.0.0/16".into(),
                "--node-ip=172.31.0.1".into(),
                // With leases a second kwok would wait for the first one's.
                "--node-lease-duration-seconds=0".into(),
                format!("--config={}", stages.display()),
            ],
        )?,
    ];
    let node = kube::Api::<k8s_openapi::api::core::v1::Node>::all(admin.clone());
    until("node n0 is Ready", SOON, async || {
        daemons.iter().try_for_each(Daemon::alive)?;
        let status = node.get("n0").await?.status.unwrap_or_default();
        let ready = status.conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True");
        ensure!(ready, "not Ready yet");
        Ok(())
    })
    .await?;
    Ok(Cluster { pki, admin, daemons })
}

/// kwok's own stages with the three things that the tests need: pods that never become Ready, pods that take a moment to
/// start, and pods that drain before they go.
fn stages(path: &Path, dir: &Path) -> Result<PathBuf> {
    let mut all = tidegate::yaml::from_str_multi(&fs::read_to_string(path)?)?;
    let mut stage = |name: &str, change: &dyn Fn(&mut Value)| -> Result<()> {
        let found = all.iter_mut().find(|s| s["metadata"]["name"] == name);
        change(&mut found.with_context(|| format!("kwok has no stage {name} any more"))?["spec"]);
        Ok(())
    };
    stage("pod-ready", &|spec| {
        let rule = json!({"key": format!(".metadata.annotations[\"{NEVER_READY}\"]"), "operator": "DoesNotExist"});
        spec["selector"]["matchExpressions"].as_array_mut().unwrap().push(rule);
        spec["delay"] = json!({"durationMilliseconds": 100, "jitterDurationMilliseconds": 600});
    })?;
    stage("pod-delete", &|spec| {
        spec["delay"] = json!({"durationMilliseconds": DRAIN.as_millis() as u64});
    })?;
    let text = all.iter().map(tidegate::yaml::to_string).collect::<Result<Vec<_>, _>>()?.join("---\n");
    let file = dir.join("stages.yaml");
    fs::write(&file, text)?;
    Ok(file)
}
