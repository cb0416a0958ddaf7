//! One value out of an answer in JSON, by a JSONPath (RFC 9535) of names, indices and wildcards.
//!
//! Own code: what the libraries can do beyond that, an answer can make arbitrarily expensive.

use serde_json::Value;

use super::Answer;

/// As much of a text as may be judged, in bytes.
const LONGEST: usize = 256;

/// A way through a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(i64),
    All,
}

impl JsonPath {
    /// Reads a path such as `$.data[0].attributes['error.rate']`.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let wrong = |rest: &str, what: &str| {
            let at = text.len() - rest.len();
            let column = text.get(..at).map_or(at, |before| before.chars().count()) + 1;
            Err(format!("{text:?} is no JSONPath: {what} at character {column}"))
        };
        let Some(mut rest) = text.strip_prefix('$') else { return wrong(text, "it does not begin with $") };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, tail) = if let Some(tail) = rest.strip_prefix("[*]").or_else(|| rest.strip_prefix(".*")) {
                (Step::All, tail)
            } else if rest.starts_with("..") || rest.starts_with("[?") {
                return wrong(rest, "descendants and filters are not supported");
            } else if let Some(tail) = rest.strip_prefix('.') {
                let end = tail.find(['.', '[']).unwrap_or(tail.len());
                let (name, after) = tail.split_at_checked(end).unwrap_or((tail, ""));
                let is_name = |(i, c): (usize, char)| {
                    c == '_' || !c.is_ascii() || c.is_ascii_alphanumeric() && (i > 0 || !c.is_ascii_digit())
                };
                if name.is_empty() || !name.char_indices().all(is_name) {
                    return wrong(tail, "no name of letters, digits and _ (quote another: ['…'])");
                }
                (Step::Name(name.to_owned()), after)
            } else if let Some((name, after)) = quoted(rest) {
                (Step::Name(name), after)
            } else if let Some((number, after)) = rest.strip_prefix('[').and_then(|tail| tail.split_once(']')) {
                let Ok(index) = number.parse() else { return wrong(rest, "no index, quoted name or *") };
                (Step::Index(index), after)
            } else {
                return wrong(rest, "neither .name nor [index]");
            };
            steps.push(step);
            rest = tail;
        }
        Ok(JsonPath(steps))
    }

    /// What it finds, as an answer: numbers, `true` and `false` as 1 and 0, a text that is a number as that number.
    ///
    /// # Errors
    /// It finds something else.
    pub fn answer(&self, document: &Value) -> Result<Answer, String> {
        let mut found = vec![document];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found.retain(|value| !value.is_null());
        if let [Value::String(text)] = found.as_slice()
            && number(&Value::String(text.clone())).is_none()
        {
            return Ok(Answer::Text(text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()));
        }
        let numbers: Option<Vec<f64>> = found.into_iter().map(number).collect();
        let numbers = numbers.ok_or("the JSONPath finds an object, a list or several texts instead of a number")?;
        Ok(Answer::of(numbers.into_iter()))
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Name(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(list)) => {
                let at = if *index < 0 {
                    i64::try_from(list.len()).unwrap_or(i64::MAX).saturating_add(*index)
                } else {
                    *index
                };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            (Step::All, Value::Array(list)) => list.iter().collect(),
            (Step::All, Value::Object(map)) => map.values().collect(),
            _ => Vec::new(),
        }
    }
}

/// `['name']` or `["name"]`, and what is after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let tail = text.strip_prefix('[')?;
    let quote = tail.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let mut name = String::new();
    let mut chars = tail.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            c if c == quote => return tail.get(at + 1..)?.strip_prefix(']').map(|after| (name, after)),
            c => name.push(c),
        }
    }
    None
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn find(path: &str, document: &Value) -> Result<Answer, String> {
        JsonPath::parse(path)?.answer(document)
    }

    #[test]
    fn finds() {
        let document = json!({"a": {"b.c": [1, 2.5, {"d": "0.25"}]}, "ok": true, "not": false, "none": null, "word": "good",
            "list": [{"v": 1}, {"v": null}, {"v": 3}, {}], "ü": 7});
        for (path, wanted) in [
            ("$.a['b.c'][1]", Answer::Value(2.5)),
            (r#"$["a"]["b.c"][-1].d"#, Answer::Value(0.25)),
            ("$.ok", Answer::Value(1.0)),
            ("$.not", Answer::Value(0.0)),
            ("$.word", Answer::Text("good".into())),
            ("$.none", Answer::Empty),
            ("$.a.missing[3].more", Answer::Empty),
            ("$.a['b.c'][-9]", Answer::Empty),
            ("$.list[*].v", Answer::Several { count: 2, values: vec![1.0, 3.0] }),
            ("$.ü", Answer::Value(7.0)),
            ("$.a.*[0]", Answer::Value(1.0)),
        ] {
            assert_eq!(find(path, &document), Ok(wanted), "{path}");
        }
        assert_eq!(find("$", &json!(4)), Ok(Answer::Value(4.0)));
        assert!(find("$.a", &document).unwrap_err().contains("an object"));
        assert!(matches!(find("$", &json!("x".repeat(5000))), Ok(Answer::Text(text)) if text.len() == LONGEST));
    }

    #[test]
    fn what_is_no_path_is_told_with_its_place() {
        for (path, says) in [
            ("a.b", "begin with $ at character 1"),
            ("$..a", "not supported at character 2"),
            ("$.a[?@.b]", "not supported at character 4"),
            ("$.a.", "no name of letters, digits and _ (quote another: ['…']) at character 5"),
            ("$.a-b", "at character 3"),
            ("$ü.a[x]", "at character 2"),
            ("$[x]", "no index, quoted name or * at character 2"),
            ("$['a", "at character 2"),
            ("$[1", "at character 2"),
        ] {
            let why = JsonPath::parse(path).unwrap_err();
            assert!(why.contains(says), "{path}: {why}");
        }
    }

    proptest! {
        #[test]
        fn reads_anything(path in r#"\$[.\[\]'"*a0\\ü-]{0,12}"#) {
            if let Ok(path) = JsonPath::parse(&path) {
                let _ = path.answer(&json!({"a": [[{"a": 0}]]}));
            }
        }
    }
}
