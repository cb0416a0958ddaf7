use std::sync::Mutex;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Bytes;

use super::*;
use crate::{gather::measures::http::Http, yaml};

const ROLLOUT: &str = "
apiVersion: rollouts.kruise.io/v1beta1
kind: Rollout
metadata: {name: web, namespace: shop}
spec:
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web.x}
  strategy:
    analysis:
      metrics:
      - name: success
        provider: {prometheus: {address: 'http://prometheus:9090', secretRef: {name: login}}}
        query: ok{pod=~'{{ canary-pods }}', of={{ canary-service }}}
        min: 0.99
        interval: 10m
        count: 3
      - {name: restarts, template: {name: pods/restarts}, max: 0.0}
    canary:
      steps: [{replicas: 1}, {replicas: 100%}]
      trafficRoutings: [{service: web, gateway: {httpRouteName: web}}]
";

/// A Prometheus: bad from 06:00 to 06:20 of the second day, silent on the third.
#[derive(Default)]
struct Past(Mutex<Vec<BTreeMap<String, String>>>);

const BEGIN: i64 = 20_000 * DAY;

impl Http for Past {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        assert_eq!(request.uri(), "http://localhost:9090/api/v1/query_range");
        let fields: BTreeMap<String, String> = form_urlencoded::parse(request.body()).into_owned().collect();
        let number = |name: &str| fields[name].parse::<i64>().unwrap();
        let (mut at, end, step) = (number("start"), number("end"), number("step"));
        let mut points = Vec::new();
        while at <= end {
            let of_day = (at - BEGIN) % DAY;
            let value =
                if (at - BEGIN) / DAY == 1 && (6 * 3600..6 * 3600 + 1200).contains(&of_day) { "0.9" } else { "1" };
            if (at - BEGIN) / DAY != 2 {
                points.push(serde_json::json!([at, value]));
            }
            at += step;
        }
        assert!(points.len() < 11_000, "more than a Prometheus gives");
        self.0.lock().unwrap().push(fields);
        let data = serde_json::json!({"resultType": "matrix", "result": [{"metric": {}, "values": points}]});
        let body = serde_json::json!({"status": "success", "data": data}).to_string();
        Box::pin(async { Ok(Response::new(body.into())) })
    }
}

async fn tried(text: &str, days: i64) -> (anyhow::Result<crate::cli::analysis::Report>, Vec<BTreeMap<String, String>>) {
    let rollout: Rollout = yaml::from_str(text).unwrap();
    let past = Arc::new(Past::default());
    let servers = Servers { http: past.clone(), logins: None, allowed: Vec::new() };
    let server = Some("http://localhost:9090");
    let trial = Trial { rollout: &rollout, kept: &BTreeMap::new(), servers: &servers, step: None, server };
    let report = trial.run((BEGIN, BEGIN + days * DAY - 1)).await;
    let asked = past.0.lock().unwrap().clone();
    (report, asked)
}

#[tokio::test]
async fn tells_on_which_days_a_release_would_have_failed() {
    let (report, asked) = tried(ROLLOUT, 3).await;
    let report = report.unwrap();
    assert_eq!(
        report.text,
        "success
  2024-10-04  good: 48 releases passed
  2024-10-05  BAD: 2 of 49 releases failed; first at 06:00:00: value 0.9 is below min 0.99
  2024-10-06  no data
  a release would have failed or waited for a person on 1 of 3 days (every 10m, 3 values, 0 forgiven)
restarts
  not tried: its provider keeps no history
"
    );
    assert!(!report.is_good);
    assert_eq!(asked[0]["query"], r#"ok{pod=~'(web\\.x-.+)', of="web"}"#);
    // No moment is asked for twice, and none is left out.
    let number = |fields: &BTreeMap<String, String>, name: &str| fields[name].parse::<i64>().unwrap();
    for pair in asked.windows(2) {
        let last = number(&pair[0], "start") + (number(&pair[0], "end") - number(&pair[0], "start")) / 600 * 600;
        assert_eq!(number(&pair[1], "start"), last + 600);
    }
    let (good, _) = tried(ROLLOUT, 1).await;
    assert!(good.unwrap().is_good);
}

#[tokio::test]
async fn a_short_interval_is_asked_for_in_parts() {
    let (report, asked) = tried(&ROLLOUT.replace("interval: 10m", "interval: 5s"), 1).await;
    assert!(report.unwrap().text.contains("good: 5760 releases passed"));
    assert_eq!(asked.len(), 4);
}

#[test]
fn how_far_to_go_back() {
    assert_eq!(since("14d"), Ok(Duration::from_secs(14 * 86_400)));
    assert_eq!(since("36h"), Ok(Duration::from_secs(36 * 3600)));
    for text in ["", "0d", "soon", "99999d", "99999999999999999999d"] {
        assert!(since(text).is_err(), "{text}");
    }
}
