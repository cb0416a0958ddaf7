//! A piece of news in the words of each kind of receiver, and what the receiver's answer means.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::notifications::{Mode, News, Receiver, ReceiverType},
    rollout::calls::{Outcome, short},
};

/// What is known of the release that the news is of.
pub struct About {
    /// Its namespace.
    pub namespace: String,
    /// Name of the Rollout.
    pub rollout: String,
    /// Everything, as the generic webhook and CloudEvents have it.
    pub data: Value,
    /// Id of this piece of news.
    pub id: String,
    /// The text, by the receiver's template.
    pub text: String,
}

/// A request, without what is common to all.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// Absent: what the Secret says.
    pub url: Option<String>,
    /// Content type and body.
    pub body: (&'static str, String),
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
}

const JSON: &str = "application/json";
const SLACK: &str = "https://slack.com/api";

/// Writes the news for a receiver; `reference` is its message about this release, if there is one.
pub fn write(receiver: &Receiver, news: &News, about: &About, reference: &str) -> Message {
    let plain =
        |value: Value| Message { url: receiver.url.clone(), body: (JSON, value.to_string()), headers: Vec::new() };
    match receiver.r#type {
        ReceiverType::Slack => slack(receiver, about, reference),
        // https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors: an adaptive card in a message.
        ReceiverType::Teams => plain(json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.2",
                    "body": [{"type": "TextBlock", "text": about.text, "wrap": true}],
                },
            }],
        })),
        ReceiverType::Webhook => plain(about.data.clone()),
        ReceiverType::CloudEvents => cloud_event(receiver, news, about),
    }
}

/// By an incoming webhook, or by `chat.postMessage` and `chat.update`.
fn slack(receiver: &Receiver, about: &About, reference: &str) -> Message {
    // The three characters that mean something there.
    let text = about.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let Some(channel) = &receiver.channel else {
        let body = (JSON, json!({"text": text}).to_string());
        return Message { url: receiver.url.clone(), body, headers: Vec::new() };
    };
    let base = receiver.url.as_deref().unwrap_or(SLACK).trim_end_matches('/');
    let known = reference.split_once('/').filter(|_| receiver.update != Some(false));
    let (method, body) = match known {
        Some((channel, ts)) => ("chat.update", json!({"channel": channel, "ts": ts, "text": text})),
        None => ("chat.postMessage", json!({"channel": channel, "text": text})),
    };
    let body = ("application/json; charset=utf-8", body.to_string());
    Message { url: Some(format!("{base}/{method}")), body, headers: Vec::new() }
}

/// CloudEvents 1.0, HTTP protocol binding.
fn cloud_event(receiver: &Receiver, news: &News, about: &About) -> Message {
    let source = format!("/apis/rollouts.kruise.io/v1beta1/namespaces/{}/rollouts/{}", about.namespace, about.rollout);
    let attributes = [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", about.id.clone()),
        ("ce-source", source),
        ("ce-type", format!("io.kruise.rollouts.{}.v1", news.event.as_str())),
        ("ce-time", news.time.as_ref().map(|t| t.0.to_string()).unwrap_or_default()),
    ];
    if receiver.mode == Some(Mode::Binary) {
        let body = (JSON, about.data.to_string());
        return Message { url: receiver.url.clone(), body, headers: attributes.to_vec() };
    }
    let mut event = json!({"datacontenttype": JSON, "data": about.data});
    if let Some(map) = event.as_object_mut() {
        map.extend(attributes.map(|(name, value)| (name.trim_start_matches("ce-").to_owned(), value.into())));
    }
    let body = ("application/cloudevents+json; charset=utf-8", event.to_string());
    Message { url: receiver.url.clone(), body, headers: Vec::new() }
}

/// Slack's message cannot be updated any more: another one is posted.
pub fn is_gone(why: &str) -> bool {
    ["message_not_found", "cant_update_message", "edit_window_closed"].contains(&why)
}

/// What a receiver's answer means: what to refer to the message by, or why it was not taken, and seconds after which to try
/// again.
///
/// # Errors
/// When it was not taken.
pub fn taken(receiver: &Receiver, outcome: &Outcome) -> Result<Option<String>, (String, Option<i64>)> {
    let (status, body, retry_after) = match outcome {
        Outcome::Answered { status, body, retry_after } => (*status, body, *retry_after),
        Outcome::Unavailable(why) | Outcome::Mistake(why) => return Err((why.clone(), None)),
        Outcome::Probed(_) => return Err(("it was probed, not told".to_owned(), None)),
    };
    if !(200..300).contains(&status) {
        return Err((format!("{status} {}", short(body)), retry_after));
    }
    if receiver.channel.is_none() {
        return Ok(None);
    }
    // Slack's Web API says in the body what went wrong.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Said {
        ok: bool,
        error: String,
        channel: String,
        ts: String,
    }
    let said: Said = serde_json::from_str(body).unwrap_or_default();
    if !said.ok {
        let why = if said.error.is_empty() { "the answer is none of Slack's" } else { &said.error };
        return Err((short(why), retry_after));
    }
    Ok((!said.ts.is_empty()).then(|| format!("{}/{}", said.channel, said.ts)))
}
