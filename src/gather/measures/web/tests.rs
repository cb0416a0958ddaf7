use super::{
    super::{
        Provider as _,
        stand_ins::{answer_to, ask_of, servers},
    },
    *,
};
use crate::{
    api::analysis::{MetricProvider, Web as Spec},
    gather::stand_ins::{Server, http_answer},
};

fn ask(address: &str, body: Option<&str>, query: &str) -> Ask {
    let (path, body) = (Some("/check?of=shop".to_owned()), body.map(str::to_owned));
    let web = Spec { address: address.into(), path, body, secret_ref: None };
    ask_of(MetricProvider { web: Some(web), ..MetricProvider::default() }, query)
}

#[tokio::test]
async fn asks_and_reads() {
    let (found, asked) = answer_to(&ask("http://q/base/", None, "$.score"), 200, r#"{"score": 0.75}"#).await;
    assert_eq!((found, asked.method().as_str()), (Answer::Value(0.75), "GET"));
    assert_eq!(asked.uri(), "http://q/base/check?of=shop");
    let (found, asked) = answer_to(&ask("http://q", Some("[1]"), "$.verdict"), 200, r#"{"verdict": "good"}"#).await;
    assert_eq!((found, asked.method().as_str()), (Answer::Text("good".into()), "POST"));
    assert_eq!(
        (asked.body(), &asked.headers()["content-type"]),
        (&Bytes::from("[1]"), &"application/json".parse().unwrap())
    );
    assert_eq!(answer_to(&ask("http://q", None, "$.other"), 200, "{}").await.0, Answer::Empty);
}

#[tokio::test]
async fn trouble_is_named() {
    for (status, body, query, says) in [
        (200, "<html>", "$", "http://q: the answer is no JSON"),
        (200, "{}", "$", "finds an object"),
        (200, "{}", "$..x", "is no JSONPath"),
        (404, "secret", "$", "http://q: 404"),
        (307, "", "$", "redirects to http://elsewhere/"),
    ] {
        match answer_to(&ask("http://q", None, query), status, body).await.0 {
            Answer::Mistake(why) => assert!(why.contains(says) && !why.contains("secret"), "{why}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    assert!(matches!(answer_to(&ask("http://q", None, "$"), 503, "").await.0, Answer::Unavailable(_)));
    let deep = "[".repeat(100_000);
    assert!(matches!(answer_to(&ask("http://q", None, "$"), 200, &deep).await.0, Answer::Mistake(_)));
}

#[tokio::test]
async fn a_real_exchange() {
    let server = Server::start(|| http_answer(r#"{"data": [{"ok": true}]}"#), None).await;
    assert_eq!(servers().ask(&ask(&server.address, None, "$.data[0].ok")).await, Answer::Value(1.0));
}
