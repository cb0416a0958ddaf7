//! Error bodies, in the API server's words.

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails, StatusSummary};

use super::registry::Kind;

/// Adds details to a boxed status.
trait With {
    fn with(self, details: StatusDetails) -> Self;
}

impl With for Box<Status> {
    fn with(mut self, details: StatusDetails) -> Self {
        self.details = Some(details);
        self
    }
}

fn details(kind: &Kind, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: kind.group.clone(),
        kind: kind.plural.clone(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

/// A failure with a code and a reason.
pub(crate) fn failure(code: u16, reason: &str, message: impl Into<String>) -> Box<Status> {
    Box::new(Status {
        status: Some(StatusSummary::Failure),
        code,
        message: message.into(),
        metadata: None,
        reason: reason.to_owned(),
        details: None,
    })
}

pub(crate) fn not_found(kind: &Kind, name: &str) -> Box<Status> {
    failure(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).with(details(kind, name))
}

pub(crate) fn already_exists(kind: &Kind, name: &str) -> Box<Status> {
    failure(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.qualified())).with(details(kind, name))
}

pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Box<Status> {
    failure(409, "Conflict", format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified()))
        .with(details(kind, name))
}

/// The optimistic lock failed.
pub(crate) fn modified(kind: &Kind, name: &str) -> Box<Status> {
    conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")
}

/// One or several fields are invalid; each is (field, reason such as `FieldValueInvalid`, message).
pub(crate) fn invalid(kind: &Kind, name: &str, errors: Vec<FieldError>) -> Box<Status> {
    let lines: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
    let text = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let mut body = details(kind, name);
    body.kind = kind.kind.clone();
    body.causes = errors
        .into_iter()
        .map(|e| StatusCause { reason: e.reason.to_owned(), message: e.message, field: e.field })
        .collect();
    let what = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
    failure(422, "Invalid", format!("{what} \"{name}\" is invalid: {text}")).with(body)
}

/// What is wrong with one field.
#[derive(Debug, Clone)]
pub(crate) struct FieldError {
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

impl FieldError {
    pub fn invalid(field: impl Into<String>, value: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self { field: field.into(), reason: "FieldValueInvalid", message: format!("Invalid value: {value}: {why}") }
    }

    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }
    }

    pub fn unsupported(field: impl Into<String>, value: &str, allowed: &[String]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
        Self {
            field: field.into(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: \"{value}\": supported values: {}", allowed.join(", ")),
        }
    }

    pub fn type_invalid(field: impl Into<String>, value: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self { field: field.into(), reason: "FieldValueTypeInvalid", message: format!("Invalid value: {value}: {why}") }
    }
}

pub(crate) fn bad_request(message: impl Into<String>) -> Box<Status> {
    failure(400, "BadRequest", message)
}

/// The version asked for is no longer (or was never) in the watch history.
pub(crate) fn expired(asked: u64, oldest: u64) -> Box<Status> {
    failure(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
}

/// What the in-memory server does not do.
pub(crate) fn unsupported(verb: &str, resource: &str) -> Box<Status> {
    failure(501, "NotImplemented", format!("the in-memory API server does not support {verb} on {resource}"))
}

pub(crate) fn no_route() -> Box<Status> {
    let mut status = failure(404, "NotFound", "the server could not find the requested resource");
    status.details = Some(StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: vec![StatusCause {
            reason: "UnexpectedServerResponse".into(),
            message: "404 page not found".into(),
            field: String::new(),
        }],
        retry_after_seconds: 0,
    });
    status
}

pub(crate) fn too_many_requests(retry_after: u32) -> Box<Status> {
    let mut status = failure(429, "TooManyRequests", "too many requests, please try again later");
    status.details = Some(StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: retry_after,
    });
    status
}

pub(crate) fn internal(why: &str) -> Box<Status> {
    failure(500, "InternalError", format!("Internal error occurred: {why}"))
}
