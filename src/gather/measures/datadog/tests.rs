use super::{
    super::{
        Provider as _,
        login::Logins,
        servers::Servers,
        stand_ins::{Canned, ask_of},
    },
    *,
};
use crate::{
    api::analysis::{MetricProvider, SecretRef},
    gather::stand_ins::{Server, api, http_answer, secret},
};
use std::sync::{Arc, Mutex};

fn ask(address: Option<&str>, api: DatadogApi) -> Ask {
    let secret_ref = SecretRef { name: "login".into() };
    let address = address.map(str::to_owned);
    let datadog = Spec { address, api: Some(api), aggregator: None, secret_ref };
    ask_of(MetricProvider { datadog: Some(datadog), ..MetricProvider::default() }, "avg:errors{service:shop-canary}")
}

fn logins(keys: &str, address: &str) -> Option<Logins> {
    let mut data = vec![("address", address), ("header.DD-API-KEY", "abc"), ("header.DD-APPLICATION-KEY", "def")];
    data.retain(|(key, _)| keys.contains(key));
    Some(Logins::new(api(Arc::new(Mutex::new([("secrets/login".to_owned(), secret(&data))].into())))))
}

const ALL: &str = "address header.DD-API-KEY header.DD-APPLICATION-KEY";

async fn answer(api: DatadogApi, status: u16, body: &str) -> (Answer, Request<Bytes>) {
    let http = Arc::new(Canned { status, body: body.to_owned(), asked: Mutex::default() });
    let logins = logins(ALL, "https://api.datadoghq.com");
    let servers = Servers { http: http.clone(), logins, allowed: Vec::new() };
    let answer = servers.ask(&ask(None, api)).await;
    let asked = http.asked.lock().unwrap().remove(0);
    (answer, asked)
}

/// As recorded of the API, shortened.
const SCALAR: &str = r#"{"data": {"id": "0", "type": "scalar_response", "attributes": {"columns": [
    {"name": "a", "type": "number", "values": [0.0125], "meta": {"unit": null}}]}}}"#;
const SERIES: &str = r#"{"status": "ok", "res_type": "time_series", "resp_version": 1, "query": "avg:errors{*}", "from_date": 1,
    "to_date": 2, "series": [{"unit": null, "aggr": "avg", "metric": "errors", "length": 3, "interval": 15, "expression": "e",
    "pointlist": [[1575317847000.0, 0.5], [1575317862000.0, 0.25], [1575317877000.0, null]]}], "values": [], "times": [],
    "message": "", "group_by": []}"#;

#[tokio::test]
async fn asks_as_the_api_wants_it() {
    let (found, asked) = answer(DatadogApi::V2, 200, SCALAR).await;
    assert_eq!(found, Answer::Value(0.0125));
    assert_eq!(asked.uri(), "https://api.datadoghq.com/api/v2/query/scalar");
    assert_eq!(asked.headers()["dd-api-key"], "abc");
    assert_eq!(asked.headers()["dd-application-key"], "def");
    let body: serde_json::Value = serde_json::from_slice(asked.body()).unwrap();
    let attributes = &body["data"]["attributes"];
    assert_eq!(attributes["queries"][0]["query"], "avg:errors{service:shop-canary}");
    assert_eq!(attributes["queries"][0]["aggregator"], "avg");
    assert_eq!(attributes["to"], 1_000_000_000_000_i64, "milliseconds");
    assert_eq!(attributes["from"], 999_999_940_000_i64, "a minute at least");
    let (found, asked) = answer(DatadogApi::V1, 200, SERIES).await;
    assert_eq!(found, Answer::Value(0.25), "the last one that is there");
    let query = "from=999999940&to=1000000000&query=avg%3Aerrors%7Bservice%3Ashop-canary%7D";
    assert_eq!(asked.uri().to_string(), format!("https://api.datadoghq.com/api/v1/query?{query}"));
}

#[tokio::test]
async fn answers() {
    let columns = |columns: &str| format!(r#"{{"data": {{"attributes": {{"columns": [{columns}]}}}}}}"#);
    let group = r#"{"name": "host", "type": "group", "values": [["a"], ["b"]]}"#;
    let two = columns(&format!(r#"{group}, {{"name": "a", "type": "number", "values": [1, 2]}}"#));
    let none = columns(r#"{"name": "a", "type": "number", "values": [null]}"#);
    for (api, body, wanted) in [
        (DatadogApi::V2, two.as_str(), Answer::Several { count: 2, values: vec![1.0, 2.0] }),
        (DatadogApi::V2, &none, Answer::Empty),
        (DatadogApi::V2, &columns(""), Answer::Empty),
        (DatadogApi::V1, r#"{"status": "ok", "series": []}"#, Answer::Empty),
        (DatadogApi::V1, r#"{"status": "ok", "series": [{"pointlist": [[1, null]]}]}"#, Answer::Empty),
    ] {
        assert_eq!(answer(api, 200, body).await.0, wanted, "{body}");
    }
    for (api, status, body, says) in [
        (
            DatadogApi::V1,
            200,
            r#"{"status": "error", "error": "Error parsing query: \n unable to parse"}"#,
            "Error parsing query",
        ),
        (
            DatadogApi::V1,
            400,
            r#"{"errors": ["The value provided for parameter 'query' is invalid"]}"#,
            "400, The value",
        ),
        (DatadogApi::V2, 400, r#"{"errors": [{"title": "Bad", "detail": "unknown metric"}]}"#, "400, unknown metric"),
        (DatadogApi::V2, 403, r#"{"errors": ["Forbidden"]}"#, "403, Forbidden: the server asks for another login"),
        (DatadogApi::V2, 200, "<html>", "none of Datadog's query API"),
        (DatadogApi::V2, 200, "{}", "none of Datadog's query API"),
        (DatadogApi::V2, 302, "", "not followed"),
    ] {
        match answer(api, status, body).await.0 {
            Answer::Mistake(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    let (found, _) = answer(DatadogApi::V2, 429, r#"{"errors": ["Rate limit"]}"#).await;
    assert!(matches!(found, Answer::Unavailable(why) if why.contains("Rate limit")));
}

#[tokio::test]
async fn a_real_exchange_and_what_its_secret_lacks() {
    let server = Server::start(|| http_answer(SCALAR), None).await;
    let http = Arc::new(super::super::http::Web::default());
    for (keys, says) in [
        (ALL, None),
        ("address header.DD-API-KEY", Some("lacks the key header.DD-APPLICATION-KEY")),
        ("header.DD-API-KEY header.DD-APPLICATION-KEY", Some("add the key address")),
    ] {
        let servers = Servers { http: http.clone(), logins: logins(keys, &server.address), allowed: Vec::new() };
        match (servers.ask(&ask(Some(&server.address), DatadogApi::V2)).await, says) {
            (Answer::Value(value), None) => assert_eq!(value, 0.0125),
            (Answer::Mistake(why), Some(says)) => assert!(why.contains(says), "{why}"),
            (other, _) => panic!("{keys}: {other:?}"),
        }
    }
}
