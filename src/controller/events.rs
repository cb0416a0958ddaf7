//! Kubernetes Events: what a person should read.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event as KubeEvent, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    api::object::{ObjectRef, digest},
    rollout::Event,
};

/// For so long an Event that comes again is counted in the one that is there; as other recorders do.
const SAME: SignedDuration = SignedDuration::from_mins(6);
/// Events of which it is remembered that they are there.
const MOST: usize = 1024;
/// An event is a courtesy; a release does not wait for it.
const PATIENCE: Duration = Duration::from_secs(5);
const REPORTER: &str = "tidegate";

/// An Event that is there.
#[derive(Clone)]
struct Told {
    name: String,
    /// How often the same was told.
    count: i32,
    at: Timestamp,
}

/// Tells people, the same thing once.
#[derive(Default)]
pub(super) struct Events {
    /// What was told lately, by a digest of object, reason and message.
    lately: Mutex<BTreeMap<String, Told>>,
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
        for (after, event) in (0..).zip(events) {
            // In the order in which they were told.
            let now = now.checked_add(SignedDuration::from_micros(after)).unwrap_or(now);
            if event.is_warning {
                tracing::warn!(reason = event.reason, "{}", event.message);
            } else {
                tracing::info!(reason = event.reason, "{}", event.message);
            }
            let what = digest(&json!([target.kind, target.namespace, target.name, uid, event.reason, event.message]));
            let failed = match tokio::time::timeout(PATIENCE, self.tell(client, target, uid, &event, &what, now)).await
            {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} seconds", PATIENCE.as_secs()),
            };
            tracing::debug!(error = failed, "event not published");
            // The one that is there may be gone.
            self.lock().remove(&what);
        }
    }

    async fn tell(
        &self,
        client: &Client,
        target: &ObjectRef,
        uid: Option<&str>,
        event: &Event,
        what: &str,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let namespace = Some(target.namespace.as_str()).filter(|n| !n.is_empty()).unwrap_or("default");
        let events: Api<KubeEvent> = Api::namespaced(client.clone(), namespace);
        match self.told(what, now) {
            Some(told) => {
                let series = EventSeries { count: told.count, last_observed_time: MicroTime(now) };
                let patch = Patch::Merge(json!({"series": series}));
                events.patch(&told.name, &PatchParams::default(), &patch).await?;
            }
            None => {
                let name = format!("{}.{}", target.name, digest(&json!([what, now])));
                events.create(&PostParams::default(), &made(&name, target, uid, event, now)).await?;
                self.remember(what, Told { name, count: 1, at: now });
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Event that says the same already, counted once more.
    fn told(&self, what: &str, now: Timestamp) -> Option<Told> {
        let mut lately = self.lock();
        lately.retain(|_, told| now.duration_since(told.at).abs() < SAME);
        let told = lately.get_mut(what)?;
        (told.count, told.at) = (told.count.saturating_add(1), now);
        Some(told.clone())
    }

    fn remember(&self, what: &str, told: Told) {
        let mut lately = self.lock();
        if lately.len() < MOST {
            lately.insert(what.to_owned(), told);
        }
    }
}

fn made(name: &str, target: &ObjectRef, uid: Option<&str>, event: &Event, now: Timestamp) -> KubeEvent {
    let metadata =
        ObjectMeta { namespace: Some(target.namespace.clone()), name: Some(name.to_owned()), ..ObjectMeta::default() };
    KubeEvent {
        metadata,
        action: Some(event.reason.to_owned()),
        reason: Some(event.reason.to_owned()),
        event_time: Some(MicroTime(now)),
        // The API server cuts nothing off: it refuses notes of more than 1024 bytes.
        note: event.message.get(..event.message.floor_char_boundary(1000)).map(str::to_owned),
        regarding: Some(ObjectReference {
            api_version: Some(target.api_version.clone()),
            kind: Some(target.kind.clone()),
            namespace: Some(target.namespace.clone()),
            name: Some(target.name.clone()),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(REPORTER.to_owned()),
        type_: Some(if event.is_warning { "Warning" } else { "Normal" }.to_owned()),
        ..KubeEvent::default()
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
            let told = Told { name: "x".to_owned(), count: 1, at: Timestamp::UNIX_EPOCH };
            events.remember(&i.to_string(), told);
        }
        assert_eq!(events.lately.lock().unwrap().len(), MOST);
    }
}
