use super::*;
use crate::{
    analysis::metric,
    api::analysis::{self as api, Prometheus, TemplateArgument},
};

fn values() -> Values {
    let text = |text: &str| Value::Text(text.to_owned());
    [
        ("namespace", text("demo")),
        ("workload", text("web")),
        ("canary-service", text("web-canary")),
        ("stable-service", text("web")),
        ("stable-pods", Value::Pattern("web-7c6d-x1".into())),
        ("stable-ips", Value::Pattern("10\\.0\\.0\\.3".into())),
        ("canary-pods", Value::Pattern("web-canary-5d9f-[^-]+".into())),
        ("canary-ips", Value::Pattern("10\\.0\\.0\\.1|10\\.0\\.0\\.2".into())),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn prometheus() -> MetricProvider {
    let prometheus = Prometheus { address: "http://prometheus:9090".into(), ..Prometheus::default() };
    MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }
}

fn metric(template: &str, arguments: &[(&str, &str)], provider: Option<MetricProvider>) -> Metric {
    let metric = api::Metric {
        name: "m".into(),
        provider,
        template: Some(api::TemplateRef {
            name: template.to_owned(),
            arguments: arguments.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }),
        max: Some(1.0),
        interval: Some("30s".into()),
        ..api::Metric::default()
    };
    metric::read("a", &api::Analysis { metrics: vec![metric], ..api::Analysis::default() }).unwrap().metrics.remove(0)
}

#[test]
fn every_built_in_template_is_read_and_fits() {
    let files: usize = FILES.dirs().map(|d| d.files().count()).sum();
    assert_eq!(built_in().len(), files, "a file cannot be read");
    let networks = ["apisix", "contour", "envoy", "istio", "linkerd", "nginx", "opentelemetry", "traefik"];
    let kinds = ["compare-errors", "compare-latency", "request-duration-p99", "request-success-rate"];
    let wanted = networks.iter().flat_map(|network| kinds.map(|kind| format!("{network}/{kind}")));
    let mut wanted: Vec<String> = wanted.chain(["pods/oom-kills".into(), "pods/restarts".into()]).collect();
    wanted.sort();
    assert_eq!(built_in().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), wanted);
    for (name, template) in built_in() {
        assert!(!template.description.is_empty(), "{name}");
        let rendered = rendered(name, template);
        if rendered.provider.pods.is_some() {
            continue;
        }
        assert!(rendered.query.contains("[30s]") && !rendered.query.contains("{{"), "{name}: {}", rendered.query);
        if let Some(comparison) = &rendered.comparison {
            // Where nothing failed there is no series, which must not read as no data.
            let failures = comparison.queries.iter().filter(|(field, _)| field.ends_with(".failures"));
            assert!(failures.clone().all(|(_, query)| query.contains("or vector(0)")), "{name}");
            assert_eq!(failures.count(), if name.ends_with("errors") { 2 } else { 0 }, "{name}");
        }
        assert_eq!(rendered.samples.is_some(), rendered.comparison.is_none(), "{name}");
        if name.ends_with("success-rate") {
            // Of requests that all fail there is no series of good ones; that must not read as no data.
            assert!(rendered.query.starts_with("1 -\n") && rendered.query.contains("or vector(0)"), "{name}");
        }
    }
}

fn rendered(name: &str, template: &MetricTemplateSpec) -> Rendered {
    let provider = template.provider.is_none().then(prometheus);
    let mut metric = metric(name, &[], provider);
    if let (Question::Template { compare, .. }, true) = (&mut metric.question, template.compare.is_some()) {
        *compare = Some(Box::default());
    }
    metric.min_samples = template.samples_query.as_ref().map(|_| 20);
    resolve(&metric, &values(), |_| None).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The queries as recording rules, which `promtool` tries on series in `tests/templates/series.yaml`.
#[test]
fn what_is_built_in_is_what_prometheus_is_tried_with() {
    let mut rules = Vec::new();
    for (name, template) in built_in() {
        let rendered = rendered(name, template);
        let name = name.replace('/', ":").replace('-', "_");
        match &rendered.comparison {
            _ if rendered.provider.pods.is_some() => {}
            None => {
                rules.push(serde_json::json!({"record": name, "expr": rendered.query}));
                rules.push(serde_json::json!({"record": format!("{name}:samples"), "expr": rendered.samples}));
            }
            Some(comparison) => rules.extend(comparison.queries.iter().map(|(field, query)| {
                serde_json::json!({"record": format!("{name}:{}", field.replace('.', "_")), "expr": query})
            })),
        }
    }
    let rules = serde_json::json!({"groups": [{"name": "templates", "rules": rules}]});
    let text = crate::yaml::to_string(&rules).unwrap();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/rules.yaml");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap_or_default() == text, "run `make bless` and `make e2e-traffic`");
}

#[test]
fn an_envoy_cluster_is_told_by_its_service() {
    let metric = metric("envoy/request-success-rate", &[], Some(prometheus()));
    let query = resolve(&metric, &values(), |_| None).unwrap().query;
    let pattern = query.split("envoy_cluster_name=~\"").nth(1).unwrap().split('"').next().unwrap();
    let pattern = regex::Regex::new(&format!("^(?:{})$", pattern.replace("\\\\", "\\"))).unwrap();
    for (name, is_canary) in [
        ("kube_demo_web-canary_80", true),
        ("demo/cilium-gateway-gw/demo:web-canary:80", true),
        ("demo_web-canary_80", true),
        ("demo_web_80", false),
        ("kube_demo_web-canary-2_80", false),
        ("kube_other_web-canary_80", false),
    ] {
        assert_eq!(pattern.is_match(name), is_canary, "{name}");
    }
}

fn kept(name: &str) -> Option<MetricTemplateSpec> {
    let argument = |name: &str, default: Option<&str>| TemplateArgument {
        name: name.into(),
        default: default.map(str::to_owned),
        ..TemplateArgument::default()
    };
    (name == "errors").then(|| MetricTemplateSpec {
        query: "errors{service={{ service }}, route={{ route }}}[{{ interval }}]".into(),
        arguments: vec![argument("service", Some("{{ canary-service }}")), argument("route", None)],
        provider: Some(prometheus()),
        ..MetricTemplateSpec::default()
    })
}

#[test]
fn arguments() {
    let resolved = |arguments: &[(&str, &str)]| resolve(&metric("errors", arguments, None), &values(), kept);
    let rendered = resolved(&[("route", "a\"b")]).unwrap();
    assert_eq!(rendered.query, r#"errors{service="web-canary", route="a\"b"}[30s]"#);
    assert_eq!(rendered.provider, prometheus());
    let rendered = resolved(&[("route", "{{ workload }}-x"), ("service", "api")]).unwrap();
    assert_eq!(rendered.query, r#"errors{service="api", route="web-x"}[30s]"#);
    for (arguments, says) in [
        (&[][..], "MetricTemplate errors: argument \"route\" has to be given"),
        (&[("route", "r"), ("rout", "r")], "has no argument \"rout\"; it has [service, route]"),
        (&[("route", "{{ nothing }}")], "no known value"),
    ] {
        let problem = resolved(arguments).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }
}

#[test]
fn what_counts_samples() {
    let mut metric = metric("istio/request-success-rate", &[], Some(prometheus()));
    let counted = |metric: &Metric| resolve(metric, &values(), kept).map(|rendered| rendered.samples);
    assert_eq!(counted(&metric), Ok(None), "nobody wants to know");
    let before = version(&metric, kept);
    metric.min_samples = Some(20);
    assert!(counted(&metric).unwrap().unwrap().starts_with("sum(increase(istio_requests_total{"));
    assert_ne!(version(&metric, kept), before, "it is another question");
    metric.samples_query = Some("n{service={{ canary-service }}}[{{ interval }}]".into());
    assert_eq!(counted(&metric), Ok(Some("n{service=\"web-canary\"}[30s]".into())), "the metric's own goes before");
    metric.samples_query = Some("n{{ nothing }}".into());
    assert!(counted(&metric).unwrap_err().contains("samplesQuery: `{{ nothing }}` is no known value"));
    let mut of_errors = self::metric("errors", &[("route", "r")], None);
    of_errors.min_samples = Some(20);
    assert!(counted(&of_errors).unwrap_err().contains("MetricTemplate errors counts no samples"));
}

#[test]
fn what_is_asked_about_one_workload_is_asked_together_and_the_same_by_all_at_once() {
    let metric = |query: &str, provider: MetricProvider| {
        let metric = api::Metric {
            name: "m".into(),
            provider: Some(provider),
            query: Some(query.into()),
            max: Some(1.0),
            ..api::Metric::default()
        };
        metric::read("a", &api::Analysis { metrics: vec![metric], ..api::Analysis::default() })
            .unwrap()
            .metrics
            .remove(0)
    };
    let of = |query: &str| resolve(&metric(query, prometheus()), &values(), kept).unwrap().timing;
    assert_eq!(of("up"), "up", "perhaps others ask it as well");
    assert_eq!(of("up{n={{ namespace }}, step=\"{{ interval }}\"}"), "up{n=\"demo\", step=\"1m\"}");
    assert_eq!(of("up{pod=~\"{{ canary-pods }}\"}"), "/web", "in another namespace it is the same question");
    for query in ["up{ip=~{{ stable-ips }}, n={{ namespace }}}", "rate(up{w={{ workload }}, n={{ namespace }}}[1m])"] {
        assert_eq!(of(query), "demo/web");
    }
    assert_eq!(of("up{s={{ canary-service }}, n={{ namespace }}}"), "demo/web", "the stable Service");
    let pods = MetricProvider { pods: Some(api::PodsProvider::default()), ..MetricProvider::default() };
    assert_eq!(resolve(&metric("restarts", pods), &values(), kept).unwrap().timing, "demo/web");
    for (name, template) in built_in() {
        let wanted = if name.starts_with("apisix/") { "/web" } else { "demo/web" };
        assert!(rendered(name, template).timing.ends_with(wanted), "{name}: {}", rendered(name, template).timing);
    }
}

#[test]
fn what_is_missing_is_named() {
    for (name, provider, says) in [
        ("nothing", None, "MetricTemplate nothing is neither in the Rollout's namespace nor in the controller's"),
        ("istio/nothing", None, "there is no built-in template istio/nothing"),
        ("istio/request-success-rate", None, "names no provider"),
    ] {
        let problem = resolve(&metric(name, &[], provider), &values(), kept).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }
    let mut of_pods = metric("pods/restarts", &[], None);
    of_pods.question = Question::Query {
        provider: MetricProvider { pods: Some(api::PodsProvider {}), ..MetricProvider::default() },
        query: "up".into(),
    };
    assert!(resolve(&of_pods, &values(), kept).unwrap_err().contains("use restarts or oom-kills"));
}
