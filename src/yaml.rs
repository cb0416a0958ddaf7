//! The one door for YAML.
//!
//! Reading follows YAML 1.1 where kubectl does (`on` is a boolean, `0644` is octal, merge keys work) and refuses
//! duplicate keys. Writing quotes every string that a YAML 1.1 reader would take for something else.

use serde::{Serialize, de::DeserializeOwned};

/// Why a text is not the YAML that was expected; says line and column.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn options() -> serde_saphyr::Options {
    let mut options = serde_saphyr::Options::default();
    options.legacy_octal_numbers = true;
    // A gateway object with 500 routes exceeds the default node budget.
    if let Some(budget) = options.budget.as_mut() {
        budget.max_nodes = 5_000_000;
        budget.max_events = 20_000_000;
        budget.max_total_scalar_bytes = 256 << 20;
    }
    options
}

/// Reads one document.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|e| Error(e.to_string()))
}

/// Reads a stream of documents; empty ones are skipped.
pub fn from_str_multi(text: &str) -> Result<Vec<serde_json::Value>, Error> {
    let docs: Vec<serde_json::Value> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|e| Error(e.to_string()))?;
    Ok(docs.into_iter().filter(|d| !d.is_null()).collect())
}

/// Writes one document, ending in a newline.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, Error> {
    // Through a JSON value: keys come out sorted, as kubectl prints them, and absent fields stay absent.
    let value = serde_json::to_value(value).map_err(|e| Error(e.to_string()))?;
    let mut text = serde_saphyr::to_string(&value).map_err(|e| Error(e.to_string()))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn reads_as_kubectl_does() {
        let v: Value = from_str("a: on\nb: 0644\nc: 'on'\nd: [1, 2.5, ~]\n").unwrap();
        assert_eq!(v, json!({"a": true, "b": 420, "c": "on", "d": [1, 2.5, null]}));
    }

    #[test]
    fn refuses_duplicate_keys() {
        assert!(from_str::<Value>("a: 1\na: 2\n").is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let v = json!({"a": "on", "b": "0644", "c": [], "d": {}, "e": null, "f": "12:30", "g": "line\nline\n", "h": "2026-11-21", "i": "1e3", "j": ""});
        assert_eq!(from_str::<Value>(&to_string(&v).unwrap()).unwrap(), v);
    }

    #[test]
    fn streams_skip_empty_documents() {
        assert_eq!(from_str_multi("---\na: 1\n---\n---\nb: 2\n").unwrap().len(), 2);
    }
}
