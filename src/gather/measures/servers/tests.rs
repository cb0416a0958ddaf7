use std::sync::Mutex;

use tokio::net::TcpListener;

use super::{
    super::stand_ins::{Canned, api, ask, certificate, http_answer, serve, servers, vector},
    *,
};
use crate::{
    api::analysis::SecretRef,
    gather::measures::http::{LARGEST, Web as RealWeb},
};

#[tokio::test]
async fn only_servers_that_are_allowed() {
    let http = Arc::new(Canned { status: 200, body: vector(""), asked: Mutex::default() });
    let servers = Servers { http: http.clone(), logins: None, allowed: vec!["http://p:9090/".into()] };
    assert_eq!(servers.ask(&ask("http://p:9090")).await, Answer::Empty);
    assert!(
        matches!(servers.ask(&ask("http://q:9090")).await, Answer::Mistake(why) if why.contains("--metrics-servers"))
    );
    assert_eq!(http.asked.lock().unwrap().len(), 1, "the other was not asked");
}

#[tokio::test]
async fn a_real_exchange() {
    let address = serve(|| http_answer(&vector(r#"{"metric":{},"value":[1,"2"]}"#)), None).await;
    assert_eq!(servers().ask(&ask(&address)).await, Answer::Value(2.0));
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let endless =
        || [b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n".to_vec(), vec![b' '; LARGEST * 4]].concat();
    let address = serve(endless, None).await;
    assert!(matches!(servers().ask(&ask(&address)).await, Answer::Mistake(why) if why.contains("larger than 1 MiB")));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let there = serve(|| http_answer(&vector("")), None).await;
    let to = there.clone();
    let redirect = move || format!("HTTP/1.1 307 T\r\nlocation: {to}/x\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let here = serve(redirect, None).await;
    assert!(matches!(servers().ask(&ask(&here)).await, Answer::Mistake(why) if why.contains(&there)));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(servers().ask(&ask(&address)).await, Answer::Unavailable(why) if why.contains("refused")));
}

/// A Secret that is at hand.
async fn with_ca(address: &str, ca: Option<&str>) -> Result<Response<Bytes>, Failure> {
    let request = Prometheus.request(&ask(address), address).unwrap();
    RealWeb::default().send(request, ca).await
}

#[tokio::test]
async fn certificates() {
    let body = || http_answer(&vector(""));
    let (good, ca) = certificate(2999);
    let address = serve(body, Some(good)).await;
    assert!(with_ca(&address, Some(&ca)).await.is_ok());
    let mistake = |result: Result<Response<Bytes>, Failure>| match result.unwrap_err() {
        Failure::Mistake(why) => why,
        Failure::Unavailable(why) => panic!("{why}"),
    };
    let (_, other) = certificate(2999);
    let why = mistake(with_ca(&address, Some(&other)).await);
    assert!(why.starts_with("TLS: invalid peer certificate"), "{why}");
    assert!(mistake(with_ca(&address, Some("no PEM")).await).contains("no certificate"));
    let (old, ca) = certificate(2001);
    let why = mistake(with_ca(&serve(body, Some(old)).await, Some(&ca)).await);
    assert!(why.contains("expired"), "{why}");
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let secret = Arc::new(Mutex::new(None));
    let http = Arc::new(Canned { status: 200, body: vector(""), asked: Mutex::default() });
    let logins = Some(Logins::new(api(secret.clone())));
    let servers = Servers { http: http.clone(), logins, allowed: Vec::new() };
    let mut ask = ask("http://p");
    ask.provider.prometheus.as_mut().unwrap().secret_ref = Some(SecretRef { name: "login".into() });
    assert!(matches!(servers.ask(&ask).await, Answer::Mistake(why) if why.contains("Secret demo/login is missing")));
    assert!(http.asked.lock().unwrap().is_empty(), "nobody is asked without the login");
    *secret.lock().unwrap() = Some(serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "login", "namespace": "demo"}, "data": {"token": "YWJj", "address": "aHR0cDovL3A="}}));
    assert_eq!(servers.ask(&ask).await, Answer::Empty);
    assert_eq!(http.asked.lock().unwrap()[0].headers()["authorization"], "Bearer abc");
}
