//! Labels that tell which release and which step brought a pod (contract 5.10).

use std::sync::Arc;

use serde_json::{Value, json};

use super::PodNames;
use crate::api::{
    keys::{ROLLOUT_BATCH_ID, ROLLOUT_ID},
    object::{self, at, pointer_key},
};

/// A pod that is to be labelled, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelling {
    /// The pod as it was read.
    pub pod: Arc<Value>,
    /// JSON patch.
    pub operations: Vec<Value>,
}

/// What is missing on the pods of the new version: `targets` are how many of them each step has asked for so far, the
/// present one included. A pod keeps the batch that it has; a batch that lost a pod gets another; pods beyond the last
/// target stay as they are.
pub fn labels(pods: &[Arc<Value>], names: &PodNames, id: &str, targets: &[i32]) -> Vec<Labelling> {
    let mut reached = 0;
    let mut left: Vec<i32> = targets
        .iter()
        .map(|target| {
            let more = (target - reached).max(0);
            reached = reached.max(*target);
            more
        })
        .collect();
    let mut without = Vec::new();
    for pod in pods.iter().filter(|p| names.contains(object::name(p)) && !object::is_deleting(p)) {
        let batch = (object::label(pod, ROLLOUT_ID) == Some(id))
            .then(|| object::label(pod, ROLLOUT_BATCH_ID)?.parse::<usize>().ok()?.checked_sub(1))
            .flatten();
        match batch.and_then(|batch| left.get_mut(batch)) {
            Some(left) => *left -= 1,
            None => without.push(pod),
        }
    }
    // The latest batch first: its pods are the ones that have just come.
    let mut batches = left.iter().enumerate().rev().flat_map(|(i, n)| std::iter::repeat_n(i + 1, usize_of(*n)));
    without.into_iter().map_while(|pod| Some(label(pod, id, batches.next()?))).collect()
}

fn usize_of(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

fn label(pod: &Arc<Value>, id: &str, batch: usize) -> Labelling {
    let batch = batch.to_string();
    let operations = if at(pod, &["metadata", "labels"]).is_some() {
        let path = |key: &str| format!("/metadata/labels/{}", pointer_key(key));
        vec![
            json!({"op": "add", "path": path(ROLLOUT_ID), "value": id}),
            json!({"op": "add", "path": path(ROLLOUT_BATCH_ID), "value": batch}),
        ]
    } else {
        vec![json!({"op": "add", "path": "/metadata/labels", "value": {ROLLOUT_ID: id, ROLLOUT_BATCH_ID: batch}})]
    };
    Labelling { pod: pod.clone(), operations }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(labels: &[(&str, &str)]) -> Vec<Arc<Value>> {
        let pod = |(i, (id, batch)): (usize, &(&str, &str))| {
            Arc::new(
                json!({"metadata": {"name": format!("web-a-{i}"), "labels": {ROLLOUT_ID: id, ROLLOUT_BATCH_ID: batch}}}),
            )
        };
        labels.iter().enumerate().map(pod).collect()
    }

    /// Batches by pod; 0 is what is not written.
    fn given(labels: &[(&str, &str)], targets: &[i32]) -> Vec<usize> {
        let pods = pods(labels);
        let found = super::labels(&pods, &PodNames::Prefixed("web-a-".into()), "r1", targets);
        pods.iter()
            .map(|pod| {
                let own = found.iter().find(|l| Arc::ptr_eq(&l.pod, pod));
                own.map_or(0, |l| l.operations[1]["value"].as_str().unwrap().parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn each_pod_gets_the_batch_that_brought_it() {
        const NEW: (&str, &str) = ("", "");
        for (labels, targets, wanted) in [
            (&[NEW, NEW][..], &[2][..], vec![1, 1]),
            (&[NEW, NEW, NEW], &[2], vec![1, 1, 0]),
            (&[("r1", "1"), ("r1", "1"), NEW, NEW], &[2, 4], vec![0, 0, 2, 2]),
            // The controller was away: all of it at once, the latest batch first.
            (&[NEW, NEW, NEW, NEW], &[1, 4], vec![2, 2, 2, 1]),
            // A pod of the first batch was replaced.
            (&[("r1", "1"), NEW, ("r1", "2")], &[2, 3], vec![0, 1, 0]),
            // Of another release, of a batch that there is not, of none.
            (&[("r0", "1"), ("r1", "7"), ("r1", "x")], &[3], vec![1, 1, 1]),
            // A step with fewer pods than the one before brings none.
            (&[NEW, NEW, NEW], &[2, 1, 3], vec![3, 1, 1]),
            // Scaled down: one too many of the first batch.
            (&[("r1", "1"), ("r1", "1"), NEW], &[1, 2], vec![0, 0, 2]),
            (&[], &[2], vec![]),
            (&[NEW], &[0], vec![0]),
        ] {
            assert_eq!(given(labels, targets), wanted, "{labels:?} {targets:?}");
        }
    }

    #[test]
    fn only_pods_of_the_new_version_are_labelled() {
        let pod = |name: &str, more: Value| {
            let mut pod = json!({"metadata": {"name": name}});
            json_patch::merge(&mut pod, &more);
            Arc::new(pod)
        };
        let going = json!({"metadata": {"deletionTimestamp": "2026-11-22T06:00:00Z"}});
        let pods = [pod("web-b-1", json!({})), pod("web-a-1", going), pod("web-a-2", json!({}))];
        let found = labels(&pods, &PodNames::Prefixed("web-a-".into()), "r1", &[3]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].operations,
            [json!({"op": "add", "path": "/metadata/labels", "value": {ROLLOUT_ID: "r1", ROLLOUT_BATCH_ID: "1"}})]
        );
    }
}
