//! Values put into a PromQL query. A value never becomes syntax: between quotes it becomes a part of that text, elsewhere
//! a quoted text of its own.

use std::collections::BTreeMap;

/// A value of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Any text; quoted.
    Text(String),
    /// A number or a duration of ours; as it is.
    Bare(String),
    /// A regular expression of ours; only where one is matched.
    Pattern(String),
}

impl Value {
    pub(super) fn text(&self) -> &str {
        match self {
            Value::Text(text) | Value::Bare(text) | Value::Pattern(text) => text,
        }
    }
}

/// Values by name.
pub type Values = BTreeMap<String, Value>;

/// Where in a query a character is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Code,
    Comment,
    Text { quote: char, is_pattern: bool },
}

/// Puts values in.
///
/// # Errors
/// When a value is not known, or cannot stand where it is wanted.
pub fn render(query: &str, values: &Values) -> Result<String, String> {
    let mut out = String::with_capacity(query.len());
    let mut place = Place::Code;
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("{{") {
            let (name, after) = placeholder(tail)?;
            let value = values.get(name).ok_or_else(|| unknown(name, values))?;
            put(&mut out, place, name, value)?;
            rest = after;
            continue;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        place = match (place, c) {
            (Place::Code, '"' | '\'' | '`') => Place::Text { quote: c, is_pattern: matches(&out) },
            (Place::Code, '#') => Place::Comment,
            (Place::Comment, '\n') => Place::Code,
            (Place::Text { quote, .. }, c) if c == quote => Place::Code,
            (Place::Text { quote, .. }, '\\') if quote != '`' => {
                out.push(c);
                // Whatever is escaped is no end of the text.
                let Some(escaped) = rest.chars().next() else { break };
                rest = rest.get(escaped.len_utf8()..).unwrap_or_default();
                out.push(escaped);
                continue;
            }
            (place, _) => place,
        };
        out.push(c);
    }
    Ok(out)
}

/// Puts values into a text that is no query, such as the value of an argument.
///
/// # Errors
/// When a value is not known.
pub fn fill(text: &str, values: &Values) -> Result<String, String> {
    fill_with(text, values, |_, value| Ok(value.text().to_owned()))
}

/// Puts values into a text, each as `put` writes it by its name.
///
/// # Errors
/// When a value is not known, or `put` refuses it.
pub fn fill_with(
    text: &str,
    values: &Values,
    put: impl Fn(&str, &Value) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, after) = placeholder(tail)?;
        out.push_str(&put(name, values.get(name).ok_or_else(|| unknown(name, values))?)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The names of the values that a text wants, as far as it can be read.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = placeholder(rest.split_once("{{")?.1).ok()?;
        rest = after;
        Some(name)
    })
}

/// The name before `}}`, and what is after it.
fn placeholder(tail: &str) -> Result<(&str, &str), String> {
    let (name, after) = tail.split_once("}}").ok_or("`{{` is not closed by `}}`")?;
    Ok((name.trim(), after))
}

fn unknown(name: &str, values: &Values) -> String {
    let known: Vec<&str> = values.keys().map(String::as_str).collect();
    format!("`{{{{ {name} }}}}` is no known value; known are {}", known.join(", "))
}

/// Whether what follows is matched as a regular expression.
fn matches(before: &str) -> bool {
    let before = before.trim_end();
    before.ends_with("=~") || before.ends_with("!~")
}

fn put(out: &mut String, place: Place, name: &str, value: &Value) -> Result<(), String> {
    let is_pattern = match place {
        Place::Code => matches(out),
        Place::Comment => false,
        Place::Text { is_pattern, .. } => is_pattern,
    };
    let text = match value {
        Value::Pattern(pattern) if is_pattern => format!("({pattern})"),
        Value::Pattern(_) => return Err(format!("{name} is a regular expression; use it after =~ or !~")),
        Value::Text(text) if is_pattern => literal(text),
        Value::Text(text) | Value::Bare(text) => text.clone(),
    };
    match (place, value) {
        (Place::Code, Value::Bare(text)) => out.push_str(text),
        (Place::Code | Place::Comment, _) => {
            out.push('"');
            escape(out, &text);
            out.push('"');
        }
        (Place::Text { quote: '`', .. }, _) => {
            if text.contains('`') || text.contains(char::is_control) {
                return Err(format!("the value of {name} cannot stand between backquotes; use double quotes"));
            }
            out.push_str(&text);
        }
        (Place::Text { .. }, _) => escape(out, &text),
    }
    Ok(())
}

/// For a text between double or single quotes.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' | '"' | '\'' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// A regular expression that matches this text only.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(of: &[(&str, Value)]) -> Values {
        of.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn values_by_place() {
        let known = values(&[
            ("workload", text("web.v1")),
            ("evil", text("a\"} or vector(1) #`\\\n")),
            ("interval", Value::Bare("30s".into())),
            ("step", Value::Bare("2".into())),
            ("pods", Value::Pattern("web-1-[^-]+".into())),
        ]);
        for (query, wanted) in [
            (r"up{app={{ workload }}}", r#"up{app="web.v1"}"#),
            (r#"up{app="{{workload}}"}"#, r#"up{app="web.v1"}"#),
            (r#"up{app="x-{{ workload }}-y"}"#, r#"up{app="x-web.v1-y"}"#),
            (r#"up{app=~"{{ workload }}-.*"}"#, r#"up{app=~"web\\.v1-.*"}"#),
            (r"up{app!~ {{ workload }}}", r#"up{app!~ "web\\.v1"}"#),
            (r"up{app=~`{{ workload }}-.*`}", r"up{app=~`web\.v1-.*`}"),
            (r#"up{pod=~"{{ pods }}"}"#, r#"up{pod=~"(web-1-[^-]+)"}"#),
            (r"up{pod!~{{ pods }}}", r#"up{pod!~"(web-1-[^-]+)"}"#),
            (r"rate(x[{{ interval }}])", r"rate(x[30s])"),
            (r#"x{step="{{ step }}"} * {{ step }}"#, r#"x{step="2"} * 2"#),
            (r#"up{a="\"{{ workload }}"}"#, r#"up{a="\"web.v1"}"#),
            (r"up{app={{ evil }}}", r#"up{app="a\"} or vector(1) #`\\\n"}"#),
            (r"up{app='{{ evil }}'}", r#"up{app='a\"} or vector(1) #`\\\n'}"#),
            ("up # \"{{ workload }}\n > 0", "up # \"\"web.v1\"\n > 0"),
        ] {
            assert_eq!(render(query, &known).as_deref(), Ok(wanted), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_put_in() {
        let known = values(&[("evil", text("`"))]);
        assert!(render("up{a=`{{ evil }}`}", &known).unwrap_err().contains("backquotes"));
        let pods = values(&[("pods", Value::Pattern("x".into()))]);
        assert!(render("up{pod={{ pods }}}", &pods).unwrap_err().contains("regular expression"));
        assert!(render("up{a={{ workload }}}", &known).unwrap_err().contains("known are evil"));
        assert!(render("up{a={{ evil", &known).unwrap_err().contains("not closed"));
        assert!(fill("{{ nothing }}", &known).is_err());
        assert_eq!(fill("x{{ evil }}y", &known).as_deref(), Ok("x`y"));
    }

    /// PromQL as far as texts go: everything that is no text, and the texts by what they say.
    fn tokens(query: &str) -> Option<(String, Vec<String>)> {
        let (mut code, mut texts) = (String::new(), Vec::new());
        let mut chars = query.chars();
        while let Some(c) = chars.next() {
            if !matches!(c, '"' | '\'' | '`') {
                code.push(c);
                continue;
            }
            let mut said = String::new();
            loop {
                match chars.next()? {
                    end if end == c => break,
                    '\\' if c != '`' => match chars.next()? {
                        'n' => said.push('\n'),
                        'u' => {
                            let hex: String = chars.by_ref().take(4).collect();
                            said.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
                        }
                        other @ ('\\' | '"' | '\'') => said.push(other),
                        _ => return None,
                    },
                    other => said.push(other),
                }
            }
            code.push('·');
            texts.push(said);
        }
        Some((code, texts))
    }

    proptest! {
        #[test]
        fn nothing_can_be_injected(value in "\\PC{0,12}|[\"'`\\\\{}#\\n\\t=~|]{0,12}") {
            let known = values(&[("v", text(&value))]);
            for (query, says, is_pattern) in [
                ("a{b={{ v }}} > 1", value.clone(), false),
                ("a{b=\"x{{ v }}y\"} > 1", format!("x{value}y"), false),
                ("a{b='x{{ v }}y'} > 1", format!("x{value}y"), false),
                ("a{b=`{{ v }}`} > 1", value.clone(), false),
                ("a{b=~\"{{ v }}\"} > 1", value.clone(), true),
                ("a{b!~{{ v }}} > 1", value.clone(), true),
            ] {
                let Ok(found) = render(query, &known) else {
                    prop_assert!(query.contains('`'), "{query}");
                    continue;
                };
                let (code, texts) = tokens(&found).expect("it can be read");
                let operator = query.get(3..5).unwrap().trim_end_matches(['"', '\'', '`', '{']);
                prop_assert_eq!(code, format!("a{{b{operator}·}} > 1"), "{}", found);
                prop_assert_eq!(texts.len(), 1);
                if is_pattern {
                    let pattern = regex::Regex::new(&format!("^(?s:{})$", texts[0])).expect("it is a pattern");
                    prop_assert!(pattern.is_match(&says), "{}", found);
                } else {
                    prop_assert_eq!(&texts[0], &says, "{}", found);
                }
            }
        }

        #[test]
        fn any_query_is_taken_or_refused(query in "\\PC{0,40}|[\"'`\\\\{} a=~]{0,40}") {
            let known = values(&[("a", text("b"))]);
            if let Ok(found) = render(&query, &known) && !query.contains("{{") {
                // A text that ends in an escape sign keeps it.
                prop_assert!(found == query || query.ends_with('\\'));
            }
            let _ = fill(&query, &known);
        }
    }
}
