//! How a pass goes on, or why it ends here.

use jiff::Timestamp;

use super::release::SpecError;
use crate::{api::conditions::reasons, traffic::routes::RouteError};

/// Why a pass ends before everything is done.
#[derive(Debug, Default)]
pub(super) struct Wait {
    /// For `status.message`; absent keeps what was set.
    pub(super) message: Option<String>,
    /// When time alone would move it.
    pub(super) until: Option<Timestamp>,
    /// A person must mend something.
    pub(super) stall: Option<(&'static str, String)>,
    /// The step was not let in yet: its deadline does not run.
    pub(super) is_barred: bool,
}

impl Wait {
    pub(super) fn on(message: impl Into<String>) -> Wait {
        Wait { message: Some(message.into()), ..Wait::default() }
    }

    pub(super) fn until(message: impl Into<String>, time: Timestamp) -> Wait {
        Wait { message: Some(message.into()), until: Some(time), ..Wait::default() }
    }

    pub(super) fn stall(reason: &'static str, message: impl Into<String>) -> Wait {
        Wait { stall: Some((reason, message.into())), ..Wait::default() }
    }

    /// The same, of a step that was not let in yet.
    pub(super) fn barred(self) -> Wait {
        Wait { is_barred: true, ..self }
    }

    /// Time alone ends it.
    pub(super) fn is_over_in_time(&self) -> bool {
        self.until.is_some()
    }

    /// What is waited for, for people.
    pub(super) fn text(&self) -> &str {
        self.stall.as_ref().map(|(_, text)| text).or(self.message.as_ref()).map_or("something is being written", |t| t)
    }
}

impl From<RouteError> for Wait {
    fn from(error: RouteError) -> Wait {
        Wait::stall(error.reason, error.message)
    }
}

impl From<SpecError> for Wait {
    fn from(error: SpecError) -> Wait {
        Wait::stall(reasons::INVALID_SPEC, error.to_string())
    }
}

/// `Ok`: done, go on. `Err`: the pass ends here.
pub(super) type Turn<T = ()> = Result<T, Wait>;
