//! Alerts and dashboard of the chart ask for what the controller exports, in words that Prometheus understands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tidegate::telemetry::{Metrics, Standing};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tidegate/files").join(name)
}

fn alerts() -> Vec<Value> {
    let rules: Value = tidegate::yaml::from_str(&fs::read_to_string(file("alerts.yaml")).unwrap()).unwrap();
    rules["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap().clone()).collect()
}

fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    panels
        .iter()
        .flat_map(|p| p["targets"].as_array().unwrap().iter().map(|t| (text(&p["title"]), text(&t["expr"]))))
        .collect()
}

/// Names of series, with their labels where there is a sample.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new();
    let second = std::time::Duration::from_secs(1);
    metrics.wrote("Service", "ok");
    metrics.guarded("Service", "only our fields");
    metrics.script_called("networking.istio.io/VirtualService", Err("runtime"), second);
    metrics.script_called("networking.istio.io/VirtualService", Ok(1), second);
    metrics.traced("exported", 1);
    metrics.called("hook", "ok");
    metrics.rollout_phase("shop/web", Some("Progressing"));
    metrics.rollout_stalled("shop/web", Some("ScriptFailed"));
    metrics.rollout_warned(&("shop".to_owned(), "web".to_owned()), &["Degraded"]);
    let standing = Standing { phase: "Progressing".to_owned(), step: 1, state: "StepUpgrade".to_owned(), since: 1 };
    metrics.release(&("shop".to_owned(), "web".to_owned()), Some(&standing));
    metrics.webhook_called("validate", "error", second);
    metrics.certificate_ends("ca", 1);
    metrics.queried("ok", second);
    let key = ("shop".to_owned(), "web".to_owned());
    metrics.analysis(&key, std::iter::once(("step", "errors", Some(1.0), false)));
    let mut series = BTreeMap::<String, BTreeSet<String>>::new();
    for line in metrics.encode().lines().filter(|l| !l.starts_with('#')) {
        let head = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let labels =
            labels.trim_end_matches('}').split("\",").filter_map(|l| l.split_once('=')).map(|(k, _)| k.to_owned());
        series.entry(name.to_owned()).or_default().extend(labels);
    }
    series
}

/// Words of an expression that name a series, and all other words.
fn words(expr: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expr.split(|c| !is_word(c)).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

#[test]
fn what_is_asked_for_is_exported_with_its_labels() {
    let series = exported();
    let alerts = alerts();
    let expressions =
        alerts.iter().map(|a| (a["alert"].as_str().unwrap().to_owned(), a["expr"].as_str().unwrap().to_owned()));
    let mut asked = BTreeSet::new();
    for (title, expr) in expressions.chain(panels()) {
        let names: Vec<String> = words(&expr).into_iter().filter(|w| w.starts_with("tidegate_")).collect();
        assert!(!names.is_empty(), "{title} asks for nothing: {expr}");
        let mut labels = BTreeSet::new();
        for name in &names {
            labels.extend(
                series
                    .get(name)
                    .unwrap_or_else(|| panic!("{title}: {name} is not exported: {:?}", series.keys()))
                    .clone(),
            );
        }
        // What stands in `by (…)` and `{…}`.
        let grouped = expr.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
        let matched = expr.split('{').skip(1).filter_map(|rest| rest.split(['=', '!']).next());
        for label in grouped.flat_map(|list| list.split(',')).chain(matched).map(str::trim) {
            assert!(labels.contains(label), "{title}: {names:?} has no label {label:?}, but {labels:?}");
        }
        asked.extend(names);
    }
    // Each series of the controller's own is on the dashboard or in an alert, but for sums that are told by others.
    for name in series.keys().filter(|name| !["_sum", "_bucket", "_count"].iter().any(|end| name.ends_with(end))) {
        assert!(asked.contains(name) || name == "tidegate_analysis_failed", "nobody looks at {name}");
    }
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do() {
    let alerts = alerts();
    let names: BTreeSet<&str> = alerts.iter().map(|a| a["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), alerts.len(), "two of one name");
    for wanted in ["TidegateNoLeader", "TidegateRolloutStalled", "TidegateScriptFailing", "TidegateCertificateEnds"] {
        assert!(names.contains(wanted), "{wanted}");
    }
    for alert in &alerts {
        let text = |path: &str| alert.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert!(["warning", "critical"].contains(&text("/labels/severity").as_str()), "{alert}");
        assert!(text("/annotations/summary").len() > 20 && text("/annotations/description").len() > 40, "{alert}");
        // A label that the expression does not keep would be shown as nothing.
        let kept: Vec<String> =
            text("/expr").split("by (").skip(1).filter_map(|r| r.split(')').next()).map(str::to_owned).collect();
        for label in
            format!("{}{}", text("/annotations/summary"), text("/annotations/description")).split("$labels.").skip(1)
        {
            let label = label.split(' ').next().unwrap();
            assert!(kept.iter().any(|list| list.split(", ").any(|l| l == label)), "{label}: {alert}");
        }
    }
}

/// Prometheus' own word for it, on machines that have its tool: whether it understands the alerts, and whether each fires
/// when it should and only then. `PROMTOOL` names the tool where it is not on the path.
#[test]
fn promtool_takes_the_alerts() {
    let tool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    for (verb, path) in [("check", file("alerts.yaml")), ("test", fired())] {
        match Command::new(&tool).args([verb, "rules"]).arg(path).output() {
            Ok(output) => {
                let text =
                    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "{text}");
            }
            Err(_) => {
                eprintln!("promtool is not installed (package prometheus): the alerts were NOT checked by it");
                return;
            }
        }
    }
}

/// Where promtool is told what fires when.
fn fired() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alerts/fired.yaml")
}

#[test]
fn each_alert_is_seen_to_fire_and_not_to_fire() {
    let tests: Value = tidegate::yaml::from_str(&fs::read_to_string(fired()).unwrap()).unwrap();
    let mut seen = BTreeMap::<String, BTreeSet<bool>>::new();
    for case in tests["tests"].as_array().unwrap().iter().flat_map(|t| t["alert_rule_test"].as_array().unwrap()) {
        let fires = case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
        seen.entry(case["alertname"].as_str().unwrap().to_owned()).or_default().insert(fires);
    }
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert_eq!(seen.remove(name), Some(BTreeSet::from([false, true])), "{name} in {}", fired().display());
    }
    assert!(seen.is_empty(), "no such alerts: {seen:?}");
}
