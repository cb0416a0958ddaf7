//! Who approves a step, jumps, or passes over change windows: the user's name goes where the controller finds it. Pure.

use serde_json::{Value, json};

use super::review::AdmissionRequest;
use crate::api::{
    conditions::StepState,
    keys::{OVERRIDE_WINDOWS, OVERRIDE_WINDOWS_BY},
    object::{annotation, int, text},
    v1beta1::Word,
};

/// The field that names whoever spoke.
const SAID_BY: &str = "saidBy";

/// The object with the name of whoever said a word by this write, instead of whatever the writer put there himself;
/// `None` when it is right as it is.
pub fn note(request: &AdmissionRequest) -> Option<Value> {
    let (old, new) = (request.old_object.as_ref()?, request.object.as_ref()?);
    let mut stored = new.clone();
    for field in ["canaryStatus", "blueGreenStatus"] {
        let [before, after] = [old, new].map(|o| o.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null));
        let Some(sub) = stored.pointer_mut(&format!("/status/{field}")).and_then(Value::as_object_mut) else {
            continue;
        };
        let said = match word(before, after) {
            Some(word) => {
                let by = request.user_info.username.as_deref().unwrap_or_default();
                serde_json::to_value(Word { by: by.to_owned(), ..word }).ok()
            }
            // The controller takes it away; nobody else has anything to do with it.
            None => before.get(SAID_BY).filter(|_| after.get(SAID_BY).is_some()).cloned(),
        };
        match said {
            Some(said) => sub.insert(SAID_BY.to_owned(), said),
            None => sub.remove(SAID_BY),
        };
    }
    (stored != *new).then_some(stored)
}

/// The Rollout with the name of whoever passes over its change windows by this write, instead of whatever the writer put
/// there himself; `None` when it is right as it is.
pub fn note_override(request: &AdmissionRequest) -> Option<Value> {
    let new = request.object.as_ref()?;
    let [before, after] = [request.old_object.as_ref(), Some(new)].map(|object| {
        let object = object?;
        Some((annotation(object, OVERRIDE_WINDOWS)?, annotation(object, OVERRIDE_WINDOWS_BY)))
    });
    let by = match (before, after) {
        (_, None) => None,
        (Some((old, by)), Some((reason, _))) if old == reason => by.map(str::to_owned),
        _ => Some(request.user_info.username.clone().unwrap_or_default()),
    };
    let mut stored = new.clone();
    let annotations = stored.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)?;
    match by {
        Some(by) => annotations.insert(OVERRIDE_WINDOWS_BY.to_owned(), by.into()),
        None => annotations.remove(OVERRIDE_WINDOWS_BY),
    };
    (stored != *new).then_some(stored)
}

/// What a write says to the step at which the release is.
fn word(before: &Value, after: &Value) -> Option<Word> {
    let number = |of: &Value, key: &str| int(of, &[key]).and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let step = number(before, "currentStepIndex");
    if step != number(after, "currentStepIndex") {
        return None;
    }
    let next = number(after, "nextStepIndex");
    let ready = json!(StepState::StepReady.as_str());
    if next != number(before, "nextStepIndex") {
        Some(Word { step, deed: Word::JUMPED.to_owned(), to: Some(next), ..Word::default() })
    } else if text(after, &["currentStepState"]) == ready && text(before, &["currentStepState"]) != ready {
        Some(Word { step, deed: Word::APPROVED.to_owned(), ..Word::default() })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn noted(old: &str, new: &str) -> Option<Value> {
        let parsed = |text: &str| json!({"status": crate::yaml::from_str::<Value>(text).unwrap()});
        let request = AdmissionRequest {
            user_info: UserInfo { username: Some("jane".to_owned()), ..UserInfo::default() },
            object: Some(parsed(new)),
            old_object: Some(parsed(old)),
            ..AdmissionRequest::default()
        };
        note(&request).map(|object| object["status"].clone())
    }

    const WAITING: &str = "canaryStatus: {currentStepIndex: 2, nextStepIndex: 3, currentStepState: StepPaused}";

    #[test]
    fn whoever_approves_or_jumps_is_named_and_nobody_else() {
        let approved = "canaryStatus: {currentStepIndex: 2, nextStepIndex: 3, currentStepState: StepReady}";
        let by_jane = json!({"step": 2, "deed": "Approved", "by": "jane"});
        assert_eq!(noted(WAITING, approved).unwrap()["canaryStatus"]["saidBy"], by_jane);
        let blue_green = |text: &str| text.replace("canaryStatus", "blueGreenStatus");
        let answer = noted(&blue_green(WAITING), &blue_green(approved)).unwrap();
        assert_eq!(answer["blueGreenStatus"]["saidBy"], by_jane);
        let jumped = "canaryStatus: {currentStepIndex: 2, nextStepIndex: 1, currentStepState: StepPaused}";
        let by_jane = json!({"step": 2, "deed": "Jumped", "to": 1, "by": "jane"});
        assert_eq!(noted(WAITING, jumped).unwrap()["canaryStatus"]["saidBy"], by_jane);
        for other in [
            WAITING,
            "{}",
            // The controller goes on.
            "canaryStatus: {currentStepIndex: 3, nextStepIndex: -1, currentStepState: StepReady}",
        ] {
            assert_eq!(noted(WAITING, other), None, "{other}");
        }
    }

    #[test]
    fn nobody_names_somebody_else() {
        let lie = "canaryStatus: {currentStepIndex: 2, nextStepIndex: 3, currentStepState: StepReady,
            saidBy: {step: 2, deed: Approved, by: boss}}";
        assert_eq!(noted(WAITING, lie).unwrap()["canaryStatus"]["saidBy"]["by"], "jane");
        let later = lie.replace("StepReady", "StepPaused");
        assert_eq!(noted(WAITING, &later).unwrap()["canaryStatus"].get("saidBy"), None);
        let jane = lie.replace("boss", "jane");
        let kept = noted(&jane, lie).unwrap();
        assert_eq!(kept["canaryStatus"]["saidBy"]["by"], "jane", "what was said stays said");
        assert_eq!(
            noted(&jane, "canaryStatus: {currentStepIndex: 2, nextStepIndex: 3, currentStepState: StepReady}"),
            None
        );
    }

    #[test]
    fn whoever_passes_over_the_windows_is_named_and_nobody_else() {
        const REASON: &str = "rollouts.kruise.io/change-window-override";
        const BY: &str = "rollouts.kruise.io/change-window-override-by";
        let object = |reason: Option<&str>, by: Option<&str>| {
            let pairs = [(REASON, reason), (BY, by)].into_iter().filter_map(|(k, v)| Some((k.to_owned(), json!(v?))));
            json!({"metadata": {"annotations": pairs.collect::<serde_json::Map<_, _>>()}})
        };
        let jane = object(Some("INC-1"), Some("jane"));
        for (why, old, new, expected) in [
            ("a reason", Some(object(None, None)), object(Some("INC-1"), None), Some(jane.clone())),
            ("created with one", None, object(Some("INC-1"), None), Some(jane.clone())),
            ("a lie", Some(object(None, None)), object(Some("INC-1"), Some("boss")), Some(jane.clone())),
            (
                "another reason",
                Some(object(Some("INC-0"), Some("boss"))),
                object(Some("INC-1"), Some("boss")),
                Some(jane.clone()),
            ),
            ("said by another", Some(object(Some("INC-1"), Some("boss"))), object(Some("INC-1"), Some("boss")), None),
            ("a lie later", Some(jane.clone()), object(Some("INC-1"), Some("boss")), Some(jane.clone())),
            ("an apply without it", Some(jane.clone()), object(Some("INC-1"), None), Some(jane.clone())),
            ("taken back", Some(jane), object(None, Some("jane")), Some(object(None, None))),
            ("nothing", Some(object(None, None)), object(None, None), None),
            ("without annotations", None, json!({"metadata": {}}), None),
        ] {
            let user_info = UserInfo { username: Some("jane".to_owned()), ..UserInfo::default() };
            let request =
                AdmissionRequest { user_info, object: Some(new), old_object: old, ..AdmissionRequest::default() };
            assert_eq!(note_override(&request), expected, "{why}");
        }
    }
}
