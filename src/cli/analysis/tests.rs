use super::*;

const ROLLOUT: &str = "rollout:
  apiVersion: rollouts.kruise.io/v1beta1
  kind: Rollout
  metadata: {name: web}
  spec:
    workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
    strategy:
      analysis:
        metrics:
        - {name: success, template: {name: istio/request-success-rate}, min: 0.99, interval: 30s, count: 3}
      canary: {steps: [{replicas: 1}, {replicas: 100%}]}
";

fn judged(rest: &str, others: &[(&str, &str)]) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in others {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let file = folder.path().join("recording.yaml");
    fs::write(&file, format!("{ROLLOUT}{rest}")).unwrap();
    test(&file)
}

#[test]
fn verdicts_on_lists() {
    for (series, is_good, says) in [
        ("[1, 0.995, 0.99]", true, "Passed: metric success passed: 3 measurements"),
        ("[1, 0.5]", false, "Failed: metric success: value 0.5 is below min 0.99 (1 of 2"),
        ("[null, NaN, 1]", true, "Running: metric success: 1 of 3 measured"),
        ("[[1, 2], [1, 2], [1, 2], [1, 2]]", false, "Inconclusive: metric success: the answer has 2 series"),
    ] {
        let report = judged(&format!("series: {{success: {series}}}\n"), &[]).unwrap();
        assert_eq!(report.is_good, is_good, "{series}");
        assert!(report.text.contains(says), "{series}: {}", report.text);
    }
    let report = judged("series: {success: [0]}\nexpected: {success: Failed}\n", &[]).unwrap();
    assert!(report.is_good);
    let report = judged("series: {success: [0]}\nexpected: {success: Passed}\n", &[]).unwrap();
    assert!(!report.is_good && report.text.contains("expected Passed, found Failed"));
}

#[test]
fn verdicts_on_an_answer_of_prometheus() {
    let range = |values: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[{values}]}}]}}}}"#
        )
    };
    let good = range(r#"[1000,"1"],[1030,"1"],[1060,"0.992"],[1090.5,"1"]"#);
    let report = judged("series: {success: good.json}\n", &[("good.json", &good)]).unwrap();
    assert!(report.text.contains("success +   30 s  Passed"), "{}", report.text);
    assert!(report.text.contains("Passed: metric success passed"), "{}", report.text);
    let bad = range(r#"[1000,"1"],[1030,"0.2"]"#);
    let report = judged("series: {success: bad.json}\n", &[("bad.json", &bad)]).unwrap();
    assert!(!report.is_good && report.text.contains("value 0.2 is below min 0.99"), "{}", report.text);
}

#[test]
fn verdicts_on_what_both_versions_counted() {
    let rollout = "rollout:
  apiVersion: rollouts.kruise.io/v1beta1
  kind: Rollout
  metadata: {name: web}
  spec:
    workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
    strategy:
      analysis:
        metrics:
        - name: errors
          provider: {prometheus: {address: 'http://prometheus:9090'}}
          compare: {canary: {failures: a, requests: b}, stable: {failures: c, requests: d}}
      canary: {steps: [{replicas: 1}, {replicas: 100%}]}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.yaml");
    for (canary, is_good, says) in [
        ("{failures: 30, requests: 100}", false, "Failed: metric errors: errors 30.0 % of 100 against 1.0 % of 900"),
        ("{failures: 1, requests: 100}", true, "Running: metric errors: errors 1.0 % of 100"),
    ] {
        let look = format!("{{canary: {canary}, stable: {{failures: 9, requests: 900}}}}");
        fs::write(&file, format!("{rollout}series: {{errors: [null, {look}]}}\n")).unwrap();
        let report = test(&file).unwrap();
        assert!(report.text.contains("+   60 s  NoData"), "{}", report.text);
        assert_eq!(report.is_good, is_good, "{}", report.text);
        assert!(report.text.contains(says), "{}", report.text);
    }
    fs::write(&file, format!("{rollout}series: {{errors: [1]}}\n")).unwrap();
    assert!(format!("{:#}", test(&file).err().unwrap()).contains("series.errors"));
}

#[test]
fn values_of_few_samples_do_not_count() {
    let rollout = ROLLOUT.replace("min: 0.99", "min: 0.99, minSamples: 20");
    assert_ne!(rollout, ROLLOUT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.yaml");
    let rest = "series: {success: [0.5, 1, 1, 0.2]}\n";
    fs::write(&file, format!("{rollout}{rest}samples: {{success: [2, 100, null, 19]}}\n")).unwrap();
    let report = test(&file).unwrap();
    for says in [
        "NoData       2 samples are fewer than minSamples 20",
        "NoData       samplesQuery: the answer is empty",
        "Running: ",
    ] {
        assert!(report.text.contains(says), "{}", report.text);
    }
    assert!(report.is_good, "{}", report.text);
    fs::write(&file, format!("{rollout}{rest}")).unwrap();
    let error = format!("{:#}", test(&file).err().unwrap());
    assert!(error.contains("samples.success") && error.contains("minSamples"), "{error}");
}

#[test]
fn verdicts_on_a_text_in_the_exposition_format() {
    let text = "# TYPE shop:success gauge\nshop:success 1 1000000\nshop:success 1 1030000\nshop:success 0.2 1060000\n";
    let report = judged("series: {success: success.prom}\n", &[("success.prom", text)]).unwrap();
    assert!(report.text.contains("success +   60 s  Failed       value 0.2 is below min 0.99"), "{}", report.text);
    let raw = "istio_requests_total{pod=\"a\"} 990 1000000\n";
    let error = format!("{:#}", judged("series: {success: raw.prom}\n", &[("raw.prom", raw)]).err().unwrap());
    assert!(error.contains("series.success: raw.prom: line 1") && error.contains("is a raw counter"), "{error}");
}

#[test]
fn a_word_is_judged_by_a_condition() {
    let rollout = ROLLOUT.replace("min: 0.99", "condition: value == 'good'");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.yaml");
    fs::write(&file, format!("{rollout}series: {{success: [good, bad]}}\n")).unwrap();
    let report = test(&file).unwrap();
    assert!(report.text.contains("Failed       value \"bad\": value == 'good' does not hold"), "{}", report.text);
}

#[test]
fn a_built_in_template_may_be_taken_over() {
    let text = manifest("istio/request-success-rate").unwrap();
    let object: MetricTemplate = yaml::from_str(&text).unwrap();
    assert_eq!(object.metadata.name.as_deref(), Some("istio-request-success-rate"));
    let built_in = templates::built_in().iter().find(|(name, _)| name == "istio/request-success-rate").unwrap();
    assert_eq!(object.spec.query, built_in.1.query.trim_end());
    assert_eq!(object.spec.samples_query, built_in.1.samples_query);
    assert!(format!("{:#}", manifest("istio/nothing").unwrap_err()).contains("analysis templates"));
}

#[test]
fn what_cannot_be_read_is_named() {
    for (rest, says) in [
        ("series: {latency: [1]}\n", "series.latency: the analysis has no such metric; it has success"),
        ("series: {success: missing.json}\n", "missing.json"),
        ("series: {success: {}}\n", "series.success"),
        ("series: {success: [true]}\n", "series.success"),
        ("step: 3\nseries: {}\n", "step 3 has no analysis"),
        ("series: {}\nexpected: {success: Passed}\n", "expected.success: nothing is recorded"),
        ("series: {}\nsamples: {success: [1]}\n", "samples.success: nothing is recorded"),
    ] {
        let error = format!("{:#}", judged(rest, &[]).err().unwrap());
        assert!(error.contains(says), "{error}");
    }
}
