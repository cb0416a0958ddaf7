//! Every kind but Deployment goes through the same stories.

mod audit;
mod blue_green;
mod definitions;
mod endings;
mod nodes;
mod releases;

use serde_json::{Value, json};
use tidegate::api::object;

use crate::{
    stage::{Row, Stage, pods},
    stories::partition,
};

pub const STATEFUL_SET: Row = Row {
    api_version: "apps/v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    spec: |n| json!({"replicas": n, "serviceName": "nginx-service"}),
    definition: None,
    is_on_nodes: false,
    behaves_as: None,
};

pub const DAEMON_SET: Row = Row {
    api_version: "apps/v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    spec: |_| json!({}),
    definition: None,
    is_on_nodes: true,
    behaves_as: None,
};

fn definition(plural: &str) -> Value {
    let file = format!("{}/tests/e2e/crds/{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
    tidegate::yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Served in one version alone, as on a cluster of that time.
fn only(plural: &str, version: &str) -> Value {
    let mut definition = definition(plural);
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    versions.retain(|v| v["name"] == version);
    versions.iter_mut().for_each(|v| v["storage"] = json!(true));
    definition
}

const fn kruise(
    (api_version, kind, plural): (&'static str, &'static str, &'static str),
    spec: fn(usize) -> Value,
    definition: fn() -> Value,
) -> Row {
    Row { api_version, kind, plural, spec, definition: Some(definition), is_on_nodes: false, behaves_as: None }
}

pub const CLONE_SET: Row =
    kruise(("apps.kruise.io/v1beta1", "CloneSet", "clonesets"), |n| json!({"replicas": n}), || definition("clonesets"));
pub const OLDER_CLONE_SET: Row = Row { api_version: "apps.kruise.io/v1alpha1", ..CLONE_SET };
pub const ADVANCED_STATEFUL_SET: Row = kruise(
    ("apps.kruise.io/v1beta1", "StatefulSet", "statefulsets"),
    |n| json!({"replicas": n, "serviceName": "nginx-service"}),
    || definition("statefulsets"),
);
pub const ADVANCED_DAEMON_SET: Row = Row {
    is_on_nodes: true,
    ..kruise(("apps.kruise.io/v1alpha1", "DaemonSet", "daemonsets"), |_| json!({}), || only("daemonsets", "v1alpha1"))
};
pub const NEWER_ADVANCED_DAEMON_SET: Row =
    Row { api_version: "apps.kruise.io/v1beta1", definition: Some(|| definition("daemonsets")), ..ADVANCED_DAEMON_SET };

/// Of a kind that nobody knows by name.
pub const GAME_SERVER_SET: Row = Row {
    behaves_as: Some("StatefulSet"),
    ..kruise(
        ("games.example.com/v1beta1", "GameServerSet", "gameserversets"),
        |n| json!({"replicas": n}),
        || definition("gameserversets"),
    )
};

/// A kind, with what its stories need to know of it.
struct Kind {
    row: &'static Row,
    /// The user's own settings, whatever they are.
    own: fn() -> Value,
    /// Of ten pods, so many are ready at every moment.
    least: usize,
}

const KINDS: &[Kind] = &[
    Kind { row: &STATEFUL_SET, own: || json!({}), least: 9 },
    Kind { row: &STATEFUL_SET, own: || json!({"podManagementPolicy": "Parallel"}), least: 9 },
    Kind {
        row: &STATEFUL_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"partition": 3}}, "minReadySeconds": 4}),
        least: 9,
    },
    Kind { row: &DAEMON_SET, own: || json!({}), least: 9 },
    Kind {
        row: &DAEMON_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}, "minReadySeconds": 3}),
        least: 7,
    },
    Kind { row: &DAEMON_SET, own: || json!({"updateStrategy": {"type": "OnDelete"}}), least: 9 },
    Kind { row: &CLONE_SET, own: || json!({}), least: 8 },
    Kind {
        row: &CLONE_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"partition": "20%", "podUpdatePolicy": "InPlaceIfPossible", "maxSurge": 1, "maxUnavailable": 0}}}),
        least: 10,
    },
    Kind {
        row: &OLDER_CLONE_SET,
        own: || json!({"updateStrategy": {"type": "InPlaceIfPossible", "partition": 3}}),
        least: 8,
    },
    Kind { row: &ADVANCED_STATEFUL_SET, own: || json!({"reserveOrdinals": [1, 4]}), least: 9 },
    Kind {
        row: &ADVANCED_STATEFUL_SET,
        own: || json!({"podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 3, "partition": 2, "unorderedUpdate": {}}}}),
        least: 7,
    },
    Kind { row: &ADVANCED_DAEMON_SET, own: || json!({}), least: 9 },
    Kind {
        row: &ADVANCED_DAEMON_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"rollingUpdateType": "Surging", "maxSurge": "30%"}}}),
        least: 10,
    },
    Kind {
        row: &NEWER_ADVANCED_DAEMON_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"partition": 4}}}),
        least: 9,
    },
    Kind { row: &GAME_SERVER_SET, own: || json!({}), least: 9 },
    Kind {
        row: &GAME_SERVER_SET,
        own: || json!({"podManagementPolicy": "Parallel", "minReadySeconds": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
        least: 9,
    },
];

const KEYS: [&str; 3] = ["in-progressing", "original-partition", "daemonset-original-update-strategy"];

/// One of each kind, and all settings where `all` of them are to be played.
async fn each<F: AsyncFn(&Kind)>(all: bool, story: F) {
    let is_first = |i: usize, kind: &Kind| {
        let before = KINDS.iter().take(i);
        !before.clone().any(|k| {
            object::group(k.row.api_version) == object::group(kind.row.api_version) && k.row.kind == kind.row.kind
        })
    };
    for (_, kind) in KINDS.iter().enumerate().filter(|(i, kind)| all || is_first(*i, kind)) {
        eprintln!("{} {}", kind.row.kind, (kind.own)());
        story(kind).await;
    }
}

impl Kind {
    async fn stage(&self, strategy: &Value) -> Stage {
        Stage::of(self.row, 10, &(self.own)(), strategy).await
    }

    fn assert_kept_enough(&self, stage: &Stage) {
        let least = stage.seen().0;
        assert!(least >= self.least, "never fewer pods than promised: {least} of {}", self.least);
    }
}

/// Nothing of ours is left but the switch of the hold, and every field but the template is what it was.
fn assert_restored(stage: &Stage, before: &Value) {
    let (mut before, after) = (before.clone(), stage.workload());
    before["spec"]["template"] = after["spec"]["template"].clone();
    assert_eq!(before["spec"], after["spec"]);
    let annotations = after["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let ours: Vec<_> = annotations.keys().filter(|k| KEYS.iter().any(|ours| k.ends_with(ours))).collect();
    assert!(ours.is_empty(), "{ours:?}");
    for pod in pods(&stage.view) {
        assert!(!pod["metadata"].to_string().contains("rollouts.kruise.io"), "{}", pod["metadata"]);
    }
}

fn steps() -> Value {
    partition(json!([{"replicas": "20%"}, {"replicas": 5}, {"replicas": "100%"}]))
}
