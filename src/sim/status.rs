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

pub(crate) fn already_exists(kind: &Kind, name: &str, deleting: bool) -> Box<Status> {
    let before = if deleting { "object is being deleted: " } else { "" };
    failure(409, "AlreadyExists", format!("{before}{} \"{name}\" already exists", kind.qualified()))
        .with(details(kind, name))
}

/// The same for a name that `generateName` stands beside.
pub(crate) fn not_unique(kind: &Kind, name: &str) -> Box<Status> {
    let mut about = details(kind, name);
    about.retry_after_seconds = 1;
    let why = "already exists, the server was not able to generate a unique name for the object";
    failure(409, "AlreadyExists", format!("{} \"{name}\" {why}", kind.qualified())).with(about)
}

pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Box<Status> {
    failure(409, "Conflict", format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified()))
        .with(details(kind, name))
}

/// A precondition of a deletion failed; here the API server names the kind, not the resource.
pub(crate) fn precondition(kind: &Kind, name: &str, why: &str) -> Box<Status> {
    let mut about = details(kind, name);
    about.kind = kind.kind.clone();
    let what = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
    failure(409, "Conflict", format!("Operation cannot be fulfilled on {what} \"{name}\": {why}")).with(about)
}

/// The optimistic lock failed.
pub(crate) fn modified(kind: &Kind, name: &str) -> Box<Status> {
    conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")
}

/// One or several fields are invalid; each is (field, reason such as `FieldValueInvalid`, message).
pub(crate) fn invalid(kind: &Kind, name: &str, errors: Vec<FieldError>) -> Box<Status> {
    invalid_as(&kind.kind, &kind.group, name, errors)
}

/// The same for something that goes by another kind.
pub(crate) fn invalid_as(kind: &str, group: &str, name: &str, errors: Vec<FieldError>) -> Box<Status> {
    let mut lines: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
    lines.dedup();
    let text = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let mut body = no_details();
    body.name = name.to_owned();
    body.group = group.to_owned();
    body.kind = kind.to_owned();
    body.causes = errors
        .into_iter()
        .map(|e| StatusCause { reason: e.reason.to_owned(), message: e.message, field: e.field })
        .collect();
    let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
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

/// Nothing is served at the path. The API server answers plain text here.
pub(crate) const NO_ROUTE: &str = "404 page not found";

pub(crate) fn no_route() -> Box<Status> {
    failure(404, "NotFound", NO_ROUTE)
}

/// Details that say nothing yet.
pub(crate) fn no_details() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

/// The patch is of a kind that nothing here takes.
pub(crate) fn unsupported_media() -> Box<Status> {
    failure(415, "UnsupportedMediaType", "415: Unsupported Media Type").with(no_details())
}

/// The patch is of a kind that custom resources do not take.
pub(crate) fn strategic_patch_of_custom() -> Box<Status> {
    let message = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    failure(415, "UnsupportedMediaType", message)
}

/// An apply patch without `fieldManager`.
pub(crate) fn manager_required() -> Box<Status> {
    let why = "Required value: is required for apply patch";
    let message = format!("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: {why}");
    let mut about = no_details();
    about.group = "meta.k8s.io".into();
    about.kind = "PatchOptions".into();
    about.causes =
        vec![StatusCause { reason: "FieldValueRequired".into(), message: why.into(), field: "fieldManager".into() }];
    failure(422, "Invalid", message).with(about)
}

pub(crate) fn too_many_requests(retry_after: u32) -> Box<Status> {
    let mut about = no_details();
    about.retry_after_seconds = retry_after;
    failure(429, "TooManyRequests", "too many requests, please try again later").with(about)
}

pub(crate) fn internal(why: &str) -> Box<Status> {
    failure(500, "InternalError", format!("Internal error occurred: {why}"))
}
