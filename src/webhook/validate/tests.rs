use serde_json::json;

use super::*;
use crate::rollout::release;

fn rollout(text: &str) -> Value {
    let mut rollout = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop"}});
    let more: Value = crate::yaml::from_str(text).unwrap();
    for (key, value) in more.as_object().unwrap() {
        match (key.as_str(), value) {
            ("metadata", Value::Object(more)) => rollout["metadata"].as_object_mut().unwrap().extend(more.clone()),
            _ => rollout[key] = value.clone(),
        }
    }
    rollout
}

const GOOD: &str = "
spec:
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  strategy: {canary: {steps: [{replicas: 20%}, {replicas: 100%}]}}
";

fn judged(new: &str, old: Option<&str>) -> Verdict {
    judge(&rollout(new), old.map(rollout).as_ref(), &[], &Rules::default())
}

/// One error, as a person reads it.
fn error(new: &str, old: Option<&str>) -> String {
    let errors = judged(new, old).errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

#[test]
fn what_is_good_passes_without_a_word() {
    assert_eq!(judged(GOOD, None), Verdict::default());
    assert_eq!(judged(GOOD, Some(GOOD)), Verdict::default());
    assert_eq!(judged("spec: {}", None).errors, [], "the schema says what is missing");
    assert_eq!(judged("spec: 3", None).errors, []);
}

const REPLICA_SET: &str = "
spec:
  objectRef: {workloadRef: {apiVersion: apps/v1, kind: ReplicaSet, name: web}}
  strategy: {canary: {steps: [{weight: 100}]}}
";

#[test]
fn d_01_a_replica_set_is_refused() {
    let text = error(REPLICA_SET, None);
    assert!(text.starts_with("spec.objectRef.workloadRef: Invalid value: {\"apiVersion\":\"apps/v1\""), "{text}");
    assert!(
        text.contains("choose Deployment of apps, StatefulSet of apps, DaemonSet of apps, CloneSet of apps.kruise.io,"),
        "{text}"
    );
    let open = Rules { filter_workload_type: false, ..Rules::default() };
    assert_eq!(judge(&rollout(REPLICA_SET), None, &[], &open).errors, []);
}

#[test]
fn a_style_that_the_kind_cannot_be_released_in_is_refused() {
    let of = |kind: &str, strategy: &str| {
        format!(
            "spec:\n  workloadRef: {{{kind}, name: web}}\n  strategy: {{{strategy}: {{steps: [{{replicas: 100%}}]}}}}\n"
        )
    };
    let sts = "apiVersion: apps/v1, kind: StatefulSet";
    let blue_green = error(&of(sts, "blueGreen"), None);
    assert_eq!(
        blue_green,
        "spec.strategy.blueGreen: Invalid value: {\"steps\":[{\"replicas\":\"100%\"}]}: a StatefulSet of apps has no full new set \
         beside the old one: use spec.strategy.canary"
    );
    for kind in ["apps/v1, kind: Deployment", "apps.kruise.io/v1alpha1, kind: CloneSet"] {
        assert_eq!(judged(&of(&format!("apiVersion: {kind}"), "blueGreen"), None).errors, [], "{kind}");
    }
    let extra = |kind: &str| of(kind, "canary").replace("canary: {", "canary: {enableExtraWorkloadForCanary: true, ");
    assert_eq!(
        error(&extra("apiVersion: apps/v1, kind: DaemonSet"), None),
        "spec.strategy.canary.enableExtraWorkloadForCanary: Invalid value: true: a DaemonSet of apps has no extra workload, it is \
         released in place: leave the field out, or set it to false"
    );
    // What the original stored for it stays possible, as does the style that every kind is given by default.
    assert_eq!(judged(&extra(sts).replace("100%", "50%"), Some(&extra(sts))).errors, []);
    let annotated =
        format!("metadata: {{annotations: {{rollouts.kruise.io/rolling-style: canary}}}}\n{}", of(sts, "canary"));
    assert_eq!(judged(&annotated, None).errors, []);
    assert_eq!(
        error(&of("apiVersion: apps.kruise.io/v1, kind: CloneSet", "canary"), None),
        "spec.workloadRef.apiVersion: Invalid value: \"apps.kruise.io/v1\": a CloneSet is not known in this version: choose \
         apps.kruise.io/v1beta1 or apps.kruise.io/v1alpha1"
    );
}

/// What admission says, and what the condition says where admission is off: the fields that are named. A kind without an
/// extra workload that is stored with one is released in place.
#[test]
fn what_a_kind_cannot_do_is_refused_here_and_by_the_condition() {
    const IN_PLACE: &str = "canary: {enableExtraWorkloadForCanary: false, steps: [{replicas: 100%}]}";
    const BESIDE: &str = "canary: {enableExtraWorkloadForCanary: true, steps: [{replicas: 100%}]}";
    const BLUE_GREEN: &str = "blueGreen: {steps: [{replicas: 100%}]}";
    let (extra, full) = ("spec.strategy.canary.enableExtraWorkloadForCanary", "spec.strategy.blueGreen");
    let (reference, version) = ("spec.workloadRef", "spec.workloadRef.apiVersion");
    // In place, with an extra workload, with a full new set: by admission, and by the condition.
    let all = [("", ""); 3];
    let in_place = [("", ""), (extra, ""), (full, full)];
    let two_styles = [("", ""), (extra, ""), ("", "")];
    let unknown = |field: &'static str| [(field, field); 3];
    for (api_version, kind, expected) in [
        ("apps/v1", "Deployment", all),
        ("apps/v1", "StatefulSet", in_place),
        ("apps/v1", "DaemonSet", in_place),
        ("apps.kruise.io/v1beta1", "CloneSet", two_styles),
        ("apps.kruise.io/v1alpha1", "CloneSet", two_styles),
        ("apps.kruise.io/v1beta1", "StatefulSet", in_place),
        ("apps.kruise.io/v1alpha1", "StatefulSet", in_place),
        ("apps.kruise.io/v1beta1", "DaemonSet", in_place),
        ("apps.kruise.io/v1alpha1", "DaemonSet", in_place),
        ("games.example.com/v1", "GameServerSet", in_place),
        ("apps/v1", "ReplicaSet", unknown(reference)),
        ("batch/v1", "Job", unknown(reference)),
        ("v1", "Pod", unknown(reference)),
        ("apps/v2", "DaemonSet", unknown(version)),
        ("apps.kruise.io/v1", "CloneSet", unknown(version)),
    ] {
        for (strategy, (here, there)) in [IN_PLACE, BESIDE, BLUE_GREEN].into_iter().zip(expected) {
            let told = format!("{api_version} {kind} {strategy}");
            let text = format!(
                "spec:\n  workloadRef: {{apiVersion: {api_version}, kind: {kind}, name: web}}\n  strategy: {{{strategy}}}\n"
            );
            let said = judged(&text, None).errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            assert_eq!(said.split(": ").next(), Some(here), "{told}: {said}");
            let stored: crate::api::v1beta1::Rollout = serde_json::from_value(rollout(&text)).unwrap();
            let condition = release::scope(&stored).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                if there.is_empty() { condition.is_empty() } else { condition.contains(there) },
                "{told}: {condition}"
            );
        }
    }
}

#[test]
fn d_13_an_update_is_not_worse_than_what_is_stored() {
    // Untouched, whatever else the update does; also when the object goes.
    let more = REPLICA_SET.replace("weight: 100", "weight: 50");
    assert_eq!(judged(&more, Some(REPLICA_SET)).errors, []);
    let finalizer = format!("metadata: {{finalizers: []}}{REPLICA_SET}");
    assert_eq!(judged(&finalizer, Some(REPLICA_SET)), Verdict::default());
    let going = format!("metadata: {{deletionTimestamp: \"2026-01-01T00:00:00Z\"}}{REPLICA_SET}");
    assert_eq!(judged(&going, Some(GOOD)), Verdict::default());
    // Another wrong kind is a new mistake.
    let other = REPLICA_SET.replace("ReplicaSet", "Pod");
    assert!(error(&other, Some(REPLICA_SET)).contains("\"kind\":\"Pod\""));
    // So is a second step that is too large beside the first.
    let routed = |first: &str, second: &str| {
        format!(
            "spec:\n  workloadRef: {{apiVersion: apps/v1, kind: StatefulSet, name: web}}\n  strategy: {{canary: {{steps: [{{traffic: 10%, replicas: {first}}}, {{traffic: 20%, replicas: {second}}}], trafficRoutings: [{{service: web, ingress: {{name: web}}}}]}}}}"
        )
    };
    assert_eq!(judged(&routed("60%", "60%"), Some(&routed("60%", "60%"))).errors, []);
    assert_eq!(judged(&routed("60%", "50%"), Some(&routed("60%", "40%"))).errors, []);
    let text = error(&routed("60%", "70%"), Some(&routed("60%", "50%")));
    assert!(
        text.starts_with("spec.strategy.canary.steps[1].replicas: Invalid value: \"70%\": in partition style"),
        "{text}"
    );
    let wider = Rules { partition_percent_limit: 80, ..Rules::default() };
    assert_eq!(judge(&rollout(&routed("60%", "70%")), None, &[], &wider).errors, []);
}

#[test]
fn d_13_two_that_are_for_one_workload_do_not_block_each_other() {
    let (one, mut two) = (rollout(GOOD), rollout(GOOD));
    two["metadata"]["name"] = json!("second");
    let rules = Rules::default();
    assert!(asks_for_others(&one, None) && !asks_for_others(&one, Some(&one)));
    let mut going = one.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(!asks_for_others(&going, Some(&one)));
    assert_eq!(judge(&going, Some(&one), &[two.clone()], &rules).errors, []);
    // One that is going does not block its successor.
    assert_eq!(judge(&two, None, &[going], &rules).errors, []);
    assert_eq!(judge(&two, None, &[two.clone()], &rules).errors, [], "itself");
    let text = judge(&two, None, &[one], &rules).errors[0].to_string();
    assert!(text.starts_with("spec.workloadRef: ") && text.contains("Rollout \"web\" is for this workload"), "{text}");
}

#[test]
fn d_49_another_version_of_the_workload_or_another_spelling_is_the_same_workload() {
    let mut other = rollout(
        "
apiVersion: rollouts.kruise.io/v1alpha1
spec:
  objectRef: {workloadRef: {apiVersion: apps.kruise.io/v1alpha1, kind: CloneSet, name: web}}
  strategy: {canary: {steps: [{weight: 100}]}}",
    );
    other["metadata"]["name"] = json!("other");
    let new = GOOD.replace("apps/v1, kind: Deployment", "apps.kruise.io/v1beta1, kind: CloneSet");
    assert_eq!(judge(&rollout(&new), None, &[other.clone()], &Rules::default()).errors.len(), 1);
    let elsewhere = GOOD.replace("apps/v1, kind: Deployment", "apps.kruise.io/v1beta1, kind: StatefulSet");
    assert_eq!(judge(&rollout(&elsewhere), None, &[other], &Rules::default()).errors, []);
}

#[test]
fn d_49_steps_and_style_stay_while_a_release_goes_on_in_both_versions() {
    let with = |phase: &str, version: &str, more: &str, steps: &str| {
        format!(
            "apiVersion: rollouts.kruise.io/{version}\nstatus: {{phase: {phase}}}\nmetadata: {{annotations: {{{more}}}}}\nspec:\n  objectRef: {{workloadRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}}}\n  strategy: {{canary: {{steps: [{steps}]}}}}"
        )
    };
    for version in ["v1alpha1", "v1beta1"] {
        let old = with("Progressing", version, "", "{weight: 20}, {weight: 100}");
        let new = with("Progressing", version, "", "{weight: 20}, {weight: 50}, {weight: 100}");
        let text = error(&new, Some(&old));
        assert!(
            text.starts_with("spec.strategy.canary.steps: Invalid value: 3: ") && text.contains("keep 2"),
            "{text}"
        );
        assert_eq!(judged(&with("Progressing", version, "", "{weight: 30}, {weight: 100}"), Some(&old)).errors, []);
        let other =
            with("Progressing", version, "rollouts.kruise.io/rolling-style: partition", "{weight: 20}, {weight: 100}");
        assert!(error(&other, Some(&old)).contains("the style cannot change"));
        let idle = with("Healthy", version, "", "{weight: 20}, {weight: 100}");
        assert_eq!(judged(&new, Some(&idle)).errors, []);
        // Another spelling is no other style.
        let same =
            with("Progressing", version, "rollouts.kruise.io/rolling-style: Canary", "{weight: 20}, {weight: 100}");
        assert_eq!(judged(&same, Some(&old)).errors, []);
    }
}

#[test]
fn an_unknown_style_is_refused() {
    let text =
        error(&format!("metadata: {{annotations: {{rollouts.kruise.io/rolling-style: bluegreen}}}}{GOOD}"), None);
    assert!(text.contains("rolling-style]: Invalid value: \"bluegreen\": choose canary"), "{text}");
}

#[test]
fn warnings_tell_what_is_probably_not_meant() {
    let steps = |steps: &str, more: &str| {
        format!(
            "spec:\n  workloadRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}\n  strategy: {{canary: {{steps: [{steps}]{more}}}}}"
        )
    };
    let routed = ", trafficRoutings: [{service: web, ingress: {name: web}}]";
    let one_cannot = ", trafficRoutings: [{service: web, ingress: {name: web}, gateway: {httpRouteName: web}}]";
    for (text, expected) in [
        (steps("{replicas: 1, traffic: 10%}, {replicas: 100%}", ""), Some("steps[0]: traffic (\"10%\") routes nothing without spec.strategy.canary.trafficRoutings: name the Service")),
        (steps("{replicas: 1, traffic: 10%}, {replicas: 40%, traffic: 100%}", routed), None),
        (steps("{replicas: 1, traffic: 10%, matches: [{headers: []}]}, {replicas: 100%}", routed), None),
        (steps("{replicas: 1, traffic: 10%, matches: [{headers: []}]}, {replicas: 100%}", one_cannot), Some("steps[0]: matches win over the share (\"10%\")")),
        (steps("{replicas: 20%}", ""), Some("steps[0].replicas: \"20%\": the last step is not 100%: after it everything else rolls at once; end with replicas: 100%")),
        (steps("{replicas: 100%}", ", patchPodTemplateMetadata: {labels: {a: b}}"), Some("in canary style only")),
        (
            steps("{replicas: 100%}", ", enableExtraWorkloadForCanary: true, patchPodTemplateMetadata: {labels: {a: b}}"),
            None,
        ),
        (
            steps("{replicas: 100%}", &format!(", disableGenerateCanaryService: true{routed}")),
            Some("trafficRoutings[0].ingress tells versions apart by Service"),
        ),
        (
            "apiVersion: rollouts.kruise.io/v1alpha1\nspec:\n  objectRef: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n  strategy: {canary: {steps: [{weight: 20}, {weight: 100}]}}".to_owned(),
            None,
        ),
    ] {
        let verdict = judged(&text, None);
        assert_eq!(verdict.errors, [], "{text}");
        match expected {
            None => assert_eq!(verdict.warnings, Vec::<String>::new(), "{text}"),
            Some(part) => assert!(verdict.warnings.len() == 1 && verdict.warnings[0].contains(part), "{text}: {:?}", verdict.warnings),
        }
        // The API server cuts at 256 bytes.
        assert!(verdict.warnings.iter().all(|w| w.len() <= 256));
    }
}

#[test]
fn times_that_nobody_knows_are_refused() {
    let with = |more: &str| format!("{GOOD}  {more}\n");
    let zone = with("changeWindows: [{from: '09:00', to: '16:00', timeZone: Mars}]");
    assert_eq!(
        error(&zone, None),
        "spec.changeWindows[0].timeZone: Invalid value: \"Mars\": \"Mars\" is not known; use a name such as Europe/Berlin or UTC"
    );
    let freeze = with("freezes: [{from: 2026-12-20, to: 2026-02-30}]");
    assert!(error(&freeze, None).starts_with("spec.freezes[0].to: Invalid value: \"2026-02-30\":"));
    assert_eq!(judged(&zone, Some(&zone)).errors, [], "what was stored before is not judged again");
    assert_eq!(judged(&with("freezes: [{from: 2026-12-20, to: 2026-12-20}]"), None), Verdict::default());
}

#[test]
fn hooks_that_cannot_be_asked_are_refused() {
    let with = |hook: &str| GOOD.replace("strategy: {", &format!("strategy: {{hooks: [{hook}], "));
    let good = "{name: a, url: 'https://gate.example/', when: [AfterStep], steps: [1]}";
    assert_eq!(judged(&with(good), None).errors, []);
    for (change, says) in [
        (("steps: [1]", "steps: [9]"), "spec.strategy.hooks[0].steps: Invalid value: [9]: there is no step 9"),
        (("gate.example", "me:secret@gate.example"), "spec.strategy.hooks[0].url: "),
        (("steps: [1]", "timeout: 2m"), "spec.strategy.hooks[0].timeout: Invalid value: \"2m\": is longer than 60s"),
        (("steps: [1]", "interval: 0s"), "spec.strategy.hooks[0].interval: "),
    ] {
        let errors = judged(&with(&good.replace(change.0, change.1)), None).errors;
        assert!(errors.iter().any(|e| e.to_string().starts_with(says)), "{says}: {errors:?}");
    }
}
