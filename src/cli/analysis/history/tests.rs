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
async fn too_few_samples_are_no_data() {
    let counts =
        ROLLOUT.replace("        min: 0.99", "        min: 0.99\n        minSamples: 20\n        samplesQuery: all");
    let (report, asked) = tried(&counts, 1).await;
    let report = report.unwrap();
    assert!(
        report.text.contains("is the query right, and are there 20 samples within an interval?"),
        "{}",
        report.text
    );
    assert!(report.text.contains("3 values of 20 samples or more"), "{}", report.text);
    assert_eq!(asked.iter().filter(|fields| fields["query"] == "all").count(), 1, "{asked:?}");
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

const COMPARES: &str = "
apiVersion: rollouts.kruise.io/v1beta1
kind: Rollout
metadata: {name: web, namespace: shop}
spec:
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  strategy:
    analysis:
      metrics:
      - name: errors
        provider: {prometheus: {address: 'http://prometheus:9090'}}
        interval: 10m
        compare:
          canary: {failures: 'failures{pod=~\"{{ canary-pods }}\"}', requests: 'requests{pod=~\"{{ canary-pods }}\"}'}
          stable: {failures: 'failures{pod!~\"{{ canary-pods }}\"}', requests: 'requests{pod!~\"{{ canary-pods }}\"}'}
      - name: latency
        template: {name: istio/compare-latency}
        provider: {prometheus: {address: 'http://prometheus:9090'}}
        interval: 10m
        compare: {}
      - name: by-service
        provider: {prometheus: {address: 'http://prometheus:9090'}}
        compare:
          canary: {failures: 'f{of={{ canary-service }}}', requests: 'r{of={{ canary-service }}}'}
          stable: {failures: 'f{of={{ stable-service }}}', requests: 'r{of={{ stable-service }}}'}
    canary:
      steps: [{replicas: 1}, {replicas: 100%}]
      trafficRoutings: [{service: web, gateway: {httpRouteName: web}}]
";

/// Both halves are good; on the second day a third of what the first half answers fails from six to seven, and takes long.
struct Pods;

impl Http for Pods {
    fn send<'a>(
        &'a self,
        request: Request<Bytes>,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Failure>> {
        let fields: BTreeMap<String, String> = form_urlencoded::parse(request.body()).into_owned().collect();
        let query = &fields["query"];
        let is_first = query.contains("=~\"(web-.*[ace") && query.contains("pod=~");
        let number = |name: &str| fields[name].parse::<i64>().unwrap();
        let (mut at, end, step) = (number("start"), number("end"), number("step"));
        let mut series = BTreeMap::<&str, Vec<serde_json::Value>>::new();
        while at <= end {
            let is_bad = is_first && (BEGIN + DAY + 6 * 3600..BEGIN + DAY + 7 * 3600).contains(&at);
            let points: &[(&str, &str)] = match (query.split_once(['{', '(']).unwrap().0, is_bad) {
                ("failures", true) => &[("", "100")],
                ("failures", false) => &[("", "1")],
                ("requests", _) => &[("", "300")],
                (_, true) => &[("100", "100"), ("500", "150"), ("+Inf", "300")],
                (_, false) => &[("100", "295"), ("500", "299"), ("+Inf", "300")],
            };
            for (le, value) in points {
                series.entry(le).or_default().push(serde_json::json!([at, value]));
            }
            at += step;
        }
        let result: Vec<serde_json::Value> =
            series.iter().map(|(le, values)| serde_json::json!({"metric": {"le": le}, "values": values})).collect();
        let body =
            serde_json::json!({"status": "success", "data": {"resultType": "matrix", "result": result}}).to_string();
        assert!(body.len() < crate::gather::measures::http::LARGEST, "{} bytes", body.len());
        Box::pin(async { Ok(Response::new(body.into())) })
    }
}

#[tokio::test]
async fn what_compares_is_tried_on_the_halves_of_the_version_that_ran() {
    let rollout: Rollout = yaml::from_str(COMPARES).unwrap();
    let servers = Servers { http: Arc::new(Pods), logins: None, allowed: Vec::new() };
    let trial = Trial { rollout: &rollout, kept: &BTreeMap::new(), servers: &servers, step: None, server: None };
    let report = trial.run((BEGIN, BEGIN + 2 * DAY - 1)).await.unwrap();
    assert_eq!(
        report.text,
        "\
errors
  2024-10-04  good: 48 releases passed
  2024-10-05  BAD: 6 of 52 releases failed; first at 06:00:00: errors 33.3 % of 300 against 0.33 % of 300; worse by at least 20.0 points at 99 %
  a release would have failed or waited for a person on 1 of 2 days (every 10m, half of the pods against the other half)
latency
  2024-10-04  good: 48 releases passed
  2024-10-05  BAD: 3 of 49 releases failed; first at 06:10:00: latency above 100: 66.7 % of 300 against 1.7 % of 300; worse by at least 50.0 points at 99 %
  a release would have failed or waited for a person on 1 of 2 days (every 10m, half of the pods against the other half)
by-service
  not tried: no other version ran, and its queries tell no pods apart (canary-pods, stable-pods)
"
    );
    assert!(!report.is_good);
}
