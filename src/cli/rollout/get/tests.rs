use serde_json::{Value, json};

use super::{super::view::fixtures::*, *};

fn now() -> Timestamp {
    "2026-11-22T05:15:00Z".parse().unwrap()
}

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn the_table() {
    let fresh = with(at(1, ""), &json!({"metadata": {"name": "fresh"}, "status": null}));
    let stalled = with(
        at(2, "StepTrafficRouting"),
        &json!({"metadata": {"name": "stuck"}, "status": {"conditions": [
        {"type": "Stalled", "status": "True", "reason": "ScriptFailed", "message": "script:\nline 3"}]}}),
    );
    let rollouts = [typed(&at(1, "StepPaused")), typed(&fresh), typed(&stalled), typed(&blue_green(1, "StepPaused"))];
    assert_eq!(
        render_table(&rollouts, now()),
        "\
NAME            STATUS        STEP   STATE                WEIGHT   MESSAGE                   AGE
rollouts-demo   Progressing   1/2    StepPaused           20%      Rollout is in step(1/2)   15m
fresh           -             -      -                    -        -                         15m
stuck           Progressing   2/2    StepTrafficRouting   20%      script: line 3            15m
rollouts-demo   Progressing   1/2    StepPaused           50%      Rollout is in step(1/2)   15m
"
    );
}

#[test]
fn the_wide_table_of_all_namespaces() {
    let columns = Columns { namespace: true, wide: true, bare: false };
    assert_eq!(
        render_columns(&[typed(&at(2, "StepPaused"))], now(), columns),
        "\
NAMESPACE   NAME            STATUS        STEP   STATE        WEIGHT   MESSAGE                   AGE   STYLE    WORKLOAD                      STABLE    CANARY   READY
shop        rollouts-demo   Progressing   2/2    StepPaused   match    Rollout is in step(2/2)   15m   Canary   Deployment/nginx-deployment   stable1   rev2     1/1
"
    );
}

#[test]
fn a_watch_prints_each_change_once() {
    let mut printer = Printer::new(None, Columns::default());
    let mut see = |event| printer.observe(event, now()).unwrap();
    assert_eq!(see(Event::Init), "");
    assert_eq!(see(Event::InitApply(object(&at(1, "StepUpgrade")))), "");
    assert_eq!(see(Event::InitDone).lines().count(), 2);
    assert_eq!(see(Event::Apply(object(&at(1, "StepUpgrade")))), "", "nothing changed");
    let line = see(Event::Apply(object(&at(1, "StepPaused"))));
    assert_eq!(line, "rollouts-demo   Progressing   1/2    StepPaused    20%      Rollout is in step(1/2)   15m\n");
    assert_eq!(see(Event::Init), "");
    assert_eq!(see(Event::InitApply(object(&at(1, "StepPaused")))), "", "a list again, nothing new");
    assert_eq!(see(Event::InitDone), "");
    assert!(see(Event::Delete(object(&at(1, "StepPaused")))).starts_with("rollouts-demo   Deleted"));
}
