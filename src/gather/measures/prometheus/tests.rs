use super::{
    super::stand_ins::{answer_to, ask, vector},
    *,
};

async fn answer(status: u16, body: &str) -> (Answer, Request<Bytes>) {
    answer_to(&ask("http://p:9090/prefix/"), status, body).await
}

#[tokio::test]
async fn asks_as_the_api_wants_it() {
    let (_, asked) = answer(200, &vector("")).await;
    assert_eq!(asked.uri(), "http://p:9090/prefix/api/v1/query");
    assert_eq!(asked.method(), "POST");
    assert_eq!(asked.headers()["x-scope-orgid"], "shop");
    assert_eq!(asked.body(), "query=sum%28rate%28x%5B1m%5D%29%29+%3E+0+%26+1");
}

#[tokio::test]
async fn answers() {
    let one = r#"{"metric":{"a":"b"},"value":[1.5,"0.25"]}"#;
    let scalar = |n: &str| format!(r#"{{"data":{{"resultType":"scalar","result":[1,"{n}"]}},"status":"success"}}"#);
    for (body, wanted) in [
        (vector(one), Answer::Value(0.25)),
        (scalar("3"), Answer::Value(3.0)),
        (scalar("+Inf"), Answer::Value(f64::INFINITY)),
        (scalar("-Inf"), Answer::Value(f64::NEG_INFINITY)),
        (scalar("1e-3"), Answer::Value(0.001)),
        (vector(""), Answer::Empty),
        (vector(&format!("{one},{one},{one}")), Answer::Several { count: 3, values: vec![0.25; 3] }),
    ] {
        assert_eq!(answer(200, &body).await.0, wanted, "{body}");
    }
    assert!(matches!(answer(200, &scalar("NaN")).await.0, Answer::Value(n) if n.is_nan()));
}

#[tokio::test]
async fn trouble_is_named_and_told_from_what_may_pass() {
    let bad = r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error: unexpected end of input"}"#;
    let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    let histogram = vector(r#"{"metric":{},"histogram":[1,{}]}"#);
    let mistakes = [
        (400, bad, "http://p:9090/prefix: 400, bad_data: 1:5: parse error: unexpected end of input"),
        (422, bad, "422, bad_data"),
        (401, "<html>hidden</html>", "401: the server asks for another login"),
        (404, "not found", "404"),
        (302, "", "redirects to http://elsewhere/, which is not followed"),
        (307, "", "not followed"),
        (200, "<html>", "none of Prometheus' HTTP API"),
        (200, "{}", "none of Prometheus' HTTP API"),
        (200, matrix, "is a matrix"),
        (200, &histogram, "is a histogram"),
        (200, r#"{"data":{"resultType":"vector","result":7}}"#, "cannot be read"),
        (200, r#"{"data":{"resultType":"scalar","result":[1,"one"]}}"#, "is no number"),
    ];
    for (status, body, says) in mistakes {
        match answer(status, body).await.0 {
            Answer::Mistake(why) => assert!(why.contains(says) && !why.contains("hidden"), "{why}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    for (status, says) in [(500, "500"), (503, "503"), (429, "429"), (408, "408")] {
        match answer(status, "").await.0 {
            Answer::Unavailable(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{status}: {other:?}"),
        }
    }
    let long = format!(r#"{{"status":"error","errorType":"bad_data","error":"{}"}}"#, "ü".repeat(5000));
    let Answer::Mistake(why) = answer(400, &long).await.0 else { panic!() };
    assert!(why.len() < 400, "{}", why.len());
}
