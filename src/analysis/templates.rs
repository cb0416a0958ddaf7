//! Queries that are kept: built-in ones, and MetricTemplates.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use include_dir::{Dir, include_dir};

use super::{
    compare::{self, Comparison},
    metric::{Metric, Question, duration},
    provider,
    query::{Value, Values, fill, names, render},
};
use crate::api::{
    analysis::{MetricProvider, MetricTemplateSpec},
    comparison::Compare,
    object::digest,
};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/metric-templates");

/// One question with all values put in, or those of one look at both versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Who answers.
    pub provider: MetricProvider,
    /// The text; of several, one a line.
    pub query: String,
    /// What counts the samples behind the value, where a metric wants some.
    pub samples: Option<String>,
    /// What is compared, and by which queries.
    pub comparison: Option<Comparison>,
    /// The text that decides at which moments it is asked; the same for the same question, whoever asks. Where the question
    /// names the workload or its pods, it is the workload, so that all that is asked about one is asked together; where it
    /// names only Services, the stable one; else the question itself. Metrics that count the same samples are asked together.
    pub timing: String,
}

/// What of the values in question tells which workload it is about.
const OF_WORKLOAD: [&str; 5] = ["workload", "canary-pods", "stable-pods", "canary-ips", "stable-ips"];
const OF_SERVICES: [&str; 2] = ["stable-service", "canary-service"];

impl Rendered {
    /// Timed by what these texts name.
    fn timed<'a>(self, texts: impl IntoIterator<Item = &'a str>, values: &Values) -> Rendered {
        let named: BTreeSet<&str> = texts.into_iter().flat_map(names).collect();
        let value = |name: &str| values.get(name).map(Value::text).filter(|text| !text.is_empty());
        let is_of = |all: &[&str]| all.iter().any(|name| named.contains(name));
        // Of pods and by Jobs everybody asks for himself.
        let is_own = self.provider.pods.is_some() || self.provider.job.is_some();
        let subject = ((is_own || is_of(&OF_WORKLOAD)).then(|| value("workload")).flatten())
            .or_else(|| is_of(&OF_SERVICES).then(|| value("stable-service")).flatten());
        let Some(subject) = subject else { return self };
        // In another namespace the same text may be asked.
        let namespace = if is_own || named.contains("namespace") { value("namespace").unwrap_or_default() } else { "" };
        Rendered { timing: format!("{namespace}/{subject}"), ..self }
    }
}

/// A name with a slash is no object's: it is a built-in template's.
pub fn is_built_in(name: &str) -> bool {
    name.contains('/')
}

/// The built-in templates: name and content.
pub fn built_in() -> &'static [(String, MetricTemplateSpec)] {
    static READ: OnceLock<Vec<(String, MetricTemplateSpec)>> = OnceLock::new();
    READ.get_or_init(|| {
        let mut found: Vec<(String, MetricTemplateSpec)> = FILES
            .dirs()
            .flat_map(Dir::files)
            .filter_map(|file| {
                let name = file.path().with_extension("").to_str()?.to_owned();
                // A test reads every file.
                Some((name, crate::yaml::from_str(file.contents_utf8()?).ok()?))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    })
}

/// Puts values into a metric's query. `kept` finds a MetricTemplate by name.
///
/// # Errors
/// What is missing or wrong, and where.
pub fn resolve(
    metric: &Metric,
    values: &Values,
    kept: impl Fn(&str) -> Option<MetricTemplateSpec>,
) -> Result<Rendered, String> {
    let mut values = values.clone();
    values.insert("interval".to_owned(), Value::Bare(duration(metric.interval)));
    match &metric.question {
        Question::Query { provider, query } => {
            of_value(provider.clone(), query, metric.samples_query.as_deref(), &values)
        }
        Question::Template { provider, name, arguments, compare } => {
            let mut template = find(name, kept)?;
            template.samples_query = samples_query(metric, template.samples_query, name)?;
            of_template(template, provider.as_ref(), arguments, compare.as_deref(), values)
                .map_err(|problem| format!("MetricTemplate {name}: {problem}"))
        }
        Question::Compare { provider, comparison } => fill_comparison(provider.clone(), comparison, &values),
    }
}

/// What counts the samples of a metric that has a template.
fn samples_query(metric: &Metric, kept: Option<String>, name: &str) -> Result<Option<String>, String> {
    if metric.min_samples.is_none() {
        return Ok(None);
    }
    let problem =
        || format!("MetricTemplate {name} counts no samples; give the metric a samplesQuery, or no minSamples");
    metric.samples_query.clone().or(kept).map(Some).ok_or_else(problem)
}

/// Puts values into a query, and into the one that counts its samples.
fn of_value(provider: MetricProvider, query: &str, samples: Option<&str>, values: &Values) -> Result<Rendered, String> {
    let count = |text| match provider::fill_in(provider.clone(), text, values) {
        Ok((_, text)) => Ok(text),
        Err(problem) => Err(format!("samplesQuery: {problem}")),
    };
    let asked = samples.unwrap_or(query);
    let samples = samples.map(count).transpose()?;
    let (provider, query) = provider::fill_in(provider, query, values)?;
    let timing = samples.as_ref().unwrap_or(&query).clone();
    Ok(Rendered { provider, query, samples, comparison: None, timing }.timed([asked], values))
}

/// What a metric compares, before any value is put in; `None` for one that compares nothing.
///
/// # Errors
/// What is missing or wrong, and where.
pub fn comparison(
    metric: &Metric,
    kept: impl Fn(&str) -> Option<MetricTemplateSpec>,
) -> Result<Option<Comparison>, String> {
    match &metric.question {
        Question::Compare { comparison, .. } => Ok(Some((**comparison).clone())),
        Question::Template { name, compare: Some(own), .. } => {
            let problem = |problem: String| format!("MetricTemplate {name}: {problem}");
            of_both(own, find(name, kept)?.compare.as_ref()).map(Some).map_err(problem)
        }
        Question::Query { .. } | Question::Template { .. } => Ok(None),
    }
}

/// What a metric compares by a template.
fn of_both(own: &Compare, kept: Option<&Compare>) -> Result<Comparison, String> {
    let kept = kept.ok_or("compares nothing; give the metric bounds instead of compare")?;
    compare::read(&compare::over(own, kept)).map_err(|(field, problem)| format!("compare.{field} {problem}"))
}

/// Puts values and arguments into a template.
fn of_template(
    template: MetricTemplateSpec,
    provider: Option<&MetricProvider>,
    arguments: &BTreeMap<String, String>,
    compare: Option<&Compare>,
    mut values: Values,
) -> Result<Rendered, String> {
    if let Some(unknown) = arguments.keys().find(|key| template.arguments.iter().all(|a| a.name != **key)) {
        let known: Vec<&str> = template.arguments.iter().map(|a| a.name.as_str()).collect();
        return Err(format!("has no argument {unknown:?}; it has [{}]", known.join(", ")));
    }
    let (mut given, mut texts) = (Vec::new(), Vec::new());
    for argument in &template.arguments {
        let text = arguments.get(&argument.name).or(argument.default.as_ref());
        let text = text.ok_or_else(|| format!("argument {:?} has to be given", argument.name))?;
        texts.push(text.as_str());
        given.push((argument.name.clone(), Value::Text(fill(text, &values)?)));
    }
    values.extend(given);
    let provider = provider
        .cloned()
        .or(template.provider)
        .ok_or_else(|| "names no provider; name one at the metric, such as prometheus with an address".to_owned())?;
    if provider.job.is_some() {
        return Err("is of a Job; name the CronJob in the metric's own query".to_owned());
    }
    provider::check(&provider).map_err(|(field, problem)| format!("provider.{field} {problem}"))?;
    match (compare, template.compare) {
        (None, None) if template.query.trim().is_empty() => Err("query is missing, and so is compare".to_owned()),
        (None, None) => {
            let samples = template.samples_query.as_deref();
            texts.push(samples.unwrap_or(&template.query));
            Ok(of_value(provider, &template.query, samples, &values)?.timed(texts, &values))
        }
        (Some(own), kept) => {
            let comparison = of_both(own, kept.as_ref())?;
            compare::check_provider(&provider).map_err(|problem| format!("provider {problem}"))?;
            texts.extend(comparison.queries.iter().map(|(_, query)| query.as_str()));
            Ok(fill_comparison(provider, &comparison, &values)?.timed(texts, &values))
        }
        (None, Some(_)) => Err("compares both versions; give the metric compare: {} instead of bounds".to_owned()),
    }
}

fn fill_comparison(provider: MetricProvider, comparison: &Comparison, values: &Values) -> Result<Rendered, String> {
    let filled = comparison.queries.iter().map(|(field, query)| match render(query, values) {
        Ok(text) => Ok((field.clone(), text)),
        Err(problem) => Err(format!("compare.{field}: {problem}")),
    });
    let queries = filled.collect::<Result<Vec<_>, _>>()?;
    let query = queries.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let timing = query.clone();
    let asked = comparison.queries.iter().map(|(_, query)| query.as_str());
    let comparison = Some(Comparison { queries, ..comparison.clone() });
    Ok(Rendered { provider, query, samples: None, comparison, timing }.timed(asked, values))
}

/// Tells what a template asks from what it asked before; `None` for a metric without a template, or one that is missing. Its
/// descriptions may change.
pub fn version(metric: &Metric, kept: impl Fn(&str) -> Option<MetricTemplateSpec>) -> Option<String> {
    let Question::Template { name, .. } = &metric.question else { return None };
    let mut template = find(name, kept).ok()?;
    template.description.clear();
    if metric.min_samples.is_none() {
        // Nobody counts them.
        template.samples_query = None;
    }
    template.arguments.iter_mut().for_each(|argument| argument.description.clear());
    Some(digest(&serde_json::to_value(&template).ok()?))
}

fn find(name: &str, kept: impl Fn(&str) -> Option<MetricTemplateSpec>) -> Result<MetricTemplateSpec, String> {
    if is_built_in(name) {
        return match built_in().iter().find(|(known, _)| known == name) {
            Some((_, template)) => Ok(template.clone()),
            None => Err(format!("there is no built-in template {name}; `tidegate analysis templates` lists them")),
        };
    }
    kept(name).ok_or_else(|| {
        format!("MetricTemplate {name} is neither in the Rollout's namespace nor in the controller's; create it")
    })
}

#[cfg(test)]
mod tests;
