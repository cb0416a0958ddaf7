//! What a hook means by its answer.

use serde::Deserialize;

use crate::rollout::calls::{Outcome, short};

/// What a hook means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The release may go on; what it says to that.
    Allows(String),
    /// Not yet: why, and seconds after which it wants to be asked again.
    Holds(String, Option<i64>),
    /// No: why.
    Refuses(String),
    /// It could not be asked, which may pass.
    Unreachable(String),
    /// A person must mend something.
    Mistaken(String),
}

/// The part of a body that is understood; whatever else is there is the hook's own affair.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    result: Option<String>,
    message: Option<String>,
    retry_after_seconds: Option<i64>,
}

/// Reads an answer. The word `result` in the body of a 2xx decides; without it 2xx allows, 403 refuses, and 409, 423, 425
/// and 429 hold.
pub fn read(outcome: &Outcome) -> Meaning {
    let (status, body, retry_after) = match outcome {
        Outcome::Unavailable(why) => return Meaning::Unreachable(why.clone()),
        Outcome::Mistake(why) => return Meaning::Mistaken(why.clone()),
        Outcome::Probed(_) => return Meaning::Mistaken("it was probed, not asked".to_owned()),
        Outcome::Answered { status, body, retry_after } => (*status, body, *retry_after),
    };
    let is_object = body.trim_start().starts_with('{');
    let read = serde_json::from_str::<Body>(body);
    let is_good = (200..300).contains(&status);
    if let (true, true, Err(error)) = (is_good, is_object, &read) {
        // It may have meant to refuse.
        return Meaning::Mistaken(format!("{status}, and the body is not understood: {error}"));
    }
    let said = read.unwrap_or_default();
    let message = said.message.as_deref().map(short).unwrap_or_default();
    let text = if message.is_empty() { status.to_string() } else { message.clone() };
    let after = said.retry_after_seconds.or(retry_after);
    match (status, said.result.as_deref()) {
        (200..300, None | Some("allow")) => Meaning::Allows(message),
        (200..300, Some("hold")) | (409 | 423 | 425 | 429, _) => Meaning::Holds(text, after),
        (200..300, Some("refuse")) | (403, _) => Meaning::Refuses(text),
        (200..300, Some(other)) => {
            Meaning::Mistaken(format!("result is {:?}; it is allow, hold or refuse", short(other)))
        }
        (300..400, _) => {
            Meaning::Mistaken(format!("{status}: redirects are not followed; name the right address in url"))
        }
        (408 | 500.., _) => Meaning::Unreachable(text),
        _ => Meaning::Mistaken(format!("the hook does not take the request: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Meaning {
        read(&Outcome::Answered { status, body: body.into(), retry_after: None })
    }

    #[test]
    fn status_and_body_decide() {
        let text = str::to_owned;
        for (status, body, meaning) in [
            (200, "", Meaning::Allows(text(""))),
            (204, "", Meaning::Allows(text(""))),
            (200, "OK", Meaning::Allows(text(""))),
            (200, r#"{"status": "queued"}"#, Meaning::Allows(text(""))),
            (200, r#"{"result": "allow", "message": "go"}"#, Meaning::Allows(text("go"))),
            (
                200,
                r#"{"result": "hold", "message": "CAB at 3", "retryAfterSeconds": 60}"#,
                Meaning::Holds(text("CAB at 3"), Some(60)),
            ),
            (202, r#"{"result": "hold"}"#, Meaning::Holds(text("202"), None)),
            (423, "busy", Meaning::Holds(text("423"), None)),
            (200, r#"{"result": "refuse", "message": "two\nlines"}"#, Meaning::Refuses(text("two lines"))),
            (403, r#"{"message": "frozen"}"#, Meaning::Refuses(text("frozen"))),
            (503, r#"{"result": "allow"}"#, Meaning::Unreachable(text("503"))),
            (408, "", Meaning::Unreachable(text("408"))),
        ] {
            assert_eq!(of(status, body), meaning, "{status} {body}");
        }
    }

    #[test]
    fn what_is_not_understood_allows_nothing() {
        for (status, body, says) in [
            (200, r#"{"result": "allowed"}"#, "it is allow, hold or refuse"),
            (200, r#"{"result": false}"#, "not understood"),
            (200, r#"{"result": "refuse""#, "not understood"),
            (302, "", "redirects are not followed"),
            (404, "", "does not take the request: 404"),
            (401, r#"{"message": "who?"}"#, "who?"),
            (101, "", "does not take"),
        ] {
            let Meaning::Mistaken(why) = of(status, body) else { panic!("{status} {body}: {:?}", of(status, body)) };
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn says_when_to_ask_again() {
        let outcome = Outcome::Answered { status: 429, body: String::new(), retry_after: Some(7) };
        assert_eq!(read(&outcome), Meaning::Holds("429".into(), Some(7)));
        let long = "x".repeat(5000);
        let Meaning::Refuses(text) = of(403, &format!(r#"{{"message": "{long}"}}"#)) else { panic!() };
        assert!(text.len() < 310);
    }
}
