use jiff::Timestamp;

use super::{super::facts::Webhooks, *};

fn trusted() -> Webhooks {
    Webhooks { is_there: true, untrusted: Vec::new() }
}

fn leader(holder: &str, age: i64) -> Leader {
    Leader { namespace: "tidegate".to_owned(), holder: holder.to_owned(), age, lasts: 10 }
}

const OURS: &str = "tidegate-7d5f_0123456789abcdef";
const THEIRS: &str = "kruise-rollout-controller-manager-5c_0f0e6a3c-2f1c-4a73-9d0b-2a6f6a1f5d11";

fn route() -> Used {
    Used {
        kind: "networking.istio.io/VirtualService".to_owned(),
        by: "Rollout shop/web".to_owned(),
        place: String::new(),
        is_served: true,
        lacking: Ok(Vec::new()),
        script: Some(Some("built-in")),
        mistake: None,
    }
}

fn policies(there: usize) -> Policies {
    Policies { there, wanted: 18, other: Vec::new() }
}

/// An installation in which all is well.
fn sound() -> Facts {
    let definition =
        Definition { name: "rollouts".to_owned(), is_established: true, is_current: true, older: Vec::new() };
    Facts {
        now: Timestamp::UNIX_EPOCH,
        server: Ok("v1.36.3".to_owned()),
        definitions: Ok(vec![definition]),
        policies: Ok(policies(18)),
        controllers: Ok(vec![env!("CARGO_PKG_VERSION").to_owned()]),
        conversion: Some(Ok(())),
        rivals: Ok(Vec::new()),
        holding: Ok(Webhooks::default()),
        validating: Ok(trusted()),
        approvers: Ok(trusted()),
        answer: Ok(()),
        certificate: Ok(Some(Timestamp::from_second(80 * 24 * 3600).unwrap())),
        leaders: Ok(vec![leader(OURS, 2)]),
        originals: Ok(Vec::new()),
        begun: Ok(Vec::new()),
        used: Ok(vec![route()]),
        namespaces: Ok(Vec::new()),
        unwatched: Ok(Vec::new()),
    }
}

#[test]
fn a_sound_installation_has_nothing_to_mend() {
    let findings = judge(&sound());
    assert!(findings.iter().all(|f| f.level == Level::Ok), "{findings:#?}");
    assert!(findings.len() >= 9, "{findings:#?}");
    assert_eq!(
        findings.last().unwrap().to_string(),
        "ok    networking.istio.io/VirtualService (Rollout shop/web): served, with the rights that it needs, by the built-in script"
    );
}

#[test]
fn everything_that_is_wrong_is_told_with_its_remedy() {
    type Harm = fn(&mut Facts);
    let wrong = |text: &str| Err::<(), _>(text.to_owned());
    assert!(wrong("x").is_err());
    let cases: &[(Harm, &str, &str)] = &[
        (|f| f.server = Err("no answer".to_owned()), "FAIL  API server: no answer", ""),
        (
            |f| f.definitions.as_mut().unwrap()[0].is_established = false,
            "FAIL  definition rollouts: it is not there",
            "tidegate crd",
        ),
        (
            |f| f.definitions.as_mut().unwrap()[0].is_current = false,
            "warn  definition rollouts: its schema is not",
            "helm upgrade",
        ),
        (
            |f| f.definitions.as_mut().unwrap()[0].older = vec!["v1alpha1".to_owned()],
            "warn  definition rollouts: objects may still be stored as v1alpha1",
            "tidegate migrate",
        ),
        (
            |f| f.server = Ok("v1.30.4".to_owned()),
            "FAIL  API server: v1.30.4 is older than 1.33",
            "upgrade the cluster",
        ),
        (
            |f| f.controllers = Ok(vec!["0.0.9".to_owned()]),
            "warn  version of the controller: 0.0.9, and this is tidegate",
            "upgrade",
        ),
        (
            |f| f.policies.as_mut().unwrap().other = vec!["tidegate-hold-deployments".to_owned()],
            "warn  hold of changed workloads: 1 of 18 admission policies and bindings are not this version's, tidegate-hold-deployments",
            "tidegate policy",
        ),
        (
            |f| f.conversion = Some(Err("no endpoints".to_owned())),
            "FAIL  webhook that converts: Rollouts cannot be read as v1alpha1: no endpoints",
            "spec.conversion of definition rollouts.rollouts.kruise.io",
        ),
        (
            |f| {
                f.rivals = Ok(vec![Rival {
                    who: "Canary shop/web of Flagger".to_owned(),
                    workload: "Deployment shop/web".to_owned(),
                    by: "Rollout shop/web".to_owned(),
                }]);
            },
            "FAIL  other controllers of the same workloads: Deployment shop/web is rolled out by Rollout shop/web and by Canary shop/web of Flagger",
            "delete one",
        ),
        (
            |f| f.used.as_mut().unwrap()[0].mistake = Some("line 3: unexpected symbol".to_owned()),
            "FAIL  networking.istio.io/VirtualService (Rollout shop/web): its script does not work: line 3",
            "tidegate lua lint",
        ),
        (|f| f.policies = Ok(policies(0)), "FAIL  hold of changed workloads: nothing holds them", "tidegate policy"),
        (|f| f.policies = Ok(policies(16)), "FAIL  hold of changed workloads: only 16 of 18", "tidegate policy"),
        (|f| f.policies = Err("forbidden".to_owned()), "warn  hold of changed workloads: not looked at: forbidden", ""),
        (|f| f.validating = Ok(Webhooks::default()), "warn  webhook that validates: it is not there", "authority"),
        (
            |f| f.validating = Ok(Webhooks { is_there: true, untrusted: vec!["vrollout.kb.io".to_owned()] }),
            "FAIL  webhook that validates: vrollout.kb.io without a caBundle",
            "its log",
        ),
        (
            |f| f.approvers = Ok(Webhooks::default()),
            "warn  webhook that names approvers: it is not there",
            "nobody is named",
        ),
        (|f| f.answer = Err("connection refused".to_owned()), "FAIL  webhooks answer: connection refused", "endpoints"),
        (
            |f| f.now = Timestamp::from_second(70 * 24 * 3600).unwrap(),
            "warn  serving certificate: it ends in 10 days",
            "log",
        ),
        (|f| f.now = Timestamp::from_second(81 * 24 * 3600).unwrap(), "FAIL  serving certificate: it has ended", "log"),
        (|f| f.leaders = Ok(vec![leader(OURS, 60)]), "FAIL  leader: nobody leads", "pods"),
        (
            |f| f.leaders = Ok(vec![leader(THEIRS, 1)]),
            "FAIL  leader: kruise-rollout-controller-manager-5c_",
            "tidegate adopt",
        ),
        (
            |f| f.leaders = Ok(vec![leader(OURS, 1), leader(OURS, 1)]),
            "FAIL  leader: tidegate-7d5f",
            "let one of the two",
        ),
        (
            |f| f.originals = Ok(vec!["Deployment kruise-rollout/m".to_owned()]),
            "FAIL  other controllers: Deployment kruise-rollout/m",
            "scale it to 0",
        ),
        (
            |f| f.begun = Ok(vec!["shop/web".to_owned()]),
            "FAIL  releases of OpenKruise Rollouts: 1 begun",
            "tidegate adopt -A",
        ),
        (
            |f| f.used.as_mut().unwrap()[0].is_served = false,
            "FAIL  networking.istio.io/VirtualService (Rollout shop/web): the API server does not",
            "",
        ),
        (
            |f| f.used.as_mut().unwrap()[0].lacking = Ok(vec!["watch".to_owned(), "patch".to_owned()]),
            "FAIL  networking.istio.io/VirtualService (Rollout shop/web): the controller may not watch, patch it",
            "tidegate rbac --for networking.istio.io/VirtualService",
        ),
        (
            |f| {
                let used = &mut f.used.as_mut().unwrap()[0];
                (used.place, used.lacking) = ("shop".to_owned(), Ok(vec!["patch".to_owned()]));
            },
            "FAIL  networking.istio.io/VirtualService (Rollout shop/web): the controller may not patch it in namespace shop",
            "bind ClusterRole tidegate there",
        ),
        (
            |f| {
                let used = &mut f.used.as_mut().unwrap()[0];
                (used.kind, used.script, used.lacking) = ("batch/Job".to_owned(), None, Ok(vec!["create".to_owned()]));
            },
            "FAIL  batch/Job (Rollout shop/web): the controller may not create it",
            "`jobs.enabled`",
        ),
        (
            |f| {
                f.namespaces = Ok(vec!["shop".to_owned(), "checkout".to_owned()]);
                f.unwatched = Ok(vec!["Rollout ops/web".to_owned()]);
            },
            "warn  namespaces: only shop, checkout watched: 1 Rollouts and TrafficRoutings elsewhere are not worked on, Rollout ops/web first",
            "the chart's `namespaces`",
        ),
        (
            |f| f.used.as_mut().unwrap()[0].script = Some(None),
            "FAIL  networking.istio.io/VirtualService (Rollout shop/web): there is no script",
            "kruise-rollout-configuration",
        ),
    ];
    for (harm, begins, remedy) in cases {
        let mut facts = sound();
        harm(&mut facts);
        let bad: Vec<String> = judge(&facts).iter().filter(|f| f.level != Level::Ok).map(ToString::to_string).collect();
        assert!(bad.len() == 1 && bad[0].starts_with(begins) && bad[0].contains(remedy), "{begins}: {bad:#?}");
    }
}

#[test]
fn what_stands_in_for_something_is_sound() {
    let mut by_webhook = sound();
    (by_webhook.policies, by_webhook.holding) = (Ok(policies(0)), Ok(trusted()));
    assert!(judge(&by_webhook).iter().all(|f| f.level == Level::Ok));
    let mut kept_by_others = sound();
    kept_by_others.certificate = Ok(None);
    assert!(judge(&kept_by_others).iter().all(|f| f.level == Level::Ok));
    let mut in_some = sound();
    in_some.namespaces = Ok(vec!["shop".to_owned()]);
    let findings = judge(&in_some);
    assert!(findings.iter().all(|f| f.level == Level::Ok), "{findings:?}");
    assert!(findings.iter().any(|f| f.text == "only shop watched, and no Rollout is elsewhere"), "{findings:?}");
    // A Lease that was left behind is nobody.
    let mut left = sound();
    left.leaders.as_mut().unwrap().push(leader(THEIRS, 3600));
    assert!(judge(&left).iter().all(|f| f.level == Level::Ok));
}
