//! Queries that are kept: built-in ones, and MetricTemplates.

use std::sync::OnceLock;

use include_dir::{Dir, include_dir};

use super::{
    metric::{Metric, Question, duration},
    provider,
    query::{Value, Values, fill, render},
};
use crate::api::analysis::{MetricProvider, MetricTemplateSpec};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/metric-templates");

/// One question with all values put in; four of one look at both versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Who answers.
    pub provider: MetricProvider,
    /// The text; of several, one a line.
    pub query: String,
    /// The four of a comparison, in the order of [`super::compare::Look`]; else none.
    pub counts: Vec<String>,
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
    let (provider, query) = match &metric.question {
        Question::Query { provider, query } => provider::fill_in(provider.clone(), query, &values)?,
        Question::Template { provider, name, arguments } => {
            let template = find(name, kept)?;
            let in_template = |problem: String| format!("MetricTemplate {name}: {problem}");
            if let Some(unknown) = arguments.keys().find(|key| template.arguments.iter().all(|a| a.name != **key)) {
                let known: Vec<&str> = template.arguments.iter().map(|a| a.name.as_str()).collect();
                return Err(in_template(format!("has no argument {unknown:?}; it has [{}]", known.join(", "))));
            }
            let mut all = values.clone();
            for argument in &template.arguments {
                let given = arguments.get(&argument.name).or(argument.default.as_ref());
                let Some(given) = given else {
                    return Err(in_template(format!("argument {:?} has to be given", argument.name)));
                };
                all.insert(argument.name.clone(), Value::Text(fill(given, &values).map_err(in_template)?));
            }
            let provider = provider.clone().or(template.provider).ok_or_else(|| {
                in_template("names no provider; name one at the metric, such as prometheus with an address".to_owned())
            })?;
            if provider.job.is_some() {
                return Err(in_template("is of a Job; name the CronJob in the metric's own query".to_owned()));
            }
            provider::check(&provider)
                .map_err(|(field, problem)| in_template(format!("provider.{field} {problem}")))?;
            provider::fill_in(provider, &template.query, &all).map_err(in_template)?
        }
        Question::Compare(comparison) => {
            let queries = comparison.queries();
            let counts = queries
                .map(|(field, query)| render(query, &values).map_err(|problem| format!("compare.{field}: {problem}")))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?;
            return Ok(Rendered { provider: comparison.provider.clone(), query: counts.join("\n"), counts });
        }
    };
    Ok(Rendered { provider, query, counts: Vec::new() })
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
