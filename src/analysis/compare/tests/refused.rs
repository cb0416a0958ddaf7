use super::*;

#[test]
fn what_is_wrong_names_its_field() {
    type Change = fn(&mut api::Metric, &mut Compare);
    let table: [(Change, &str); 24] = [
        (|m, _| m.query = Some("up".into()), "query"),
        (|m, _| m.template = Some(api::TemplateRef::default()), "compare.canary"),
        (|m, _| m.min = Some(1.0), "min"),
        (|m, _| m.max = Some(1.0), "max"),
        (|m, _| m.count = Some(1), "count"),
        (|m, _| m.failure_limit = Some(1), "failureLimit"),
        (|m, _| m.provider = None, "provider"),
        (
            |m, _| m.provider = Some(MetricProvider { pods: Some(PodsProvider {}), ..MetricProvider::default() }),
            "provider",
        ),
        (|_, c| c.canary.as_mut().unwrap().requests = Some(" ".into()), "compare.canary.requests"),
        (|_, c| c.canary = None, "compare.canary"),
        (|_, c| c.stable = None, "compare.stable"),
        (|_, c| c.stable.as_mut().unwrap().failures = None, "compare.stable"),
        (|_, c| c.stable = Some(of_value("stable")), "compare.stable"),
        (|_, c| c.quantile = Some(0.9), "compare.quantile"),
        (|_, c| c.range = Some(ValueRange::default()), "compare.range"),
        (|_, c| (asks(c, of_buckets), c.quantile = Some(1.0)).1, "compare.quantile"),
        (|_, c| (asks(c, of_buckets), (c.quantile, c.slow) = (Some(0.9), Some(0.5))).1, "compare.slow"),
        (|_, c| (asks(c, of_value), c.effect = Some(1.0)).1, "compare.range"),
        (|_, c| (asks(c, of_value), c.range = Some(ValueRange { min: 0.0, max: 9.0 })).1, "compare.effect"),
        (
            |_, c| {
                asks(c, of_value);
                (c.effect, c.range) = (Some(1.0), Some(ValueRange { min: 1.0, max: 1.0 }));
            },
            "compare.range",
        ),
        (|_, c| c.effect = Some(0.0), "compare.effect"),
        (|_, c| c.tolerance = Some(0.02), "compare.tolerance"),
        (|_, c| c.false_alarm = Some(f64::NAN), "compare.falseAlarm"),
        (|_, c| c.burst = Some(-1), "compare.burst"),
    ];
    for (change, field) in table {
        let (found, problem) = reading(spec(change), false).unwrap_err();
        assert_eq!(found, format!("a.metrics[0].{field}"), "{problem}");
        assert!(!problem.is_empty());
    }
    let (found, _) = reading(spec(|_, c| c.most = Some(100)), true).unwrap_err();
    assert_eq!(found, "a.metrics[0].compare.most", "in the background there is no end");
    assert!(reading(spec(|_, _| {}), true).is_ok());
}
