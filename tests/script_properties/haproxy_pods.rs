//! The Ingress class whose shares are of pods by label, in one annotation for all paths.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestCaseError};
use serde_json::{Value, json};

use crate::{
    in_place::{Class, annotations},
    ingress::{check, object},
    row::{Backend, ENGINE, Role, is_ours, match_step, split_is_right, weight_step},
};

const BALANCE: &str = "haproxy-ingress.github.io/blue-green-balance";
const HAPROXY_PODS: Class = Class { name: "haproxy-pods", is_one: true };

/// Pods that are told apart: `track` is what the canary's pods are patched with.
const PODS: [(&str, Role); 3] =
    [("track=stable", Role::Stable), ("track=canary", Role::Canary), ("tier=batch", Role::Other)];

fn objects() -> BoxedStrategy<Value> {
    // HAProxy counts to 256: shares of few per cent beside large ones come out rough.
    let entries = (select(vec![1_u32, 3, 7]), vec(prop::option::of(select(vec![0_u32, 1, 3])), 2));
    let balance = entries.prop_map(|(stable, others)| {
        let weights = [Some(stable)].into_iter().chain(others);
        let entries = PODS.iter().zip(weights).filter_map(|((pods, _), weight)| Some(format!("{pods}={}", weight?)));
        entries.collect::<Vec<_>>().join(",")
    });
    let path = (select(vec!["/", "/a"]), select(vec!["app", "app", "legacy"])).prop_map(|(path, service)| {
        json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}})
    });
    (balance, vec(path, 1..4))
        .prop_map(|(balance, paths)| {
            let annotations = BTreeMap::from([
                (BALANCE.to_owned(), balance),
                ("haproxy-ingress.github.io/timeout-server".to_owned(), "5s".to_owned()),
            ]);
            object(&json!({"rules": [{"host": "a.example.com", "http": {"paths": paths}}]}), &annotations)
        })
        .boxed()
}

fn pods(annotations: &mut BTreeMap<String, String>) -> Vec<Backend> {
    let entry = |text: &str| {
        let (pods, weight) = text.rsplit_once('=').unwrap();
        let role = PODS.iter().find(|(of, _)| *of == pods).unwrap().1;
        Backend { role, weight: weight.parse().unwrap(), rest: json!(pods) }
    };
    annotations.remove(BALANCE).unwrap().split(',').map(entry).collect()
}

#[test]
fn weight_steps_split_what_is_ours() {
    check(objects(), |object| {
        let routes = object["spec"].to_string().contains("\"app\"");
        for weight in [0, 1, 20, 33, 50, 99, 100] {
            let mut before = annotations(object);
            let old = pods(&mut before);
            let result = HAPROXY_PODS.run(&ENGINE, object, &weight_step(weight));
            prop_assert_eq!(result.is_ok(), routes && is_ours(&old), "{:?}", result);
            let Ok(mut parts) = result else { continue };
            let new = pods(&mut parts.annotations);
            prop_assert_eq!(&parts.spec, &object["spec"]);
            prop_assert_eq!(before, parts.annotations);
            prop_assert!(new.iter().all(|entry| entry.weight <= 256));
            split_is_right(&old, &new, u64::from(weight))
                .map_err(|e| TestCaseError::fail(format!("{weight} %: {e}\n{old:#?}\n{new:#?}")))?;
        }
        Ok(())
    });
}

#[test]
fn match_steps_are_refused() {
    check(objects(), |object| {
        prop_assert!(HAPROXY_PODS.run(&ENGINE, object, &match_step(&["x-one"])).is_err());
        Ok(())
    });
}

#[test]
fn steps_follow_each_other_and_the_end_restores() {
    let steps = [weight_step(20), weight_step(33), weight_step(0), weight_step(100)];
    check(objects(), |object| HAPROXY_PODS.steps_follow_each_other_and_the_end_restores(object, &steps));
}
