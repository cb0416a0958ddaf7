use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{count, spec};
use crate::{api::proof::ProofPhase, api::v1beta1::Step, traffic::Strategy};

fn read(proof: Value) -> Result<spec::Proof, String> {
    spec::read("proof", &serde_json::from_value(proof).unwrap()).map_err(|error| error.to_string())
}

fn strategy(step: Value) -> Strategy {
    let step: Step = serde_json::from_value(step).unwrap();
    Strategy::from_step(&step).unwrap()
}

#[test]
fn requests_reach_the_new_version_where_a_step_says_which_do() {
    let url = "http://gateway.infra/shop?a=1";
    let header = json!({"name": "X-Canary", "value": "1"});
    let by_header = json!({"matches": [{"headers": [header]}]});
    for (step, url_of_requests, headers) in [
        (json!({"weight": 20}), url, vec![("host", "shop.example")]),
        (by_header, url, vec![("host", "shop.example"), ("x-canary", "1")]),
        (
            json!({"matches": [{"headers": [{"name": "Host", "value": "other.example"}]}]}),
            url,
            vec![("host", "other.example")],
        ),
        (
            json!({"matches": [{"queryParams": [{"name": "v", "value": "a b"}]}]}),
            "http://gateway.infra/shop?a=1&v=a+b",
            vec![("host", "shop.example")],
        ),
        (
            json!({"matches": [{"path": {"type": "Exact", "value": "/cart"}}]}),
            "http://gateway.infra/cart?a=1",
            vec![("host", "shop.example")],
        ),
        (json!({"matches": [{"path": {"value": "/shop/"}}]}), url, vec![("host", "shop.example")]),
        (
            json!({"matches": [{"path": {"value": "/sho"}}]}),
            "http://gateway.infra/sho?a=1",
            vec![("host", "shop.example")],
        ),
        (
            json!({"matches": [
                {"headers": [{"type": "RegularExpression", "name": "x", "value": "1.*"}]},
                {"headers": [header]}]}),
            url,
            vec![("host", "shop.example"), ("x-canary", "1")],
        ),
        (
            json!({"matches": [{"path": {"type": "RegularExpression", "value": "/a.*"}}]}),
            url,
            vec![("host", "shop.example")],
        ),
    ] {
        let proof = read(json!({"url": url, "headers": [{"name": "Host", "value": "shop.example"}]})).unwrap();
        let requests = proof.requests(&strategy(step.clone()));
        let found: Vec<(&str, &str)> = requests.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!((requests.url.as_str(), found), (url_of_requests, headers), "{step}");
    }
}

#[test]
fn so_many_requests_that_one_reaches_the_new_version() {
    for (step, requests) in [
        (json!({"weight": 0}), 5),
        (json!({"weight": 1}), 100),
        (json!({"weight": 5}), 90),
        (json!({"weight": 20}), 21),
        (json!({"weight": 50}), 7),
        (json!({"weight": 100}), 5),
        (json!({"matches": [{"path": {"value": "/"}}], "weight": 1}), 5),
        (json!({}), 5),
    ] {
        let count = |proof: Value| read(proof).unwrap().requests(&strategy(step.clone())).count;
        assert_eq!(count(json!({"url": "http://g/"})), requests, "{step}");
        assert_eq!(count(json!({"url": "http://g/", "count": 3})), 3, "{step}");
    }
}

#[test]
fn every_answer_has_to_be_good() {
    let judge = |expected: Value, statuses: &[(u16, u32)]| {
        let proof = read(json!({"url": "http://g/", "expectStatus": expected})).unwrap();
        proof.judge(&statuses.iter().copied().collect::<BTreeMap<_, _>>()) == ProofPhase::Proven
    };
    for (expected, statuses, is_good) in [
        (json!([]), &[(200, 4), (302, 1)][..], true),
        (json!([]), &[(200, 4), (404, 1)], false),
        (json!([]), &[(200, 4), (500, 1)], false),
        (json!([]), &[], false),
        (json!([401]), &[(401, 5)], true),
        (json!([401, 200]), &[(401, 3), (200, 2)], true),
        (json!([401]), &[(401, 4), (200, 1)], false),
    ] {
        assert_eq!(judge(expected.clone(), statuses), is_good, "{expected} {statuses:?}");
    }
    assert_eq!(count(&BTreeMap::from([(200, 2), (503, 3)])), "503 for 3, 200 for 2");
}

#[test]
fn a_wrong_proof_says_what_is_wrong() {
    for (proof, problem) in [
        (json!({"url": "gateway/"}), "proof.url: \"gateway/\" is none such as"),
        (json!({"url": "ftp://gateway/"}), "is none such as"),
        (json!({"url": "http://me:secret@gateway/"}), "without a login in it"),
        (
            json!({"url": "http://g/", "headers": [{"name": "a b", "value": "1"}]}),
            "proof.headers[0]: \"a b\" has characters that no header can have",
        ),
        (json!({"url": "http://g/", "headers": [{"name": "a", "value": "1\r\nb: 2"}]}), "that no header can have"),
        (
            json!({"url": "http://g/", "headers": [{"name": "Transfer-Encoding", "value": "chunked"}]}),
            "proof.headers[0]: transfer-encoding is a header of the connection itself",
        ),
        (
            json!({"url": "http://g/", "headers": [{"name": "a", "value": "1"}, {"name": "A", "value": "2"}]}),
            "proof.headers[1]: a is there twice",
        ),
        (json!({"url": "http://g/", "expectStatus": [100]}), "proof.expectStatus: 100 is none of 200 to 599"),
        (json!({"url": "http://g/", "count": 0}), "proof.count: 0 is not from 1 to 100"),
        (json!({"url": "http://g/", "timeoutSeconds": 31}), "proof.timeoutSeconds: 31 is not from 1 to 30"),
    ] {
        let found = read(proof).unwrap_err();
        assert!(found.contains(problem), "{found}");
    }
}
