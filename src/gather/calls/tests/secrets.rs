//! Hooks behind TLS, with logins and signatures from a Secret.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::{
    gather::stand_ins::{Objects, api, certificate, secret},
    rollout::calls::Keys,
};

/// A hook with a Secret and a ConfigMap of its namespace, which may be missing.
fn hook(address: &str, secret: Option<&str>, trust: Option<&str>) -> Call {
    let keys = |name: &str| Keys { namespace: "demo".into(), name: name.into(), prefix: String::new() };
    let trust = trust.map(|name| ("demo".to_owned(), name.to_owned()));
    Call { secret: secret.map(keys), trust, ..call(&format!("{address}/gate")) }
}

fn with(objects: Objects) -> Sender {
    let logins = Some(Logins::new(api(objects)));
    Sender { logins, ..sender(Arc::new(Web::default()), &["localhost"]) }
}

fn objects(of: impl IntoIterator<Item = (&'static str, Value)>) -> Objects {
    Arc::new(Mutex::new(of.into_iter().map(|(path, object)| (path.to_owned(), object)).collect()))
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": data})
}

#[tokio::test]
async fn whom_to_trust_and_what_to_say_is_in_objects_of_the_namespace() {
    let (tls, ca) = certificate(2999);
    let (_, other) = certificate(2999);
    let (expired, of_expired) = certificate(2001);
    let good = Server::start(|| http_answer(r#"{"message":"fine"}"#), Some(tls)).await;
    let old = Server::start(|| http_answer(""), Some(expired)).await;
    let (good, old) = (good.address, old.address);
    let nowhere = "https://elsewhere.example";
    let login = |more: &[(&str, &str)]| Some(secret(&[&[("ca.crt", ca.as_str())], more].concat()));
    let ca_only = |ca: &str| Some(secret(&[("ca.crt", ca)]));
    #[allow(clippy::type_complexity)] // A table.
    let table: Vec<(&str, &str, Option<Value>, Option<Value>, Result<u16, &str>)> = vec![
        ("an authority of its own", &good, ca_only(&ca), None, Ok(200)),
        ("which is no secret", &good, None, Some(map(&json!({"ca.crt": ca}))), Ok(200)),
        ("another authority", &good, ca_only(&other), None, Err("TLS: invalid peer certificate")),
        ("of the map", &good, None, Some(map(&json!({"ca.crt": other}))), Err("TLS: invalid peer certificate")),
        ("no certificate", &good, ca_only("none"), None, Err("ca.crt: there is no certificate in it")),
        ("an empty map", &good, None, Some(map(&json!({}))), Err("ConfigMap demo/ca has no ca.crt")),
        ("expired", &old, ca_only(&of_expired), None, Err("expired")),
        ("a login for there", &good, login(&[("token", "t"), ("address", &good)]), None, Ok(200)),
        (
            "a login for elsewhere",
            &good,
            login(&[("token", "t"), ("address", nowhere)]),
            None,
            Err("Secret login is for https://elsewhere.example and is not sent elsewhere"),
        ),
        (
            "a login for anywhere",
            &good,
            login(&[("header.X-Key", "k")]),
            None,
            Err("Secret login does not say where it may be sent; add the key address"),
        ),
        ("a signature for anybody", &good, login(&[("signing-key", "k")]), None, Err("add the key address")),
        (
            "no base64",
            &good,
            login(&[("signing-key", "whsec_?"), ("address", &good)]),
            None,
            Err("signing-key: what follows whsec_ is no base64"),
        ),
        ("nothing", &good, Some(secret(&[])), None, Err("Secret demo/login: it has none of ca.crt")),
        ("no Secret", &good, Some(Value::Null), None, Err("Secret demo/login is missing; create it, or name another")),
        ("no map", &good, None, Some(Value::Null), Err("ConfigMap demo/ca is missing; create it, or name another")),
    ];
    for (name, address, login, trust, wanted) in table {
        let hook = hook(address, login.as_ref().map(|_| "login"), trust.as_ref().map(|_| "ca"));
        let there = [("secrets/login", login), ("configmaps/ca", trust)];
        let there = there.into_iter().filter_map(|(path, object)| Some((path, object.filter(|o| !o.is_null())?)));
        let outcome = with(objects(there)).answer(&hook, Timestamp::UNIX_EPOCH).await.outcome;
        match (&outcome, wanted) {
            (Outcome::Answered { status, .. }, Ok(wanted)) => assert_eq!(*status, wanted, "{name}"),
            (Outcome::Mistake(why), Err(says)) => assert!(why.contains(says), "{name}: {why}"),
            _ => panic!("{name}: {outcome:?}"),
        }
    }
    let forbidden = hook(&good, Some("forbidden"), None);
    let outcome = with(Objects::default()).answer(&forbidden, Timestamp::UNIX_EPOCH).await.outcome;
    let says = "Secret demo/forbidden may not be read: grant the controller the verb get";
    assert!(matches!(&outcome, Outcome::Mistake(why) if why.contains(says)), "{outcome:?}");
}

#[tokio::test]
async fn headers_and_a_signature_that_the_other_side_can_check() {
    let (tls, ca) = certificate(2999);
    let server = Server::start(|| http_answer(""), Some(tls)).await;
    let keys = [
        ("ca.crt", ca.as_str()),
        ("address", &server.address),
        ("username", "tidegate"),
        ("password", "p"),
        ("header.X-Team", "shop"),
        ("signing-key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    let sender = with(objects([("secrets/login", secret(&keys))]));
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    sender.answer(&hook(&server.address, Some("login"), None), at).await;
    let got = server.received().remove(0);
    assert_eq!((&*got.headers["x-team"], &*got.headers["authorization"]), ("shop", "Basic dGlkZWdhdGU6cA=="));
    // As the other side computes it, of what it has received.
    let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let said = format!("{}.{}.{}", got.headers["webhook-id"], got.headers["webhook-timestamp"], got.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), said.as_bytes());
    assert_eq!(got.headers["webhook-signature"], format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref())));
}

#[tokio::test]
async fn a_login_that_is_not_taken_is_read_anew() {
    let mut statuses = [401, 200].into_iter();
    let server = Server::start(move || status_answer(statuses.next().unwrap(), "", ""), None).await;
    let login = |token: &str| secret(&[("token", token), ("address", &server.address)]);
    let objects = objects([("secrets/login", login("old"))]);
    let sender = with(objects.clone());
    let hook = hook(&server.address, Some("login"), None);
    for (wanted, token) in [(401, "old"), (200, "new")] {
        let outcome = sender.answer(&hook, Timestamp::UNIX_EPOCH).await.outcome;
        assert!(matches!(outcome, Outcome::Answered { status, .. } if status == wanted), "{outcome:?}");
        assert_eq!(server.received().last().unwrap().headers["authorization"], format!("Bearer {token}"));
        objects.lock().unwrap().insert("secrets/login".into(), login("new"));
    }
}
