//! How a write can fail, and what that means for the next try.

use super::guard::Violation;
use crate::{
    api::{conditions::reasons, object::ObjectRef},
    rollout::plan::Purpose,
};

/// A write that failed. Names the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not accept a write.
    #[error("{purpose:?}: {target}: {}", explain(source))]
    Write {
        /// What it was for.
        purpose: Purpose,
        /// The object.
        target: ObjectRef,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// No answer came in time; the write may have happened.
    #[error("{purpose:?}: {target}: no answer from the API server in time")]
    Timeout {
        /// What it was for.
        purpose: Purpose,
        /// The object.
        target: ObjectRef,
    },
    /// The status was not accepted.
    #[error("status of {target}: {}", explain(source))]
    Status {
        /// The Rollout.
        target: ObjectRef,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// No answer came in time; the status may have been stored.
    #[error("status of {target}: no answer from the API server in time")]
    StatusTimeout {
        /// The Rollout.
        target: ObjectRef,
    },
    /// The term as the leader has ended: nothing was sent.
    #[error("{target}: not written, this process does not lead any more")]
    NotLeading {
        /// The object.
        target: ObjectRef,
    },
    /// What was decided on has changed since it was read: nothing was sent.
    #[error("{target}: changed since it was decided on")]
    Overtaken {
        /// The object that was decided on.
        target: ObjectRef,
    },
    /// The guard did not let a write through: a mistake of ours, and nothing was sent.
    #[error(transparent)]
    Guarded(#[from] Violation),
    /// A write that cannot be put into words: a mistake of ours.
    #[error("{target}: {source}")]
    Encode {
        /// The object.
        target: ObjectRef,
        /// What failed.
        source: serde_json::Error,
    },
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object changed since it was read: read again, no failure.
    Conflict,
    /// The API server is away or overloaded: try again later.
    Unavailable,
    /// The API server refused: a person must mend something.
    Refused,
    /// Another process decides now.
    NotLeading,
}

impl Class {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Conflict => "conflict",
            Class::Unavailable => "unavailable",
            Class::Refused => "refused",
            Class::NotLeading => "not-leading",
        }
    }
}

impl Error {
    /// What the failure means.
    pub fn class(&self) -> Class {
        match self {
            Error::Write { source, .. } | Error::Status { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 409 => Class::Conflict,
                kube::Error::Api(status) if status.code == 429 || status.code >= 500 => Class::Unavailable,
                // The object went away: what follows is decided from what is there.
                kube::Error::Api(status) if status.code == 404 => Class::Conflict,
                kube::Error::Api(_) => Class::Refused,
                _ => Class::Unavailable,
            },
            Error::Overtaken { .. } => Class::Conflict,
            Error::Timeout { .. } | Error::StatusTimeout { .. } => Class::Unavailable,
            Error::NotLeading { .. } => Class::NotLeading,
            Error::Encode { .. } | Error::Guarded(_) => Class::Refused,
        }
    }

    /// A connection was lost, or the API server has no time: what is often over at once. Who got no answer in time has
    /// waited already.
    pub fn is_blip(&self) -> bool {
        self.class() == Class::Unavailable && !matches!(self, Error::Timeout { .. } | Error::StatusTimeout { .. })
    }

    /// Reason for a condition; absent when nothing is wrong that a person should know.
    pub fn reason(&self) -> Option<&'static str> {
        match self.class() {
            _ if matches!(self, Error::Guarded(_)) => Some(reasons::WRITE_GUARDED),
            Class::Conflict | Class::NotLeading => None,
            Class::Unavailable => Some(reasons::API_UNAVAILABLE),
            Class::Refused => Some(reasons::WRITE_REFUSED),
        }
    }
}

fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => format!("the API server cannot be reached, trying again: {}", root(other)),
    }
}

/// What lies beneath: the layers of a client say of each other only that they failed.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_lost_connection_is_told_in_words() {
        let lost = io::Error::other(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer"));
        let error = Error::Write {
            purpose: Purpose::RouteStep,
            target: ObjectRef::new("v1", "Service", "shop", "web"),
            source: Box::new(kube::Error::Service(lost.into())),
        };
        let text =
            "RouteStep: Service shop/web: the API server cannot be reached, trying again: connection reset by peer";
        assert_eq!((error.to_string().as_str(), error.class()), (text, Class::Unavailable));
    }
}
