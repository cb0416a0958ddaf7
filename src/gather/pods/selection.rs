//! Which pods belong to a workload.

use std::collections::BTreeMap;

use kube::core::{Expression, Selector, SelectorExt as _};
use serde_json::Value;

use crate::api::object::{self, at};

/// The label selector of a workload, as a watch names it; `None` when it selects nothing or everything.
pub fn selector(workload: &Value) -> Option<String> {
    let selector = at(workload, &["spec", "selector"])?;
    let mut terms: Vec<String> = at(selector, &["matchLabels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in at(selector, &["matchExpressions"]).and_then(Value::as_array).into_iter().flatten() {
        let key = object::text(expression, &["key"]);
        let values = at(expression, &["values"]).and_then(Value::as_array).into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        terms.push(match object::text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

/// A label selector that is compared with labels here.
pub(super) struct Selection(Selector);

impl Selection {
    /// Of what [`selector`] returned.
    pub fn of(selector: &str) -> Selection {
        let mut rest = selector;
        let mut terms = Vec::new();
        while !rest.is_empty() {
            // The values of a set have commas between them as well.
            let end = match (rest.find(','), rest.find('(')) {
                (Some(comma), Some(open)) if open < comma => rest.find(')').map_or(rest.len(), |close| close + 1),
                (Some(comma), _) => comma,
                (None, _) => rest.len(),
            };
            let (term, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
            terms.push(expression(term));
            rest = tail.strip_prefix(',').unwrap_or(tail);
        }
        Selection(terms.into_iter().collect())
    }

    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.matches(labels)
    }
}

/// Labels by key.
pub(super) type Labels = BTreeMap<String, String>;

fn expression(term: &str) -> Expression {
    let set = |values: &str| values.trim_end_matches(')').split(',').map(str::to_owned).collect();
    if let Some((key, values)) = term.split_once(" in (") {
        Expression::In(key.to_owned(), set(values))
    } else if let Some((key, values)) = term.split_once(" notin (") {
        Expression::NotIn(key.to_owned(), set(values))
    } else if let Some(key) = term.strip_prefix('!') {
        Expression::DoesNotExist(key.to_owned())
    } else if let Some((key, value)) = term.split_once('=') {
        Expression::Equal(key.to_owned(), value.to_owned())
    } else {
        Expression::Exists(term.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_a_selector_as_the_api_does() {
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "web", "tier": "front"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "NotIn", "values": ["z"]},
            {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector(&workload).unwrap(), "app=web,tier=front,a in (x,y),b notin (z),c,!d");
        assert_eq!(selector(&json!({"spec": {"selector": {}}})), None);
        assert_eq!(selector(&json!({"spec": {}})), None);
    }

    #[test]
    fn selects_as_the_api_does() {
        let selection = Selection::of("app=web,tier=front,a in (x,y),b notin (z),c,!d");
        let pod = |labels: Value| serde_json::from_value::<Labels>(labels).unwrap();
        let good = json!({"app": "web", "tier": "front", "a": "y", "c": "", "e": "1"});
        assert!(selection.selects(&pod(good.clone())));
        for (key, value) in [
            ("app", Some("api")),
            ("tier", None),
            ("a", Some("z")),
            ("a", None),
            ("b", Some("z")),
            ("c", None),
            ("d", Some("")),
        ] {
            let mut labels = good.clone();
            match value {
                Some(value) => labels[key] = json!(value),
                None => drop(labels.as_object_mut().unwrap().remove(key)),
            }
            assert!(!selection.selects(&pod(labels)), "{key}: {value:?}");
        }
        assert!(Selection::of("a in (x)").selects(&pod(json!({"a": "x"}))));
        assert!(!Selection::of("a in (x),b=1").selects(&pod(json!({"a": "x"}))));
    }
}
