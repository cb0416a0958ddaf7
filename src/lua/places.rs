//! Places inside a JSON value: how errors name them, and what the original has in the same place.

use serde_json::Value;

/// One step down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'p> {
    Key(&'p str),
    /// From 0.
    Index(usize),
}

/// A place in the value being read, linked to the one above.
#[derive(Clone, Copy)]
pub(super) struct Place<'p, 'a> {
    pub up: Option<&'p Place<'p, 'a>>,
    /// None at the root.
    pub step: Option<Step<'p>>,
    /// Address of the table here.
    pub address: usize,
    /// The node of the input that the table here was made from.
    pub node: Option<&'a Value>,
}

impl<'p, 'a> Place<'p, 'a> {
    /// This place and those above it, up to the root.
    pub fn upwards(&'p self) -> impl Iterator<Item = &'p Place<'p, 'a>> {
        std::iter::successors(Some(self), |place| place.up)
    }
}

/// The path as people write it: `spec.http[0].route`.
pub(super) fn path<'s>(steps: impl IntoIterator<Item = Step<'s>>) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Index(i) => text.push_str(&format!("[{i}]")),
            Step::Key(key) => {
                let simple =
                    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if !simple {
                    text.push_str(&format!("[{key:?}]"));
                } else {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(key);
                }
            }
        }
    }
    if text.is_empty() { "the top".to_owned() } else { text }
}

/// Original nodes looked at in the search for a shape; beyond that many siblings nothing new is learned.
const SIBLINGS: usize = 1000;

/// The first list or map found by going down these steps, taking every item of a list for any index.
pub(super) fn sibling_shape<'a>(root: &'a Value, steps: &[Step<'_>]) -> Option<&'a Value> {
    let mut nodes = vec![root];
    for step in steps {
        nodes = match step {
            Step::Key(key) => nodes.into_iter().filter_map(|n| n.get(key)).collect(),
            Step::Index(_) => nodes.into_iter().filter_map(Value::as_array).flatten().take(SIBLINGS).collect(),
        };
    }
    nodes.into_iter().find(|n| n.is_array() || n.is_object())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_read_as_people_write_them() {
        let steps = [Step::Key("spec"), Step::Key("http"), Step::Index(1), Step::Key("a.b/c"), Step::Key("x")];
        assert_eq!(path(steps), "spec.http[1][\"a.b/c\"].x");
        assert_eq!(path([]), "the top");
    }

    #[test]
    fn any_sibling_tells_the_shape() {
        let root = json!({"http": [{"headers": null}, {"headers": {"a": []}}]});
        let steps = [Step::Key("http"), Step::Index(7), Step::Key("headers")];
        assert_eq!(sibling_shape(&root, &steps), Some(&json!({"a": []})));
        assert_eq!(sibling_shape(&root, &[Step::Key("tcp")]), None);
    }
}
