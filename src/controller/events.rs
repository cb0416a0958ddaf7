//! Kubernetes Events: what a person should read.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter},
};

use crate::{api::object::ObjectRef, rollout::Event};

pub(super) async fn publish(client: &Client, target: &ObjectRef, uid: Option<&str>, events: Vec<Event>) {
    let target = target.clone();
    let reference = ObjectReference {
        api_version: Some(target.api_version),
        kind: Some(target.kind),
        namespace: Some(target.namespace),
        name: Some(target.name),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    };
    let reporter = Reporter { controller: "tidegate".to_owned(), instance: None };
    for event in events {
        if event.is_warning {
            tracing::warn!(reason = event.reason, "{}", event.message);
        } else {
            tracing::info!(reason = event.reason, "{}", event.message);
        }
        // The API server cuts nothing off: it refuses notes of more than 1024 bytes.
        let note = event.message.get(..event.message.floor_char_boundary(1000)).map(str::to_owned);
        let event = KubeEvent {
            type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.to_owned(),
            note,
            action: event.reason.to_owned(),
            secondary: None,
        };
        // A recorder of its own for each: one that lives on counts events of one reason as repetitions, whatever they
        // say, and a plan tells nothing twice.
        let recorder = Recorder::new(client.clone(), reporter.clone());
        let publishing = tokio::time::timeout(Duration::from_secs(5), recorder.publish(&event, &reference));
        // An event is a courtesy; a release does not wait for it.
        match publishing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "event not published"),
            Err(_) => tracing::debug!("event not published in time"),
        }
    }
}
