//! Requests to servers of the user's: a decision says what is to be sent, and reads in a later snapshot what came back.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::Serialize;

/// A request, or several of the same kind. Two with the same id and moment are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// The idempotency key: the receiver sees the same one whenever the same is sent again.
    pub id: String,
    /// Not before; and an answer from before is none to this request.
    pub due: Timestamp,
    /// Who is called, for messages.
    pub to: String,
    /// Where it is sent to; absent: what the Secret says.
    pub url: Option<String>,
    /// What is sent.
    pub body: Body,
    /// Headers that are no secret.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Seconds in which the answer has to be there.
    pub timeout: i64,
    /// Login and signature.
    pub secret: Option<Keys>,
    /// Namespace and name of a ConfigMap with `ca.crt`.
    pub trust: Option<(String, String)>,
    /// What it is for.
    pub kind: Kind,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// One POST request: content type and body.
    Post(&'static str, String),
    /// So many GET requests, each by a connection of its own.
    Probe {
        /// How many.
        count: u32,
    },
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The author of a Rollout wants a server of his to have a say.
    Hook,
    /// The administrator wants people to know.
    Notification,
    /// The author of a Rollout wants to know that his gateway routes as it says.
    Proof,
}

impl Kind {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Hook => "hook",
            Kind::Notification => "notification",
            Kind::Proof => "proof",
        }
    }
}

/// Where the secret parts of a request are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its keys begin with, if they are of several receivers.
    pub prefix: String,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// When it was sent.
    pub at: Timestamp,
    /// What came back.
    pub outcome: Outcome,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// An answer of the server.
    Answered {
        /// HTTP status.
        status: u16,
        /// The body, as text.
        body: String,
        /// Seconds of the header `Retry-After`.
        retry_after: Option<i64>,
    },
    /// Answers to probes: how many of each status.
    Probed(BTreeMap<u16, u32>),
    /// Nobody answered in time. It may pass.
    Unavailable(String),
    /// It cannot be sent so: a missing Secret, an address that is not allowed, a certificate. A person must mend it.
    Mistake(String),
}

/// Seconds to wait after so many tries: 1, 2, 4, … up to a longest time.
pub fn backoff(tries: i32, longest: i64) -> i64 {
    (1_i64 << tries.saturating_sub(1).clamp(0, 20)).min(longest.max(1))
}

/// As much of what a server says as a message bears, on one line.
pub fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match line.get(..line.floor_char_boundary(LONGEST)) {
        Some(part) if part.len() < line.len() => format!("{part}…"),
        _ => line,
    }
}
