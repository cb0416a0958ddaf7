use std::sync::Mutex;

use super::{
    super::stand_ins::{Canned, ask, servers, vector},
    *,
};
use crate::{
    api::analysis::SecretRef,
    gather::{
        measures::http::Web as RealWeb,
        stand_ins::{Objects, Server, api, certificate, http_answer, secret},
    },
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
    let server = Server::start(|| http_answer(&vector(r#"{"metric":{},"value":[1,"2"]}"#)), None).await;
    assert_eq!(servers().ask(&ask(&server.address)).await, Answer::Value(2.0));
}

#[tokio::test]
async fn a_certificate_of_its_own_and_a_token() {
    let (tls, ca) = certificate(2999);
    let server = Server::start(|| http_answer(&vector("")), Some(tls)).await;
    let keys = [("ca.crt", ca.as_str()), ("token", "abc"), ("address", &server.address)];
    let objects: Objects = Arc::new(Mutex::new([("secrets/login".to_owned(), secret(&keys))].into()));
    let servers =
        Servers { http: Arc::new(RealWeb::default()), logins: Some(Logins::new(api(objects))), allowed: Vec::new() };
    let mut ask = ask(&server.address);
    ask.provider.prometheus.as_mut().unwrap().secret_ref = Some(SecretRef { name: "login".into() });
    assert_eq!(servers.ask(&ask).await, Answer::Empty);
    assert_eq!(server.received()[0].headers["authorization"], "Bearer abc");
}

#[tokio::test]
async fn a_secret_that_comes_later_is_read() {
    let objects = Objects::default();
    let http = Arc::new(Canned { status: 200, body: vector(""), asked: Mutex::default() });
    let servers = Servers { http: http.clone(), logins: Some(Logins::new(api(objects.clone()))), allowed: Vec::new() };
    let mut ask = ask("http://p");
    ask.provider.prometheus.as_mut().unwrap().secret_ref = Some(SecretRef { name: "login".into() });
    assert!(matches!(servers.ask(&ask).await, Answer::Mistake(why) if why.contains("Secret demo/login is missing")));
    assert!(http.asked.lock().unwrap().is_empty(), "nobody is asked without the login");
    let keys = secret(&[("token", "abc"), ("address", "http://p")]);
    objects.lock().unwrap().insert("secrets/login".into(), keys);
    assert_eq!(servers.ask(&ask).await, Answer::Empty);
    assert_eq!(http.asked.lock().unwrap()[0].headers()["authorization"], "Bearer abc");
}
