//! The webhooks over real TLS connections: what they answer, and what they refuse before they read it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tidegate::{
    api::{convert, crd, keys::WORKLOAD_TYPE},
    cli::webhooks,
    sim::{Cluster, Fault, Rule},
    telemetry::{Health, Metrics},
    webhook::{
        Limits, Options, Source, Tls, WEBHOOKS,
        certificates::{self, Certificates},
        router, serve, validate,
    },
    workload::hold,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

const NAME: &str = "tidegate-webhooks.tidegate.svc";

struct Server {
    address: SocketAddr,
    tls: Tls,
    ca: Certificates,
    metrics: Metrics,
    stop: CancellationToken,
}

fn pair() -> Certificates {
    certificates::renew(None, &[NAME.to_owned()], Timestamp::now()).unwrap().unwrap()
}

async fn server(limits: Limits, client: Option<kube::Client>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tls, ca, metrics, stop) = (Tls::default(), pair(), Metrics::new(), CancellationToken::new());
    tls.set(certificates::certified_key(&ca.cert, &ca.key).unwrap());
    // The cluster in memory knows no rights.
    let rules = validate::Rules { check_authority: false, ..validate::Rules::default() };
    let router = router(client, rules, limits, metrics.clone());
    tokio::spawn(serve(listener, tls.clone(), router, limits, stop.clone()));
    Server { address, tls, ca, metrics, stop }
}

type Stream = TlsStream<TcpStream>;

async fn connect(address: SocketAddr, ca: &str) -> std::io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    CertificateDer::pem_slice_iter(ca.as_bytes()).for_each(|ca| roots.add(ca.unwrap()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), stream).await
}

/// Status and body of the next answer on a connection.
async fn answer(stream: &mut Stream) -> std::io::Result<(u16, String)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length =
                text.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
            if bytes.len() >= head + 4 + length {
                let body = String::from_utf8_lossy(&bytes[head + 4..head + 4 + length]).into_owned();
                return Ok((text[9..12].parse().unwrap(), body));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn send(stream: &mut Stream, path: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    answer(stream).await
}

impl Server {
    async fn connect(&self) -> Stream {
        connect(self.address, &self.ca.ca).await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, text) = send(&mut self.connect().await, path, body.to_string().as_bytes()).await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Status and text of a request that is no review.
    async fn raw(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        answer(&mut stream).await.unwrap()
    }
}

fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": operation, "namespace": "shop", "name": "web", "object": object, "oldObject": old}})
}

fn deployment(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {WORKLOAD_TYPE: "deployment"}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
}

fn rollout(name: &str, workload: &str) -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
                 "strategy": {"canary": {"steps": [{"replicas": "20%"}, {"replicas": "100%"}]}}}})
}

#[tokio::test]
async fn a_changed_template_is_held_by_the_same_function() {
    let server = server(Limits::default(), None).await;
    let path = "/mutate-apps-v1-deployment";
    let (old, new) = (deployment("main:1"), deployment("main:2"));
    let answer = server.post(path, &review("UPDATE", &new, &old)).await;
    assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&json!("u-1"), &json!(true)));
    assert_eq!(
        (&answer["apiVersion"], &answer["response"]["patchType"]),
        (&json!("admission.k8s.io/v1"), &json!("JSONPatch"))
    );
    let ByteString(patch) = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut stored = new.clone();
    json_patch::patch(&mut stored, &patch).unwrap();
    assert_eq!(Some(stored.clone()), hold::rule("apps", "v1", "deployments").unwrap().hold(&old, &new));
    assert_eq!(stored["spec"]["paused"], true);
    for (operation, object, old) in [
        ("UPDATE", &old, &old),
        ("UPDATE", &stored, &stored),
        ("CREATE", &new, &Value::Null),
        ("UPDATE", &json!("?"), &json!([])),
    ] {
        let answer = server.post(path, &review(operation, object, old)).await;
        assert_eq!(answer["response"], json!({"uid": "u-1", "allowed": true}), "{operation} {object}");
    }
    let mut scaled = review("UPDATE", &new, &old);
    scaled["request"]["subResource"] = json!("scale");
    assert!(server.post(path, &scaled).await["response"].get("patch").is_none());
}

#[tokio::test]
async fn what_scales_and_protects_the_workload_is_told() {
    let mut builder = Cluster::builder().namespace("shop");
    for definition in crd::all().unwrap() {
        builder = builder.definition(definition);
    }
    let mut web = deployment("main:1");
    web["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    web["spec"]["template"]["metadata"] = json!({"labels": {"app": "web"}});
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 9}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}}});
    let cluster = builder.object(web).object(autoscaler).object(budget).build().unwrap();
    let server = server(Limits::default(), Some(cluster.client("webhook"))).await;
    let path = "/validate-rollouts-kruise-io-rollout";
    let answer = server.post(path, &review("CREATE", &rollout("web", "web"), &Value::Null)).await;
    assert_eq!(answer["response"]["allowed"], true);
    let warnings = answer["response"]["warnings"].to_string();
    assert!(
        warnings.contains("20% follows HorizontalPodAutoscaler web, which keeps 1 to 9 pods: 1 to 2"),
        "{warnings}"
    );
    assert!(
        warnings.contains("PodDisruptionBudget web: minAvailable 3 of 3 replicas lets no pod be evicted"),
        "{warnings}"
    );
    // Nobody reads them for a write that changes nothing.
    let before = cluster.requests();
    server.post(path, &review("UPDATE", &rollout("web", "web"), &rollout("web", "web"))).await;
    assert_eq!(cluster.requests(), before);
}

#[tokio::test]
async fn a_rollout_is_judged_with_its_neighbours() {
    let mut builder = Cluster::builder().namespace("shop");
    for definition in crd::all().unwrap() {
        builder = builder.definition(definition);
    }
    let cluster = builder.object(rollout("first", "web")).build().unwrap();
    let server = server(Limits::default(), Some(cluster.client("webhook"))).await;
    let path = "/validate-rollouts-kruise-io-rollout";
    let answer = server.post(path, &review("CREATE", &rollout("second", "web"), &Value::Null)).await;
    assert_eq!(answer["response"]["allowed"], false);
    let status = &answer["response"]["status"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")));
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("Rollout shop/web: spec.workloadRef: Invalid value: {"), "{message}");
    assert!(
        message.ends_with("Rollout \"first\" is for this workload already: change that one, or delete it first"),
        "{message}"
    );
    let mut other = rollout("third", "api");
    other["spec"]["strategy"]["canary"]["steps"] = json!([{"replicas": "20%"}]);
    let answer = server.post(path, &review("CREATE", &other, &Value::Null)).await;
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("the last step is not 100%"), "{answer}");
    // Nothing is listed for what cannot conflict.
    let before = cluster.requests();
    server.post(path, &review("UPDATE", &rollout("second", "web"), &rollout("second", "web"))).await;
    server.post(path, &review("DELETE", &Value::Null, &rollout("second", "web"))).await;
    assert_eq!(cluster.requests(), before);
    // One that has too much to do is asked once more.
    cluster.add_fault(Rule::new("webhook", Fault::TooManyRequests).times(2));
    let answer = server.post(path, &review("CREATE", &rollout("busy", "other"), &Value::Null)).await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    // A server that is away is a reason to try again, not a yes.
    cluster.add_fault(Rule::new("webhook", Fault::InternalError));
    let body = review("CREATE", &rollout("fourth", "web"), &Value::Null).to_string();
    let (status, text) = send(&mut server.connect().await, path, body.as_bytes()).await.unwrap();
    assert!(status == 503 && text.contains("cannot be listed"), "{status} {text}");
}

#[tokio::test]
async fn rollouts_are_converted_in_order_and_strangers_are_refused() {
    let server = server(Limits::default(), None).await;
    let ask = |version: &str, objects: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": {
            "uid": "c-1", "desiredAPIVersion": format!("rollouts.kruise.io/{version}"), "objects": objects}})
    };
    let answer = server.post("/convert", &ask("v1alpha1", json!([rollout("a", "x"), rollout("b", "y")]))).await;
    assert_eq!(
        (&answer["response"]["uid"], &answer["response"]["result"]),
        (&json!("c-1"), &json!({"status": "Success"}))
    );
    let converted = &answer["response"]["convertedObjects"];
    assert_eq!(converted[1], convert::to_v1alpha1(&rollout("b", "y")));
    assert_eq!(converted[0]["spec"]["objectRef"]["workloadRef"]["name"], "x");
    for (version, objects, part) in [
        ("v2", json!([rollout("a", "x")]), "there is no rollouts.kruise.io/v2"),
        ("v1beta1", json!([{"kind": "TrafficRouting"}]), "only Rollout has two versions"),
        ("v1beta1", json!([3]), "cannot be converted"),
    ] {
        let answer = server.post("/convert", &ask(version, objects)).await;
        assert_eq!(answer["response"]["result"]["status"], "Failure");
        let message = answer["response"]["result"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_long_list_is_converted_and_a_heavy_one_refused() {
    let server = server(Limits { list: 2 << 20, ..Limits::default() }, None).await;
    let ask = |objects: &str| {
        format!(
            r#"{{"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": {{"uid": "c-1",
               "desiredAPIVersion": "rollouts.kruise.io/v1alpha1", "objects": [{objects}]}}}}"#
        )
    };
    let one = rollout("a", "x").to_string();
    let many = |text: &str, n: usize| vec![text; n].join(",");
    let body = ask(&many(&one, (1 << 20) / one.len()));
    let (status, text) = send(&mut server.connect().await, "/convert", body.as_bytes()).await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["response"]["result"]["status"]), (200, &json!("Success")));
    assert_eq!(answer["response"]["convertedObjects"].as_array().unwrap().len(), (1 << 20) / one.len());
    for (why, body, status, part) in [
        ("large", ask(&many(&one, (3 << 20) / one.len())), 413, "larger than 2097152 bytes"),
        ("many", ask(&many("3", 100_001)), 400, "at most 100000 objects"),
        ("heavy", ask(&format!(r#"{{"kind":"Rollout","spec":[{}]}}"#, many("[]", 500_000))), 413, "MB in memory"),
        ("no list", ask("").replace("[]", "7"), 400, "cannot be read"),
    ] {
        let (answered, text) = send(&mut server.connect().await, "/convert", body.as_bytes()).await.unwrap();
        assert!(answered == status && text.contains(part), "{why}: {answered} {text:.200}");
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_the_remedy() {
    let server = server(Limits { body: 1 << 20, ..Limits::default() }, None).await;
    let path = "/mutate-apps-v1-deployment";
    let post = |path: &str, more: &str| format!("POST {path} HTTP/1.1\r\nHost: {NAME}\r\n{more}\r\n");
    let json = "Content-Type: application/json\r\n";
    let with = |n: usize| format!("{json}Content-Length: {n}\r\n");
    for (head, body, status, part) in [
        (post("/mutate-elsewhere", &with(2)), "{}", 404, ""),
        (format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"), "", 405, ""),
        (post(path, "Content-Length: 2\r\n"), "{}", 415, "send application/json"),
        (post(path, "Content-Type: text/plain\r\nContent-Length: 2\r\n"), "{}", 415, "\"text/plain\""),
        (post(path, &format!("{json}Transfer-Encoding: chunked\r\n")), "2\r\n{}\r\n0\r\n\r\n", 411, "Content-Length"),
        (post(path, &with((1 << 20) + 1)), "", 413, "larger than 1048576 bytes"),
        (post(path, &with(0)), "", 400, "cannot be read"),
        (post(path, &with(1)), "{", 400, "cannot be read"),
        (post(path, &with(2)), "[]", 400, "cannot be read"),
        (post(path, &with(2)), "{}", 400, "apiVersion"),
        (post(path, &with(35)), r#"{"apiVersion":"x","request":"why?"}"#, 400, "cannot be read"),
        (post(path, &with(31)), r#"{"apiVersion":"x","request":{}}"#, 400, "send admission.k8s.io/v1"),
        (
            post("/validate-rollouts-kruise-io-rollout", &with(49)),
            r#"{"apiVersion":"admission.k8s.io/v1","request":{}}"#,
            400,
            "no object",
        ),
        (post("/convert", &with(2)), "{}", 400, "cannot be read"),
    ] {
        let (got, text) = server.raw(&head, body.as_bytes()).await;
        assert!(got == status && text.contains(part), "{head}{body}\n{got} {text}");
    }
    // Nested without end: the parser gives up before the stack does.
    let deep = format!(r#"{{"apiVersion":"x","request":{{"object":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let (status, text) = send(&mut server.connect().await, path, deep.as_bytes()).await.unwrap();
    assert!(status == 400 && text.contains("recursion limit"), "{status} {text}");
    // Short to say, and large in memory.
    let dense = format!(r#"{{"apiVersion":"x","request":{{"object":[{}0]}}}}"#, r#"{"":0},"#.repeat(120_000));
    let (status, text) = send(&mut server.connect().await, path, dense.as_bytes()).await.unwrap();
    assert!(status == 413 && text.contains("MB in memory"), "{status} {text}");
    // Not UTF-8.
    assert_eq!(send(&mut server.connect().await, path, &[0xff; 64]).await.unwrap().0, 400);
    assert!(server.metrics.encode().contains(r#"webhook="hold",result="error"#));
}

/// The first record of a handshake that offers nothing above this version.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    // ECDHE_ECDSA with AES_128_GCM and with AES_128_CBC, no compression; groups, point formats and signatures for P-256.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0, 0, 26]);
    body.extend([0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3, 0, 23, 0, 0]);
    let mut hello = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    hello.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(hello.len()).unwrap()];
    record.extend(hello);
    record
}

#[tokio::test]
async fn tls_below_1_2_plain_text_and_other_names_are_turned_away() {
    let server = server(Limits::default(), None).await;
    for minor in [1, 2] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&client_hello(minor)).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        // A fatal alert: protocol_version.
        assert!(answer.starts_with(&[21, 3]) && answer.ends_with(&[2, 70]), "TLS 1.{}: {answer:?}", minor - 1);
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&client_hello(3)).await.unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [22, 3, 3], "the same with TLS 1.2 goes on");
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"POST /convert HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(connect(server.address, &pair().ca).await.is_err(), "another CA");
}

#[tokio::test]
async fn slow_and_idle_clients_are_turned_away_and_others_are_served() {
    let limits = Limits { time: Duration::from_millis(300), idle: Duration::from_millis(600), ..Limits::default() };
    let server = server(limits, None).await;
    let begin = Instant::now();
    // One that never begins the handshake, one that never ends its head, one that never ends its body.
    let mut mute = TcpStream::connect(server.address).await.unwrap();
    let mut head = server.connect().await;
    head.write_all(b"POST /convert HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut body = server.connect().await;
    let start = format!(
        "POST /convert HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    body.write_all(start.as_bytes()).await.unwrap();
    server.post("/mutate-apps-v1-deployment", &review("UPDATE", &deployment("a"), &deployment("b"))).await;
    let (status, text) = answer(&mut body).await.unwrap();
    assert!(status == 408 && text.contains("in time"), "{status} {text}");
    let mut rest = Vec::new();
    assert_eq!(mute.read_to_end(&mut rest).await.unwrap_or(0), 0);
    let _ = timeout(Duration::from_secs(5), head.read_to_end(&mut rest)).await.expect("closed");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn who_announces_much_and_sends_nothing_keeps_nobody_waiting() {
    let server = server(Limits { time: Duration::from_secs(60), ..Limits::default() }, None).await;
    let head = format!(
        "POST /convert HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{{",
        4 << 20
    );
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    sleep(Duration::from_millis(50)).await;
    let good = review("UPDATE", &deployment("a"), &deployment("b"));
    timeout(Duration::from_secs(20), server.post("/mutate-apps-v1-deployment", &good)).await.expect("kept waiting");
    // Nor does one of many megabytes, which may wait for another such, but not for those.
    let mut large = good.clone();
    large["request"]["object"]["metadata"]["annotations"] = json!({"pad": "x".repeat(3 << 20)});
    timeout(Duration::from_secs(20), server.post("/mutate-apps-v1-deployment", &large)).await.expect("kept waiting");
}

#[tokio::test]
async fn the_idle_make_room_and_the_busy_stay() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let server = server(limits, None).await;
    let good = review("UPDATE", &deployment("a"), &deployment("b")).to_string();
    // In the middle of a request.
    let mut busy = server.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        "/mutate-apps-v1-deployment",
        good.len()
    );
    busy.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(server.address).await.unwrap());
    }
    for _ in 0..5 {
        let begin = Instant::now();
        server.post("/mutate-apps-v1-deployment", &serde_json::from_str(&good).unwrap()).await;
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
    busy.write_all(good.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut busy).await.unwrap().0, 200, "who is being served is not thrown out");
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_requests_in_hand_end() {
    let server = server(Limits::default(), None).await;
    let body = review("UPDATE", &deployment("a"), &deployment("b")).to_string();
    let mut open = server.connect().await;
    assert_eq!(send(&mut open, "/mutate-apps-v1-deployment", body.as_bytes()).await.unwrap().0, 200);
    let next = pair();
    server.tls.set(certificates::certified_key(&next.cert, &next.key).unwrap());
    assert!(connect(server.address, &server.ca.ca).await.is_err());
    let mut fresh = connect(server.address, &next.ca).await.unwrap();
    for stream in [&mut fresh, &mut open] {
        assert_eq!(send(stream, "/mutate-apps-v1-deployment", body.as_bytes()).await.unwrap().0, 200);
    }
    // The process is asked to leave in the middle of a request.
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        "/mutate-apps-v1-deployment",
        body.len()
    );
    open.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    server.stop.cancel();
    sleep(Duration::from_millis(50)).await;
    open.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut open).await.unwrap().0, 200);
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody new is let in");
}

/// The whole of it on a cluster: the Secret is made once, by whoever is first, and every replica serves it.
#[tokio::test]
async fn replicas_share_one_secret_and_follow_its_changes() {
    let cluster = Cluster::builder().namespace("tidegate").build().unwrap();
    let stop = CancellationToken::new();
    let mut replicas = Vec::new();
    for who in ["a", "b", "c"] {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let (health, metrics) = (Health::new([WEBHOOKS]), Metrics::new());
        let options = Options {
            address,
            namespace: "tidegate".to_owned(),
            source: Source::Secret {
                name: webhooks::SECRET.to_owned(),
                service: webhooks::SERVICE.to_owned(),
                host: Some("127.0.0.1".to_owned()),
            },
            limits: Limits::default(),
            rules: validate::Rules::default(),
            clock: Arc::new(Timestamp::now),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        tokio::spawn(tidegate::webhook::run(cluster.client(who), options, stop.clone()));
        replicas.push((address, health, metrics));
    }
    let secret = async || {
        let api = kube::Api::<k8s_openapi::api::core::v1::Secret>::namespaced(cluster.client("user"), "tidegate");
        let data = api.get(webhooks::SECRET).await.unwrap().data.unwrap();
        String::from_utf8(data["ca.crt"].0.clone()).unwrap()
    };
    let served = async |ca: &str| {
        for (address, health, metrics) in &replicas {
            let begin = Instant::now();
            while !health.is_ready() || connect(*address, ca).await.is_err() {
                assert!(begin.elapsed() < Duration::from_secs(10), "{}", health.report());
                sleep(Duration::from_millis(10)).await;
            }
            assert!(
                metrics
                    .encode()
                    .contains(r#"tidegate_webhook_certificate_expiry_timestamp_seconds{certificate="serving"} "#)
            );
        }
    };
    let begin = Instant::now();
    while !replicas[0].1.is_ready() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", replicas[0].1.report());
        sleep(Duration::from_millis(10)).await;
    }
    let first = secret().await;
    served(&first).await;
    // Somebody deletes it: made anew, once, and served everywhere.
    let api = kube::Api::<k8s_openapi::api::core::v1::Secret>::namespaced(cluster.client("user"), "tidegate");
    api.delete(webhooks::SECRET, &Default::default()).await.unwrap();
    let begin = Instant::now();
    while api.get_opt(webhooks::SECRET).await.unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10)).await;
    }
    let second = secret().await;
    assert_ne!(first, second);
    served(&second).await;
    assert_eq!(secret().await, second, "made once");
    stop.cancel();
}

#[tokio::test]
async fn a_kind_that_nobody_knows_needs_its_owners_word() {
    let definition = include_str!("e2e/crds/gameserversets.yaml");
    let mut builder = Cluster::builder().namespace("shop").definition(tidegate::yaml::from_str(definition).unwrap());
    for definition in crd::all().unwrap() {
        builder = builder.definition(definition);
    }
    let cluster = builder.build().unwrap();
    let set = |name: &str, labels: Value| {
        json!({"apiVersion": "games.example.com/v1beta1", "kind": "GameServerSet",
            "metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": {"selector": {}, "template": {}}})
    };
    cluster.create(set("said", json!({WORKLOAD_TYPE: "StatefulSet"}))).unwrap();
    cluster.create(set("mute", json!({}))).unwrap();
    let server = server(Limits::default(), Some(cluster.client("webhook"))).await;
    let named = |api_version: &str, kind: &str, name: &str| {
        let mut rollout = rollout("r", name);
        rollout["spec"]["workloadRef"] = json!({"apiVersion": api_version, "kind": kind, "name": name});
        rollout
    };
    let games = "games.example.com/v1beta1";
    for (rollout, refused, warned) in [
        (named(games, "GameServerSet", "said"), "", ""),
        (named(games, "GameServerSet", "mute"), "label it rollouts.kruise.io/workload-type: statefulset", ""),
        (named(games, "GameServerSet", "later"), "", "is not there yet"),
        (named(games, "GameServer", "said"), "does not serve games.example.com/v1beta1 GameServer", ""),
        (named("example.io/v1", "Widget", "said"), "does not serve example.io/v1 Widget", ""),
        (named("apps/v1", "ReplicaSet", "said"), "cannot be released in steps: choose Deployment of apps", ""),
    ] {
        let response =
            server.post("/validate-rollouts-kruise-io-rollout", &review("CREATE", &rollout, &Value::Null)).await;
        let response = &response["response"];
        let message = response["status"]["message"].as_str().unwrap_or_default();
        let warnings = response["warnings"].to_string();
        assert_eq!(response["allowed"], refused.is_empty(), "{response}");
        assert!(message.contains(refused), "{response}");
        assert!(warnings.contains(warned), "{response}");
    }
    // What is stored already stays writable: metadata, steps, deletion.
    let (old, mut new) = (named(games, "GameServerSet", "mute"), named(games, "GameServerSet", "mute"));
    new["spec"]["disabled"] = json!(true);
    let response = server.post("/validate-rollouts-kruise-io-rollout", &review("UPDATE", &new, &old)).await;
    assert_eq!(response["response"]["allowed"], true, "{response}");
}
