//! Whether a workload of a kind that is not known by name is declared to behave as a StatefulSet. The schema cannot say
//! so, and the Rollout neither: it is a label of the workload.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{DynamicObject, GroupVersionKind},
    discovery,
};
use serde_json::Value;
use tokio::time::timeout;

use super::validate::{Wrong, reference};
use crate::{
    api::object,
    workload::{self, like},
};

/// Without an answer by then, the Rollout itself says what is wrong.
const LIMIT: Duration = Duration::from_secs(3);

/// What is said of the workload that a Rollout names.
#[derive(Debug, Default)]
pub struct Word {
    /// Why the Rollout is refused.
    pub wrong: Option<Wrong>,
    /// What could not be seen.
    pub warning: Option<String>,
}

/// Looks at the workload, if it is of such a kind.
pub async fn look(client: &Client, namespace: &str, rollout: &Value) -> Word {
    let Some((field, value)) = reference(rollout) else { return Word::default() };
    let text = |key: &str| object::text(value, &[key]);
    let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if !workload::kind(group, kind).is_some_and(|row| *row == like::KIND) {
        return Word::default();
    }
    let wrong = |problem: String| Word {
        wrong: Some(Wrong { field: field.to_owned(), value: value.clone(), problem }),
        warning: None,
    };
    let warning = |text: String| Word { wrong: None, warning: Some(format!("{field}: {text}")) };
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let work = async {
        let (resource, _) = discovery::pinned_kind(client, &gvk).await?;
        Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource).get_opt(name).await
    };
    match timeout(LIMIT, work).await {
        Ok(Ok(Some(found))) => {
            let found = serde_json::to_value(found).unwrap_or_default();
            if like::is_declared(&found) {
                return Word::default();
            }
            wrong(format!("this kind of workload is not known: {}; or choose {}", like::remedy(), workload::known()))
        }
        Ok(Ok(None)) => warning(format!("{kind} {name} is not there yet; when it is, {}", like::remedy())),
        Ok(Err(kube::Error::Discovery(_))) => not_served(wrong, api_version, kind),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => not_served(wrong, api_version, kind),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => warning(format!(
            "the controller may not read {kind} {name}; grant it: `tidegate rbac --for {group}/{kind}`"
        )),
        Ok(Err(error)) => {
            tracing::debug!(kind, %error, "the workload was not looked at");
            Word::default()
        }
        Err(_) => Word::default(),
    }
}

fn not_served(wrong: impl Fn(String) -> Word, api_version: &str, kind: &str) -> Word {
    wrong(format!("the API server does not serve {api_version} {kind}: choose {}", workload::known()))
}
