//! One pod as it is kept: compressed, and parsed while its release is being worked on.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::selection::Labels;
use crate::{
    api::{
        keys,
        object::{self, at},
    },
    gather::{cache::version, shelf::Form},
};

/// A pod, without what no decision reads. Parsed it takes 7 KB, at rest a tenth.
pub(super) struct Kept {
    version: u64,
    uid: Box<str>,
    /// As JSON: whose it is, is asked of all pods of a namespace whenever a release begins.
    labels: Box<str>,
    form: Form,
    open: Option<Arc<Value>>,
}

impl Kept {
    /// Of a pod that is [`stripped`].
    pub fn of(pod: Value) -> Kept {
        let labels = at(&pod, &["metadata", "labels"]).map(Value::to_string).unwrap_or_default().into();
        let pod = Arc::new(pod);
        Kept { version: version(&pod), uid: object::uid(&pod).into(), labels, form: Form::of(&pod), open: None }
    }

    pub fn labels(&self) -> Labels {
        serde_json::from_str(&self.labels).unwrap_or_default()
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is(&self, uid: &str) -> bool {
        *self.uid == *uid
    }

    /// Whether a decision would read the same of another state of it.
    pub fn is_same(&self, pod: &Value) -> bool {
        self.look().is_some_and(|known| is_same(&known, pod))
    }

    pub fn look(&self) -> Option<Arc<Value>> {
        self.open.clone().or_else(|| self.form.parse())
    }

    /// Parsed from now on.
    pub fn open(&mut self) -> Option<Arc<Value>> {
        self.open = self.look();
        self.open.clone()
    }

    pub fn close(&mut self) {
        self.open = None;
    }
}

/// What tells how a pod is.
const STATUS: [&str; 6] = ["phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses"];

/// What decisions read of a pod: who it is and how it is, not what it is made of.
pub(crate) fn stripped(pod: &Value) -> Value {
    let part = |path: &[&str], keys: &[&str]| {
        let fields = at(pod, path).and_then(Value::as_object).into_iter().flatten();
        let kept = fields.filter(|(key, _)| keys.contains(&key.as_str()));
        Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    };
    let metadata = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "labels",
        "ownerReferences",
        "creationTimestamp",
        "deletionTimestamp",
    ];
    let mut kept = part(&["metadata"], &metadata);
    let annotations = part(&["metadata", "annotations"], &[keys::DELETION_COST]);
    if let Some(kept) = kept.as_object_mut().filter(|_| annotations.as_object().is_some_and(|a| !a.is_empty())) {
        kept.insert("annotations".to_owned(), annotations);
    }
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": kept,
        "spec": part(&["spec"], &["nodeName"]),
        "status": part(&["status"], &[&STATUS[..], &["podIP"]].concat()),
    })
}

fn is_same(a: &Value, b: &Value) -> bool {
    let parts: [&[&str]; 4] =
        [&["metadata", "uid"], &["metadata", "labels"], &["metadata", "deletionTimestamp"], &["spec"]];
    parts.iter().all(|path| at(a, path) == at(b, path))
        && STATUS.iter().all(|field| at(a, &["status", field]) == at(b, &["status", field]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_of_a_pod_what_tells_its_state() {
        let pod = json!({"metadata": {"name": "a", "annotations": {"x": "y"}, "labels": {"l": "1"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]}, "status": {"phase": "Running", "podIP": "1.2.3.4"}});
        let kept = stripped(&pod);
        assert_eq!(kept["metadata"], json!({"name": "a", "labels": {"l": "1"}}));
        let status = json!({"phase": "Running", "podIP": "1.2.3.4"});
        assert_eq!((&kept["spec"], &kept["status"]), (&json!({"nodeName": "n"}), &status));
        let mut moved = pod.clone();
        moved["status"]["podIP"] = json!("1.2.3.5");
        assert!(is_same(&kept, &stripped(&moved)));
        moved["status"]["phase"] = json!("Failed");
        assert!(!is_same(&kept, &stripped(&moved)));
    }

    #[test]
    fn a_pod_comes_back_as_it_was() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {}, "status": {"phase": "Running"}});
        let mut kept = Kept::of(pod.clone());
        assert!(kept.open.is_none() && kept.version() == 7 && kept.is("u") && kept.is_same(&pod));
        assert_eq!(kept.open().as_deref(), Some(&pod));
        assert!(kept.open.is_some());
        kept.close();
        assert_eq!(kept.look().as_deref(), Some(&pod));
        assert!(kept.open.is_none());
    }
}
