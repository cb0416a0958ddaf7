use super::*;

fn value(text: &str, series: &str) -> Option<String> {
    text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

#[test]
fn what_is_counted_is_exposed() {
    let metrics = Metrics::new();
    let clone = metrics.clone();
    clone.reconciled("ok", Duration::from_millis(3), Some("0af7"));
    clone.reconciled("error", Duration::from_secs(2), None);
    clone.decided(Duration::from_micros(50));
    clone.taken_from_queue(Duration::from_millis(3));
    clone.wrote("VirtualService", "conflict");
    clone.guarded("Service", "only our fields");
    clone.script_called("networking.istio.io/VirtualService", Ok(300), Duration::from_micros(100));
    clone.script_called("networking.istio.io/VirtualService", Err("fuel"), Duration::from_micros(100));
    clone.watch_queue(Some(Box::new(|| (7, Duration::from_millis(2500)))));
    let text = metrics.encode();
    for (series, expected) in [
        (r#"tidegate_build_info{version="0.1.0"}"#.replace("0.1.0", env!("CARGO_PKG_VERSION")), "1"),
        (r#"tidegate_reconciles_total{result="ok"}"#.into(), "1"),
        (r#"tidegate_reconciles_total{result="error"}"#.into(), "1"),
        ("tidegate_reconcile_duration_seconds_count".into(), "2"),
        (r#"tidegate_reconcile_duration_seconds_bucket{le="0.004"}"#.into(), "1"),
        (r#"tidegate_writes_total{kind="VirtualService",result="conflict"}"#.into(), "1"),
        (r#"tidegate_guarded_writes_total{kind="Service",rule="only our fields"}"#.into(), "1"),
        (r#"tidegate_script_calls_total{script="networking.istio.io/VirtualService",result="ok"}"#.into(), "1"),
        (r#"tidegate_script_calls_total{script="networking.istio.io/VirtualService",result="error"}"#.into(), "1"),
        (r#"tidegate_script_errors_total{script="networking.istio.io/VirtualService",error="fuel"}"#.into(), "1"),
        (r#"tidegate_script_duration_seconds_count{script="networking.istio.io/VirtualService"}"#.into(), "2"),
        (r#"tidegate_script_fuel_bucket{le="512.0",script="networking.istio.io/VirtualService"}"#.into(), "1"),
        ("tidegate_decision_duration_seconds_count".into(), "1"),
        (r#"tidegate_queue_duration_seconds_bucket{le="0.004"}"#.into(), "1"),
        ("tidegate_queue_depth".into(), "7"),
        ("tidegate_queue_age_seconds".into(), "2.5"),
    ] {
        assert_eq!(value(&text, &series).as_deref(), Some(expected), "{series}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_rollout_counts_in_one_phase_and_not_after_it_is_gone() {
    let metrics = Metrics::new();
    let count = |phase: &str| value(&metrics.encode(), &format!("tidegate_rollouts{{phase={phase:?}}}"));
    metrics.rollout_phase("a/one", Some("Healthy"));
    metrics.rollout_phase("a/one", Some("Healthy"));
    metrics.rollout_phase("b/one", Some("Healthy"));
    assert_eq!(count("Healthy").as_deref(), Some("2"));
    metrics.rollout_phase("a/one", Some("Progressing"));
    assert_eq!((count("Healthy").as_deref(), count("Progressing").as_deref()), (Some("1"), Some("1")));
    let stalled = |reason: &str| value(&metrics.encode(), &format!("tidegate_rollouts_stalled{{reason={reason:?}}}"));
    metrics.rollout_stalled("a/one", Some("ScriptFailed"));
    metrics.rollout_stalled("a/one", Some("WriteRefused"));
    assert_eq!((stalled("ScriptFailed").as_deref(), stalled("WriteRefused").as_deref()), (Some("0"), Some("1")));
    metrics.rollout_stalled("a/one", None);
    assert_eq!(stalled("WriteRefused").as_deref(), Some("0"));
    metrics.rollout_phase("a/one", None);
    metrics.rollout_phase("a/one", None);
    assert_eq!((count("Healthy").as_deref(), count("Progressing").as_deref()), (Some("1"), Some("0")));
    let warned = || value(&metrics.encode(), "tidegate_rollouts_warned{condition=\"Degraded\"}");
    let key = ("a".to_owned(), "one".to_owned());
    metrics.rollout_warned(&key, &["Degraded", "ScriptRejected"]);
    metrics.rollout_warned(&key, &["Degraded"]);
    assert_eq!(warned().as_deref(), Some("1"));
    metrics.rollout_warned(&key, &[]);
    metrics.rollout_warned(&key, &[]);
    assert_eq!(warned().as_deref(), Some("0"));
    // Another replica tells of them.
    metrics.rollout_warned(&key, &["Degraded"]);
    metrics.watch_queue(Some(Box::new(|| (1, Duration::from_secs(1)))));
    metrics.forget_rollouts();
    assert_eq!(value(&metrics.encode(), "tidegate_queue_depth").as_deref(), Some("0"));
    assert!(!metrics.encode().contains("tidegate_rollouts{") && warned().is_none());
    metrics.rollout_phase("a/one", Some("Healthy"));
    assert_eq!(count("Healthy").as_deref(), Some("1"));
}

#[test]
fn exemplars_are_shown_only_where_they_are_wanted() {
    for (metrics, is_shown) in [(Metrics::new(), false), (Metrics::with_exemplars(), true)] {
        metrics.reconciled("ok", Duration::from_millis(3), Some("0af7651916cd43dd8448eb211c80319c"));
        metrics.reconciled("ok", Duration::from_secs(3), None);
        let text = metrics.encode();
        let shown: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
        assert_eq!(shown.len(), usize::from(is_shown), "{text}");
        for line in shown {
            assert!(line.contains(r#"le="0.004"} 1 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.003"#), "{line}");
        }
    }
}

#[test]
fn what_is_measured_has_no_more_series_than_promised() {
    let metrics = Metrics::new();
    let key = |i: usize| ("shop".to_owned(), format!("web-{i}"));
    let ten: Vec<String> = (0..10).map(|i| format!("metric-{i}")).collect();
    let tell = |i| metrics.analysis(&key(i), ten.iter().map(|name| ("step", name.as_str(), Some(1.0), false)));
    (0..203).for_each(tell);
    let series = || metrics.encode().lines().filter(|line| line.starts_with("tidegate_analysis_value{")).count();
    assert_eq!(series(), 2000);
    metrics.analysis(&key(0), std::iter::empty());
    assert_eq!(series(), 1990);
    tell(202);
    tell(202);
    assert_eq!(series(), 2000);
}
