//! Whom to wake when a release that was in flight has ended, or one ahead has left the line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::queue::Key;
use crate::rollout::line::{Standing, standing};

/// Where the releases stand, as far as somebody may wait for them.
#[derive(Debug, Default)]
pub(super) struct LineWatch {
    known: BTreeMap<Key, Standing>,
}

impl LineWatch {
    /// Learns of a Rollout, or that it is gone. Returns those that wait, if that may matter to them.
    pub fn note(&mut self, key: &Key, rollout: Option<&Value>) -> Vec<Key> {
        let now = rollout.and_then(standing);
        let before = match now {
            Some(now) => self.known.insert(key.clone(), now),
            None => self.known.remove(key),
        };
        if before == now || before.is_none() {
            return Vec::new();
        }
        let waiting = self.known.iter().filter(|(_, standing)| matches!(standing, Standing::Waiting(_)));
        waiting.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout(slot: Value) -> Value {
        json!({"status": {"slot": slot}})
    }

    #[test]
    fn those_that_wait_are_woken_when_one_ends() {
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let since = "2026-11-22T06:20:00.000001Z";
        let (taken, waits) = (rollout(json!({"since": since, "isTaken": true})), rollout(json!({"since": since})));
        let mut line = LineWatch::default();
        assert_eq!(line.note(&key("a"), Some(&taken)), []);
        assert_eq!(line.note(&key("b"), Some(&waits)), []);
        assert_eq!(line.note(&key("a"), Some(&taken)), [], "nothing happened");
        assert_eq!(line.note(&key("a"), Some(&json!({"status": {"phase": "Healthy"}}))), [key("b")]);
        assert_eq!(line.note(&key("a"), Some(&waits)), []);
        assert_eq!(line.note(&key("a"), None), [key("b")], "it left the line");
    }
}
