//! Who can be asked, and in which language.

use serde_json::Value as Json;

use super::{
    json_path::JsonPath,
    metric::seconds,
    query::{Value, Values, fill_with, render},
};
use crate::api::analysis::{JobProvider, MetricProvider};

/// A field below the provider, and what is wrong with it.
pub type Wrong = (&'static str, String);

/// What may be asked of pods.
pub const POD_QUERIES: [&str; 2] = ["restarts", "oom-kills"];

/// Whether a provider is one; names the field below it and what is wrong.
///
/// # Errors
/// When it is none.
pub fn check(provider: &MetricProvider) -> Result<(), Wrong> {
    let MetricProvider { prometheus, datadog, web, job, pods } = provider;
    let named = [prometheus.is_some(), datadog.is_some(), web.is_some(), job.is_some(), pods.is_some()];
    if named.iter().filter(|is_there| **is_there).count() != 1 {
        let problem = "is to be given, or datadog, web, job or pods: exactly one of them";
        return Err(("prometheus", problem.to_owned()));
    }
    if let Some(prometheus) = prometheus {
        check_address("prometheus.address", &prometheus.address, "http://prometheus.monitoring:9090")?;
        if prometheus.tenant.as_ref().is_some_and(|t| http::HeaderValue::from_str(t).is_err()) {
            return Err(("prometheus.tenant", "has characters that a header cannot have".to_owned()));
        }
    }
    if let Some(address) = datadog.as_ref().and_then(|datadog| datadog.address.as_ref()) {
        check_address("datadog.address", address, "https://api.datadoghq.eu")?;
    }
    if let Some(job) = job
        && job_timeout(job).is_none()
    {
        return Err(("job.timeout", "is no duration of a second or more, such as 5m".to_owned()));
    }
    if let Some(web) = web {
        check_address("web.address", &web.address, "https://quality.example.com")?;
        if web.path.as_ref().is_some_and(|path| !path.starts_with('/') || without_values(path).contains(['#', ' '])) {
            return Err(("web.path", "is to begin with /, without spaces and #; write them as %20 and %23".to_owned()));
        }
        if let Some(Err(error)) = web.body.as_ref().map(|body| serde_json::from_str::<Json>(body)) {
            return Err(("web.body", format!("is no JSON: {error}")));
        }
    }
    Ok(())
}

/// Seconds that a Job may run; `None` when that is no duration.
pub fn job_timeout(job: &JobProvider) -> Option<i64> {
    const DEFAULT: i64 = 600;
    job.timeout.as_deref().map_or(Some(DEFAULT), seconds).filter(|seconds| *seconds > 0)
}

/// A text without its `{{ name }}`: those are written as an address wants it.
fn without_values(text: &str) -> String {
    let after = |part: &str| part.split_once("}}").map_or_else(|| part.to_owned(), |(_, rest)| rest.to_owned());
    let mut parts = text.split("{{");
    parts.next().unwrap_or_default().to_owned() + &parts.map(after).collect::<String>()
}

fn check_address(field: &'static str, address: &str, such_as: &str) -> Result<(), Wrong> {
    let uri: Option<http::Uri> = address.parse().ok();
    let is_good = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if is_good {
        return Ok(());
    }
    Err((field, format!("{address:?} is no address; write such as {such_as}, and put a password into the Secret")))
}

/// Puts values into everything that a provider is asked by: itself, and the query.
///
/// # Errors
/// A value is not known, or cannot stand where it is wanted; or it is no query in the provider's language.
pub fn fill_in(mut provider: MetricProvider, query: &str, values: &Values) -> Result<(MetricProvider, String), String> {
    if provider.pods.is_some() {
        let query = fill_with(query, values, plain)?;
        if !POD_QUERIES.contains(&query.trim()) {
            return Err(format!("{query:?} is no query about pods; use {}", POD_QUERIES.join(" or ")));
        }
        return Ok((provider, query));
    }
    if provider.job.is_some() {
        // The CronJob is read before any value is known.
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ['-', '.'].contains(&c);
        let is_good = !query.is_empty() && query.chars().all(is_name);
        let problem = || format!("{query:?} names no CronJob; the query of a job is its name, without values");
        return if is_good { Ok((provider, query.to_owned())) } else { Err(problem()) };
    }
    if provider.datadog.is_some() {
        return Ok((provider, fill_with(query, values, plain)?));
    }
    let Some(web) = &mut provider.web else { return Ok((provider, render(query, values)?)) };
    if let Some(path) = &mut web.path {
        *path = fill_with(path, values, |name, value| {
            let mut out = String::new();
            text_of(name, value)?.bytes().for_each(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                byte => out.push_str(&format!("%{byte:02X}")),
            });
            Ok(out)
        })
        .map_err(|problem| format!("web.path: {problem}"))?;
    }
    if let Some(body) = &mut web.body {
        let mut document: Json = serde_json::from_str(body).map_err(|error| format!("web.body is no JSON: {error}"))?;
        fill_texts(&mut document, values).map_err(|problem| format!("web.body: {problem}"))?;
        *body = document.to_string();
    }
    let query = fill_with(query, values, plain)?.trim().to_owned();
    JsonPath::parse(&query)?;
    Ok((provider, query))
}

/// The texts of a document; it stays the document that it is.
fn fill_texts(value: &mut Json, values: &Values) -> Result<(), String> {
    match value {
        Json::String(text) => {
            *text = fill_with(text, values, |name, value| text_of(name, value).map(str::to_owned))?;
            Ok(())
        }
        Json::Array(list) => list.iter_mut().try_for_each(|item| fill_texts(item, values)),
        Json::Object(map) => map.values_mut().try_for_each(|item| fill_texts(item, values)),
        _ => Ok(()),
    }
}

fn text_of<'a>(name: &str, value: &'a Value) -> Result<&'a str, String> {
    match value {
        Value::Text(text) | Value::Bare(text) => Ok(text),
        Value::Pattern(_) => Err(format!("{name} is a regular expression, for PromQL only")),
    }
}

/// Where nothing can be quoted, a value has no character that means something.
fn plain(name: &str, value: &Value) -> Result<String, String> {
    let text = text_of(name, value)?;
    let is_plain = |c: char| c.is_alphanumeric() || ['-', '.', '_', '/'].contains(&c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(format!("the value of {name}, {text:?}, has other characters than letters, digits, -, ., _ and /"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::analysis::{Datadog, Prometheus, Web};

    fn web(path: &str, body: Option<&str>) -> MetricProvider {
        let (path, body) = (Some(path.to_owned()), body.map(str::to_owned));
        let web = Web { address: "https://quality".into(), path, body, secret_ref: None };
        MetricProvider { web: Some(web), ..MetricProvider::default() }
    }

    fn values() -> Values {
        let values = [
            ("service", Value::Text("shop-canary".into())),
            ("evil", Value::Text("a\"&b=c} or {*:*'].x".into())),
            ("pods", Value::Pattern("a|b".into())),
            ("step", Value::Bare("2".into())),
        ];
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn values_never_become_syntax() {
        let body = r#"{"is {{ step }}": ["{{ evil }}", {"n": 1, "s": "{{ service }}-{{ step }}"}]}"#;
        let (filled, query) =
            fill_in(web("/check?of={{ evil }}&step={{ step }}", Some(body)), "$.of['{{ service }}']", &values())
                .unwrap();
        let filled = filled.web.unwrap();
        assert_eq!(filled.path.unwrap(), "/check?of=a%22%26b%3Dc%7D%20or%20%7B%2A%3A%2A%27%5D.x&step=2");
        let wanted = serde_json::json!({"is {{ step }}": ["a\"&b=c} or {*:*'].x", {"n": 1, "s": "shop-canary-2"}]});
        assert_eq!(serde_json::from_str::<Json>(&filled.body.unwrap()).unwrap(), wanted);
        assert_eq!(query, "$.of['shop-canary']");
        let datadog = MetricProvider { datadog: Some(Datadog::default()), ..MetricProvider::default() };
        let (_, query) = fill_in(datadog.clone(), "avg:errors{service:{{ service }}}", &values()).unwrap();
        assert_eq!(query, "avg:errors{service:shop-canary}");
        for (provider, query, says) in [
            (&datadog, "avg:errors{service:{{ evil }}}", "has other characters"),
            (&datadog, "avg:errors{pod:{{ pods }}}", "is a regular expression"),
            (&web("/{{ pods }}", None), "$", "web.path: pods is a regular expression"),
            (&web("/", None), "$['{{ evil }}']", "has other characters"),
            (&web("/", None), "$..x", "is no JSONPath"),
            (&web("/", Some("[\"{{ nobody }}\"]")), "$", "web.body: `{{ nobody }}` is no known value"),
        ] {
            let why = fill_in(provider.clone(), query, &values()).unwrap_err();
            assert!(why.contains(says), "{query}: {why}");
        }
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        let prometheus = |address: &str| {
            let prometheus = Prometheus { address: address.into(), ..Prometheus::default() };
            MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }
        };
        let datadog = Datadog { address: Some("datadoghq.eu".into()), ..Datadog::default() };
        for (provider, field) in [
            (MetricProvider::default(), "prometheus"),
            (MetricProvider { web: web("/", None).web, ..prometheus("http://p") }, "prometheus"),
            (prometheus("prometheus:9090/x y"), "prometheus.address"),
            (prometheus("http://u:p@host"), "prometheus.address"),
            (MetricProvider { datadog: Some(datadog), ..MetricProvider::default() }, "datadog.address"),
            (web("check", None), "web.path"),
            (web("/a#b", None), "web.path"),
            (web("/a b?of={{ step }}", None), "web.path"),
            (web("/", Some("{")), "web.body"),
        ] {
            assert_eq!(check(&provider).unwrap_err().0, field, "{provider:?}");
        }
        assert_eq!(check(&web("/a?b=c", Some("{}"))), Ok(()));
        assert_eq!(check(&web("/a?b={{ canary-service }}&c={{ step }}", None)), Ok(()), "spaces of a placeholder");
    }
}
