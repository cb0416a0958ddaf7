//! Whether the gateways have taken the objects as they are now.
//!
//! A script `accepted.lua` reads an object with its status and answers. Kinds that report nothing have none, and count as
//! taken once they are written.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    input::type_of,
    routes::{Network, RouteError},
};
use crate::{
    api::{conditions::reasons, keys, object},
    lua::Engine,
};

/// Seconds after which an object of which no controller has said anything, ever, is one of which none will.
pub const UNREPORTED_SECONDS: i64 = 30;
/// Seconds after which a word that does not say which generation it is about is taken to be about the present one.
pub const UNDATED_SECONDS: i64 = 10;

/// What a gateway says of an object, as the object's `accepted.lua` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In one word.
    pub verdict: Verdict,
    /// Why; empty for [`Verdict::Accepted`].
    pub reason: String,
    /// The status does not say which generation it is about.
    pub is_undated: bool,
}

/// What a gateway says of an object, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It routes as the object says.
    Accepted,
    /// No controller has said anything of it.
    Unreported,
    /// It was not looked at yet as it is now.
    Waiting,
    /// It does not route as the object says.
    Refused,
}

impl Verdict {
    /// All of them, by the names that scripts use.
    pub const ALL: [(&'static str, Verdict); 4] = [
        ("accepted", Verdict::Accepted),
        ("unreported", Verdict::Unreported),
        ("waiting", Verdict::Waiting),
        ("refused", Verdict::Refused),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Verdict::ALL.iter().find(|(_, v)| *v == self).map_or("", |(name, _)| name)
    }

    /// The verdict of this name.
    pub fn parse(name: &str) -> Option<Verdict> {
        Verdict::ALL.iter().find(|(known, _)| *known == name).map(|(_, v)| *v)
    }
}

/// What all gateways together say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Every object was taken.
    Taken,
    /// Something has to happen first, or time has to pass.
    Waiting {
        /// Names the object.
        message: String,
        /// When it counts as taken whatever is said.
        until: Option<Timestamp>,
    },
    /// Nothing speaks against it, but nothing says either that it is about the objects as they are now.
    Undated {
        /// What is said by then, if it is a refusal; names the object.
        refusal: Option<String>,
    },
    /// An object was refused.
    Refused(String),
}

/// The global `obj` of an `accepted.lua`: the object as it is, without our bookkeeping.
pub fn script_input(object: &Value) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(keys::ORIGINAL_SPEC);
    }
    let mut obj = Map::from_iter([("metadata".to_owned(), metadata)]);
    for field in ["apiVersion", "kind", "spec", "status"] {
        if let Some(value) = object.get(field) {
            obj.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(obj)
}

/// Reads what an `accepted.lua` returned.
///
/// # Errors
/// Names the field that is missing or wrong.
pub fn answer(value: &Value) -> Result<Answer, String> {
    let known = || Verdict::ALL.map(|(name, _)| format!("{name:?}")).join(", ");
    let verdict = match value.get("verdict") {
        Some(Value::String(name)) => Verdict::parse(name)
            .ok_or_else(|| format!("verdict {name:?} of the script's result is none of {}", known())),
        other => {
            let found = other.map_or("missing", type_of);
            Err(format!("verdict of the script's result is {found}, not one of {}", known()))
        }
    }?;
    let reason = match value.get("reason") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(reason)) => reason.clone(),
        Some(other) => return Err(format!("reason of the script's result is {}, not a string", type_of(other))),
    };
    if reason.is_empty() && verdict != Verdict::Accepted {
        return Err(format!("the script says {:?} without a reason", verdict.name()));
    }
    let is_undated = match value.get("undated") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(undated)) => *undated,
        Some(other) => return Err(format!("undated of the script's result is {}, not a boolean", type_of(other))),
    };
    Ok(Answer { verdict, reason, is_undated })
}

/// Asks what the gateways say of the objects as they are now.
///
/// # Errors
/// When a script fails, or returns something else than an answer.
pub fn acceptance(networks: &[Network], engine: &Engine, now: Timestamp) -> Result<Acceptance, RouteError> {
    let mut waiting = None;
    let mut undated = None;
    for network in networks {
        let (Some(script), Ok(live)) = (&network.acceptance, &network.object) else { continue };
        let target = network.target();
        let failed =
            |message: String| RouteError { reason: reasons::SCRIPT_FAILED, message: format!("{target}: {message}") };
        let outcome = engine.run(script, &script_input(live)).map_err(|e| failed(e.to_string()))?;
        let answer = answer(&outcome.value).map_err(|e| failed(format!("{}: {e}", script.name)))?;
        let said = format!("{target}: {}", answer.reason);
        match answer.verdict {
            Verdict::Refused if answer.is_undated => undated = Some(Some(said)),
            Verdict::Refused => return Ok(Acceptance::Refused(said)),
            Verdict::Accepted if answer.is_undated => undated = undated.or(Some(None)),
            Verdict::Accepted => {}
            Verdict::Waiting => waiting = Some(Acceptance::Waiting { message: said, until: None }),
            Verdict::Unreported => {
                let until = made(live).and_then(|t| t.checked_add(SignedDuration::from_secs(UNREPORTED_SECONDS)).ok());
                if let Some(until) = until.filter(|until| *until > now) {
                    waiting.get_or_insert(Acceptance::Waiting { message: said, until: Some(until) });
                }
            }
        }
    }
    Ok(waiting.or(undated.map(|refusal| Acceptance::Undated { refusal })).unwrap_or(Acceptance::Taken))
}

/// When an object was created.
fn made(object: &Value) -> Option<Timestamp> {
    object::text(object, &["metadata", "creationTimestamp"]).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::v1beta1::NetworkRef,
        lua::{NotFound, Origin, Script},
    };

    /// An object whose script answers with what its status holds.
    fn network(name: &str, status: Value) -> Network {
        let not_found = NotFound {
            target: String::new(),
            built_in: String::new(),
            key: String::new(),
            config_map_exists: false,
            namespace: None,
        };
        Network {
            reference: NetworkRef { api_version: "g.io/v1".into(), kind: "Route".into(), name: name.into() },
            namespace: "shop".into(),
            object: Ok(Arc::new(json!({"apiVersion": "g.io/v1", "kind": "Route", "status": status, "spec": {},
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}}))),
            script: Err(not_found),
            working: None,
            acceptance: Some(Script::new("accepted.lua", "return obj.status", Origin::BuiltIn)),
        }
    }

    fn ask(statuses: &[Value]) -> Acceptance {
        let networks: Vec<Network> = statuses.iter().map(|s| network("r", s.clone())).collect();
        let now = "2026-01-01T00:00:20Z".parse().unwrap();
        acceptance(&networks, &Engine::new(1), now).unwrap()
    }

    #[test]
    fn the_worst_word_counts() {
        let said = |verdict: &str| json!({"verdict": verdict, "reason": verdict});
        let undated = |verdict: &str| json!({"verdict": verdict, "reason": verdict, "undated": true});
        let target = "Route shop/r";
        let waiting = |reason: &str, until: Option<&str>| Acceptance::Waiting {
            message: format!("{target}: {reason}"),
            until: until.map(|u| u.parse().unwrap()),
        };
        let until = Some("2026-01-01T00:00:30Z");
        let all = [undated("accepted"), said("unreported"), undated("refused"), said("waiting"), said("refused")];
        for (statuses, wanted) in [
            (vec![], Acceptance::Taken),
            (vec![said("accepted")], Acceptance::Taken),
            (vec![undated("accepted"), said("accepted")], Acceptance::Undated { refusal: None }),
            (
                vec![undated("refused"), undated("accepted")],
                Acceptance::Undated { refusal: Some(format!("{target}: refused")) },
            ),
            (vec![said("unreported"), undated("refused")], waiting("unreported", until)),
            (vec![said("unreported"), said("waiting")], waiting("waiting", None)),
            (vec![said("waiting"), said("unreported")], waiting("waiting", None)),
            (all.to_vec(), Acceptance::Refused(format!("{target}: refused"))),
        ] {
            assert_eq!(ask(&statuses), wanted, "{statuses:?}");
        }
    }

    #[test]
    fn what_nobody_reports_counts_as_taken_when_it_is_old() {
        let networks = [network("r", json!({"verdict": "unreported", "reason": "no status"}))];
        let at = |time: &str| acceptance(&networks, &Engine::new(1), time.parse().unwrap()).unwrap();
        assert!(matches!(at("2026-01-01T00:00:29Z"), Acceptance::Waiting { until: Some(_), .. }));
        assert_eq!(at("2026-01-01T00:00:30Z"), Acceptance::Taken);
    }

    #[test]
    fn an_answer_has_a_verdict_and_a_reason() {
        let good = answer(&json!({"verdict": "waiting", "reason": "later", "more": 1})).unwrap();
        assert_eq!((good.verdict, good.reason.as_str(), good.is_undated), (Verdict::Waiting, "later", false));
        assert!(answer(&json!({"verdict": "accepted", "undated": true})).unwrap().is_undated);
        for (value, problem) in [
            (json!({}), "verdict of the script's result is missing, not one of \"accepted\""),
            (json!({"verdict": 1}), "verdict of the script's result is a number"),
            (json!({"verdict": "yes"}), "verdict \"yes\" of the script's result is none of"),
            (json!({"verdict": "refused"}), "says \"refused\" without a reason"),
            (json!({"verdict": "refused", "reason": 1}), "reason of the script's result is a number"),
            (json!({"verdict": "accepted", "undated": 1}), "undated of the script's result is a number"),
        ] {
            let found = answer(&value).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn a_script_sees_the_object_without_our_bookkeeping() {
        let object = json!({"apiVersion": "g/v1", "kind": "K", "spec": {"a": 1}, "data": 1,
            "metadata": {"name": "x", "generation": 2, "annotations": {keys::ORIGINAL_SPEC: "{}", "b": "c"}}});
        assert_eq!(
            script_input(&object),
            json!({"apiVersion": "g/v1", "kind": "K", "spec": {"a": 1},
                "metadata": {"name": "x", "generation": 2, "annotations": {"b": "c"}}})
        );
    }
}
