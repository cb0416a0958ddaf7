//! Kubernetes Events: what a person should read.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter},
};

use crate::{api::object::ObjectRef, rollout::Event};

/// For so long an Event that comes again is counted in the one that is there; as other recorders do.
const SAME: SignedDuration = SignedDuration::from_mins(6);
/// Events of which it is remembered that they are there.
const MOST: usize = 1024;
/// An event is a courtesy; a release does not wait for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Object, reason and message.
type Told = (String, &'static str, String);

/// Tells people, the same thing once.
#[derive(Default)]
pub(super) struct Events {
    /// What was told lately, and when. A recorder of its own for each: one for all counts events of one reason as
    /// repetitions, whatever they say.
    lately: Mutex<BTreeMap<Told, (Recorder, Timestamp)>>,
}

impl Events {
    /// Publishes what a pass over an object has to tell, at a time of the controller's own clock.
    pub(super) async fn publish(
        &self,
        client: &Client,
        target: &ObjectRef,
        uid: Option<&str>,
        events: Vec<Event>,
        now: Timestamp,
    ) {
        let target = target.clone();
        let about = format!("{}/{}/{}/{}", target.kind, target.namespace, target.name, uid.unwrap_or_default());
        let reference = ObjectReference {
            api_version: Some(target.api_version),
            kind: Some(target.kind),
            namespace: Some(target.namespace),
            name: Some(target.name),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        };
        for event in events {
            if event.is_warning {
                tracing::warn!(reason = event.reason, "{}", event.message);
            } else {
                tracing::info!(reason = event.reason, "{}", event.message);
            }
            let told = (about.clone(), event.reason, event.message);
            let recorder = self.recorder(client, &told, now);
            // The API server cuts nothing off: it refuses notes of more than 1024 bytes.
            let note = told.2.get(..told.2.floor_char_boundary(1000)).map(str::to_owned);
            let event = KubeEvent {
                type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
                reason: event.reason.to_owned(),
                note,
                action: event.reason.to_owned(),
                secondary: None,
            };
            let failed = match tokio::time::timeout(PATIENCE, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} seconds", PATIENCE.as_secs()),
            };
            tracing::debug!(error = failed, "event not published");
            // The one that is there may be gone.
            self.lately.lock().unwrap_or_else(PoisonError::into_inner).remove(&told);
        }
    }

    fn recorder(&self, client: &Client, told: &Told, now: Timestamp) -> Recorder {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.retain(|_, (_, at)| now.duration_since(*at).abs() < SAME);
        if let Some((recorder, at)) = lately.get_mut(told) {
            *at = now;
            return recorder.clone();
        }
        let reporter = Reporter { controller: "tidegate".to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        if lately.len() < MOST {
            lately.insert(told.clone(), (recorder.clone(), now));
        }
        recorder
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::sim::{Cluster, Gvr};

    /// Message and count of each Event.
    fn told(cluster: &Cluster) -> Vec<(String, i64)> {
        let events = cluster.view().list(&Gvr::new("events.k8s.io", "v1", "events"), Some("shop"));
        let count = |e: &Value| e.pointer("/series/count").and_then(Value::as_i64).unwrap_or(1);
        let mut all: Vec<_> = events.iter().map(|e| (e["note"].as_str().unwrap().to_owned(), count(e))).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn what_is_told_again_is_counted() {
        let cluster = Cluster::builder().namespace("shop").build().unwrap();
        let client = cluster.client("tidegate");
        let events = Events::default();
        let target = ObjectRef::new("rollouts.kruise.io/v1beta1", "Rollout", "shop", "web");
        let tell = |message: &str, minute: i64| {
            let event = Event { is_warning: true, reason: "WriteRefused", message: message.to_owned() };
            let at = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
            events.publish(&client, &target, Some("u"), vec![event], at)
        };
        tell("one", 0).await;
        tell("two", 1).await;
        tell("one", 2).await;
        tell("one", 7).await;
        assert_eq!(told(&cluster), [("one".to_owned(), 3), ("two".to_owned(), 1)]);
        let event = cluster.view().list(&Gvr::new("events.k8s.io", "v1", "events"), Some("shop"));
        assert!(event.iter().all(|e| e["reason"] == "WriteRefused" && e["action"] == "WriteRefused"));
        assert_eq!(event[0]["regarding"]["uid"], "u");
        // Long after it is another.
        tell("one", 20).await;
        assert_eq!(told(&cluster), [("one".to_owned(), 1), ("one".to_owned(), 3), ("two".to_owned(), 1)]);
        for i in 0..MOST + 10 {
            events.recorder(&client, &("x".to_owned(), "y", i.to_string()), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(events.lately.lock().unwrap().len(), MOST);
    }
}
