//! A rolling upgrade of the controller while many releases go on: none moves by it, and none is lost.

use std::collections::BTreeSet;

use super::*;

/// `RELEASES=200` is the promise; as many as take seconds otherwise.
fn releases() -> usize {
    std::env::var("RELEASES").map_or(30, |n| n.parse().unwrap())
}

/// Releases of a namespace: the cluster's controllers look at whole namespaces.
const OF_A_TEAM: usize = 10;

struct Fleet {
    cluster: Cluster,
    count: usize,
}

fn team(i: usize) -> String {
    format!("team-{}", i / OF_A_TEAM)
}

impl Fleet {
    fn new(count: usize) -> Fleet {
        let mut builder = install(Cluster::builder()).unwrap().namespace(NAMESPACE);
        for i in 0..count.div_ceil(OF_A_TEAM) {
            builder = builder.namespace(&format!("team-{i}"));
        }
        for i in 0..count {
            let (meta, app) =
                (json!({"name": format!("web-{i}"), "namespace": team(i)}), json!({"app": format!("web-{i}")}));
            // Some wait for a person, some for a time that does not come meanwhile.
            let pause = if i % 4 == 0 { json!({"duration": 36_000}) } else { json!({}) };
            builder = builder
                .object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                    "spec": {"replicas": 2, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                             "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}}))
                .object(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta,
                    "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("web-{i}")},
                        "strategy": {"canary": {"steps": [{"replicas": 1, "pause": pause}, {"replicas": "100%"}]}}}}));
        }
        Fleet { cluster: builder.build().unwrap(), count }
    }

    fn get(&self, gvr: &Gvr, i: usize) -> Value {
        (*self.cluster.get(gvr, &team(i), &format!("web-{i}")).unwrap()).clone()
    }

    fn status(&self, i: usize) -> Value {
        self.get(&Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"), i)["status"].clone()
    }

    fn deployment(&self, i: usize) -> Value {
        self.get(&Gvr::new("apps", "v1", "deployments"), i)
    }

    async fn until(&self, what: &str, all: impl Iterator<Item = usize>, holds: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        let mut left: Vec<usize> = all.collect();
        while !left.is_empty() {
            left.retain(|i| !holds(&self.status(*i)));
            assert!(
                begin.elapsed() < 900 * SECOND,
                "{what}: {} are not, such as {:#}",
                left.len(),
                self.status(left[0])
            );
            sleep(SECOND / 2).await;
        }
    }

    async fn release(&self, all: impl Iterator<Item = usize>) {
        for i in all {
            let api =
                kube::Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(self.cluster.client("user"), &team(i));
            let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
            api.patch(&format!("web-{i}"), &Default::default(), &kube::api::Patch::Strategic(change)).await.unwrap();
        }
    }

    async fn approve(&self, i: usize) {
        let api = kube::Api::<Rollout>::namespaced(self.cluster.client("user"), &team(i));
        let word = json!({"status": {"canaryStatus": {"currentStepState": "StepReady"}}});
        api.patch_status(&format!("web-{i}"), &Default::default(), &kube::api::Patch::Merge(word)).await.unwrap();
    }

    async fn led_by(&self, who: &str) {
        let begin = Instant::now();
        while holder(&self.cluster.view()) != who {
            assert!(begin.elapsed() < 20 * SECOND, "{who} does not lead");
            sleep(SECOND / 10).await;
        }
    }
}

fn is_waiting(status: &Value) -> bool {
    status["currentStepIndex"] == 1 && status["currentStepState"] == "StepPaused"
}

#[test]
fn a_rolling_upgrade_during_many_releases_moves_none_and_loses_none() {
    in_virtual_time(async {
        let fleet = Fleet::new(releases());
        let record = Record::of(&fleet.cluster, &["a", "b", "c", "d"]);
        let start = |who: &str, skew: i64| {
            let stop = CancellationToken::new();
            let options = replica_options(&fleet.cluster, skew, Health::new([CACHES, lease::ELECTION]));
            let run = controller::run_elected(fleet.cluster.client(who), options, election(who), stop.clone());
            let (freeze, work) = process(run);
            (stop, freeze, tokio::spawn(work))
        };
        // The old version; the clocks of the two are four hours apart.
        let (stop_a, _freeze_a, a) = start("a", 7200);
        fleet.led_by("a").await;
        let (stop_b, freeze_b, b) = start("b", -7200);
        fleet.until("healthy", 0..fleet.count, |s| s["phase"] == "Healthy").await;
        // Nine of ten wait at their first step, the others have just begun.
        let late = |i: &usize| i % 10 == 9;
        fleet.release((0..fleet.count).filter(|i| !late(i))).await;
        fleet.until("waiting", (0..fleet.count).filter(|i| !late(i)), is_waiting).await;
        let stand = |i: usize| {
            let deployment = fleet.deployment(i);
            let mut status = fleet.status(i);
            // A time that is yet to come, by a clock that is right, counts from now.
            status["canaryStatus"]["lastUpdateTime"].take();
            (status, deployment["spec"].clone(), deployment["metadata"]["annotations"].clone())
        };
        let before: Vec<_> = (0..fleet.count).filter(|i| !late(i)).map(|i| (i, stand(i))).collect();
        fleet.release((0..fleet.count).filter(late)).await;

        // As a Deployment replaces its pods: one more, then one of the old ones leaves. The second old one stands still
        // when it would take over, and wakes up when another leads.
        let (_stop_c, _freeze_c, _c) = start("c", 0);
        sleep(SECOND).await;
        freeze_b.send(true).unwrap();
        stop_a.cancel();
        a.await.unwrap();
        fleet.led_by("c").await;
        freeze_b.send(false).unwrap();
        let (stop_d, _freeze_d, d) = start("d", 60);
        sleep(5 * SECOND).await;
        stop_b.cancel();
        b.await.unwrap();
        // Once more, so that a replica of the new version takes over from one of the new version.
        sleep(30 * SECOND).await;
        fleet.led_by("c").await;
        stop_d.cancel();
        d.await.unwrap();

        fleet.until("those that had begun wait too", (0..fleet.count).filter(late), is_waiting).await;
        for (i, stood) in before {
            assert_eq!(stand(i), stood, "release {i} has moved");
        }
        let wrote: BTreeSet<String> = record.count().into_keys().collect();
        assert_eq!(wrote, BTreeSet::from(["a".to_owned(), "c".to_owned()]), "who led");
        for i in 0..fleet.count {
            let updated = fleet.deployment(i)["status"]["updatedReplicas"].clone();
            assert_eq!(updated, 1, "release {i}");
            fleet.approve(i).await;
        }
        fleet.until("done", 0..fleet.count, |s| s["phase"] == "Healthy").await;
        for i in 0..fleet.count {
            let deployment = fleet.deployment(i);
            assert_eq!(deployment["status"]["updatedReplicas"], 2, "release {i}");
            assert_eq!(mark(&deployment), None, "release {i}");
        }
    });
}

fn mark(deployment: &Value) -> Option<&Value> {
    deployment["metadata"]["annotations"].get("rollouts.kruise.io/in-progressing")
}
