//! Label and field selectors.

use kube::core::Status;
use serde_json::{Map, Value};

use super::json::{items, name, namespace, text};
use super::status;

/// One requirement on a label or a field.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// All requirements of a selector; none selects everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Labels(Vec<Rule>);

impl Labels {
    /// Reads the syntax of `?labelSelector=`.
    pub fn parse(text: &str) -> Result<Self, Box<Status>> {
        let mut rules = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            rules.push(Self::rule(part).ok_or_else(|| {
                let found = part.split_whitespace().nth(1).unwrap_or(part);
                status::bad_request(format!(
                    "unable to parse requirement: found '{found}', expected: in, notin, =, ==, !=, gt, lt"
                ))
            })?);
        }
        Ok(Self(rules))
    }

    fn rule(part: &str) -> Option<Rule> {
        if let Some((key, value)) = part.split_once("!=") {
            return Some(Rule::NotIn(label_key(key)?, vec![value.trim().into()]));
        }
        if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            return Some(Rule::In(label_key(key)?, vec![value.trim().into()]));
        }
        if let Some((head, list)) = part.split_once('(') {
            let values: Vec<String> = list.strip_suffix(')')?.split(',').map(|v| v.trim().to_owned()).collect();
            let mut words = head.split_whitespace();
            let (key, op) = (label_key(words.next()?)?, words.next()?);
            return match op {
                "in" => Some(Rule::In(key, values)),
                "notin" => Some(Rule::NotIn(key, values)),
                _ => None,
            };
        }
        match part.strip_prefix('!') {
            Some(key) => Some(Rule::Absent(label_key(key)?)),
            None => Some(Rule::Exists(label_key(part)?)),
        }
    }

    /// Reads a `LabelSelector` object. `None` (no selector) matches nothing, as everywhere in Kubernetes.
    pub fn of_object(selector: Option<&Value>) -> Option<Self> {
        let selector = selector?;
        let mut rules: Vec<Rule> = selector
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| Rule::In(k.clone(), vec![v.as_str().unwrap_or_default().into()]))
            .collect();
        for e in items(selector, "/matchExpressions") {
            let key = text(e, "/key").to_owned();
            let values = items(e, "/values").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            rules.push(match text(e, "/operator") {
                "In" => Rule::In(key, values),
                "NotIn" => Rule::NotIn(key, values),
                "Exists" => Rule::Exists(key),
                "DoesNotExist" => Rule::Absent(key),
                _ => return None,
            });
        }
        Some(Self(rules))
    }

    /// A map of equal labels, as in a Service. Empty selects nothing there.
    pub fn of_map(map: Option<&Value>) -> Option<Self> {
        let map = map?.as_object().filter(|m| !m.is_empty())?;
        Some(Self(map.iter().map(|(k, v)| Rule::In(k.clone(), vec![v.as_str().unwrap_or_default().into()])).collect()))
    }

    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|rule| holds(rule, &|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str)))
    }

    /// Whether an object's labels match.
    pub fn selects(&self, object: &Value) -> bool {
        self.0.is_empty() || self.matches(object.pointer("/metadata/labels").and_then(Value::as_object))
    }

    /// The `?labelSelector=` form.
    pub fn to_query(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|rule| match rule {
                Rule::In(k, v) if v.len() == 1 => format!("{k}={}", v.concat()),
                Rule::In(k, v) => format!("{k} in ({})", v.join(",")),
                Rule::NotIn(k, v) if v.len() == 1 => format!("{k}!={}", v.concat()),
                Rule::NotIn(k, v) => format!("{k} notin ({})", v.join(",")),
                Rule::Exists(k) => k.clone(),
                Rule::Absent(k) => format!("!{k}"),
            })
            .collect();
        parts.join(",")
    }
}

fn holds<'a>(rule: &Rule, get: &dyn Fn(&str) -> Option<&'a str>) -> bool {
    match rule {
        Rule::In(key, values) => get(key).is_some_and(|v| values.iter().any(|x| x == v)),
        Rule::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|x| x != v)),
        Rule::Exists(key) => get(key).is_some(),
        Rule::Absent(key) => get(key).is_none(),
    }
}

fn label_key(key: &str) -> Option<String> {
    let key = key.trim();
    let fine = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    fine.then(|| key.to_owned())
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

/// A field selector: equalities on a few fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields(Vec<(String, bool, String)>);

impl Fields {
    /// Reads `?fieldSelector=`. Fields that the kind does not index are refused, as the API server does.
    pub fn parse(text: &str, plural: &str) -> Result<Self, Box<Status>> {
        let mut rules = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, equal, value) = match (part.split_once("!="), part.split_once("==").or(part.split_once('='))) {
                (Some((k, v)), _) => (k, false, v),
                (None, Some((k, v))) => (k, true, v),
                (None, None) => {
                    return Err(status::bad_request(format!("invalid selector: '{part}'; can't understand")));
                }
            };
            let known = match key {
                "metadata.name" | "metadata.namespace" => true,
                "spec.nodeName" | "status.phase" | "status.podIP" => plural == "pods",
                "reason" | "type" => plural == "events",
                _ => plural == "events" && (key.starts_with("involvedObject.") || key.starts_with("regarding.")),
            };
            if !known {
                return Err(status::bad_request(format!(
                    "\"{key}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )));
            }
            rules.push((key.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(rules))
    }

    pub fn selects(&self, object: &Value) -> bool {
        self.0.iter().all(|(key, equal, value)| {
            let have = match key.as_str() {
                "metadata.name" => name(object),
                "metadata.namespace" => namespace(object),
                other => text(object, &format!("/{}", other.replace('.', "/"))),
            };
            (have == value) == *equal
        })
    }

    /// The one name that can match, if the selector says so.
    pub fn single_name(&self) -> Option<&str> {
        self.0.iter().find(|(k, equal, _)| *equal && k == "metadata.name").map(|(_, _, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let labels = json!({"app": "web", "tier": "front"});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (web, api)", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("app in (a,b),tier", false),
        ] {
            let parsed = Labels::parse(selector).unwrap();
            assert_eq!(parsed.matches(labels.as_object()), expected, "{selector}");
            assert_eq!(Labels::parse(&parsed.to_query()).unwrap(), parsed, "{selector}");
        }
        assert!(Labels::parse("a b").is_err());
        assert!(Labels::parse("a in web").is_err());
    }

    #[test]
    fn label_selector_objects() {
        let labels = json!({"app": "web"});
        let of = |v: Value| Labels::of_object(Some(&v)).map(|s| s.matches(labels.as_object()));
        assert_eq!(of(json!({"matchLabels": {"app": "web"}})), Some(true));
        assert_eq!(of(json!({})), Some(true));
        let of_not_in = of(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}));
        assert_eq!(of_not_in, Some(false));
        assert_eq!(Labels::of_object(None), None);
        assert_eq!(Labels::of_map(Some(&json!({}))), None);
    }

    #[test]
    fn field_selectors() {
        let pod = json!({"metadata": {"name": "a", "namespace": "n"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("metadata.namespace=n,status.phase=Running", true),
            ("status.phase=Pending", false),
        ] {
            assert_eq!(Fields::parse(selector, "pods").unwrap().selects(&pod), expected, "{selector}");
        }
        assert!(
            Fields::parse("spec.x=1", "pods").unwrap_err().message.contains("\"spec.x\" is not a known field selector")
        );
    }
}
