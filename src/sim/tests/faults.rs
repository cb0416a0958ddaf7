use std::sync::{Arc, Mutex};

use kube::api::{Patch, PatchParams, PostParams};

use super::*;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(config_map(name, json!({"k": "v"}))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_seen_by_its_client_only() {
    for (fault, expected, written) in [
        (Fault::Conflict, Some(409), false),
        (Fault::TooManyRequests, Some(429), false),
        (Fault::InternalError, Some(500), false),
        (Fault::TimeoutBefore, None, false),
        (Fault::TimeoutAfter, None, true),
    ] {
        let cluster = Cluster::builder().seed(5).object(config_map("a", json!({}))).build().unwrap();
        cluster.add_fault(Rule::new("controller", fault.clone()).on(&[Verb::Patch]).resource("configmaps").times(1));
        let before = cluster.writes();
        let change = Patch::Merge(json!({"data": {"k": "w"}}));
        let none = PatchParams::default();
        let hit: Api<ConfigMap> = api(&cluster, "controller");
        match (hit.patch("a", &none, &change).await, expected) {
            (Err(kube::Error::Api(status)), Some(code)) => assert_eq!(status.code, code, "{fault:?}"),
            (Err(kube::Error::Api(status)), None) => assert_eq!(status.code, 504, "{fault:?}"),
            (Err(_), None) => {}
            (other, _) => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(cluster.writes() > before, written, "{fault:?}");
        hit.patch("a", &none, &change).await.unwrap();
        let user: Api<ConfigMap> = api(&cluster, "user");
        user.patch("a", &none, &Patch::Merge(json!({"data": {"k": "x"}}))).await.unwrap();
        assert_eq!(cluster.fault_counts().get(&(Arc::from("controller"), fault.name())), Some(&1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_swallows_the_answer_and_everything_after() {
    let cluster = cluster();
    cluster.crash_after("controller", 2);
    let crashed = cluster.crashed("controller");
    let maps: Api<ConfigMap> = api(&cluster, "controller");
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let process = tokio::spawn({
        let maps = maps.clone();
        async move { maps.create(&PostParams::default(), &map("b")).await }
    });
    crashed.await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!process.is_finished(), "the second write never gets an answer");
    let revived: Api<ConfigMap> = Api::default_namespaced(cluster.revive("controller"));
    revived.get("b").await.unwrap();
    let zombie = tokio::time::timeout(Duration::from_secs(600), maps.get("b")).await;
    assert!(zombie.is_err(), "the old process stays dead");
    process.abort();
}

#[tokio::test(start_paused = true)]
async fn late_events_come_late_and_in_order() {
    use futures::StreamExt;
    let cluster = cluster();
    let range = Duration::from_secs(5)..=Duration::from_secs(9);
    cluster.add_fault(Rule::new("controller", Fault::WatchDelay(range)).resource("configmaps"));
    let maps: Api<ConfigMap> = api(&cluster, "controller");
    let user: Api<ConfigMap> = api(&cluster, "user");
    let start = tokio::time::Instant::now();
    let mut stream = kube::runtime::watcher(maps, Default::default()).boxed();
    for _ in 0..2 {
        stream.next().await;
    }
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 5 {
            if let Some(Ok(kube::runtime::watcher::Event::Apply(o))) = stream.next().await {
                seen.push((o.metadata.name.unwrap(), start.elapsed()));
            }
        }
        seen
    });
    for name in ["a", "b", "c", "d", "e"] {
        user.create(&PostParams::default(), &map(name)).await.unwrap();
    }
    let seen = reader.await.unwrap();
    let names: Vec<&str> = seen.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert!(seen.iter().all(|(_, at)| *at >= Duration::from_secs(5)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_gap_loses_events_until_the_next_list() {
    use futures::StreamExt;
    use kube::runtime::watcher::Event;
    let cluster = cluster();
    cluster.add_fault(Rule::new("controller", Fault::WatchGap(1)).resource("configmaps").times(1));
    let maps: Api<ConfigMap> = api(&cluster, "controller");
    let user: Api<ConfigMap> = api(&cluster, "user");
    let mut stream = kube::runtime::watcher(maps, Default::default()).boxed();
    let mut seen = Vec::new();
    for _ in 0..2 {
        stream.next().await;
    }
    let reader = tokio::spawn(async move {
        while seen.len() < 6 {
            seen.push(match stream.next().await.unwrap() {
                Ok(Event::Apply(o)) => format!("+{}", o.metadata.name.unwrap()),
                Ok(Event::InitApply(o)) => format!("i{}", o.metadata.name.unwrap()),
                Ok(Event::Init) => "init".into(),
                Ok(Event::InitDone) => "done".into(),
                Ok(Event::Delete(_)) => "-".into(),
                Err(_) => "error".into(),
            });
        }
        seen
    });
    for name in ["a", "b"] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        user.create(&PostParams::default(), &map(name)).await.unwrap();
    }
    let seen = tokio::time::timeout(Duration::from_secs(3600), reader).await.unwrap().unwrap();
    assert_eq!(seen, ["+a", "error", "init", "ia", "ib", "done"]);
}

/// The whole history of a cluster: same seed, same writes.
fn history(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::builder().seed(seed).object(deployment("web", 5, "web:1")).build().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        cluster.on_write(Box::new(move |w| {
            sink.lock().unwrap().push(format!("{} {} {} {} {:?}", w.n, w.time, w.identity, w.name, w.after));
        }));
        cluster.add_fault(Rule::new("user", Fault::TimeoutAfter).chance(0.3));
        cluster.add_fault(Rule::new("user", Fault::Latency(Duration::ZERO..=Duration::from_secs(3))).chance(0.5));
        let deployments: Api<Deployment> = api(&cluster, "user");
        for i in 0..6 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let change = json!({"spec": {"template": {"metadata": {"labels": {"v": i.to_string()}}}}});
            let _ = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await;
        }
        settle().await;
        let log = log.lock().unwrap();
        assert!(log.len() > 50);
        log.clone()
    })
}

#[test]
fn same_seed_same_history() {
    assert_eq!(history(11), history(11));
    assert_ne!(history(11), history(12));
}
