use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;

use super::*;

async fn names(
    stream: &mut (impl futures::Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
    n: usize,
) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < n {
        let Ok(next) = tokio::time::timeout(Duration::from_secs(7200), stream.next()).await else {
            panic!("no more events after {seen:?}");
        };
        match next.unwrap() {
            Ok(watcher::Event::Apply(o)) => seen.push(format!("+{}", o.name_any())),
            Ok(watcher::Event::InitApply(o)) => seen.push(format!("i{}", o.name_any())),
            Ok(watcher::Event::Delete(o)) => seen.push(format!("-{}", o.name_any())),
            Ok(watcher::Event::Init) => seen.push("init".into()),
            Ok(watcher::Event::InitDone) => seen.push("done".into()),
            Err(e) => seen.push(format!("error {e}")),
        }
    }
    seen
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(config_map(name, json!({"k": "v"}))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lists_and_follows() {
    for streaming in [false, true] {
        let cluster = cluster();
        let maps: Api<ConfigMap> = api(&cluster, "user");
        maps.create(&PostParams::default(), &map("a")).await.unwrap();
        let config = if streaming { watcher::Config::default().streaming_lists() } else { watcher::Config::default() };
        let mut stream = watcher(maps.clone(), config).boxed();
        assert_eq!(names(&mut stream, 3).await, ["init", "ia", "done"]);
        maps.create(&PostParams::default(), &map("b")).await.unwrap();
        assert_eq!(names(&mut stream, 1).await, ["+b"]);
        let change = Patch::Merge(json!({"data": {"k": "w"}}));
        maps.patch("a", &PatchParams::default(), &change).await.unwrap();
        maps.patch("a", &PatchParams::default(), &change).await.unwrap();
        maps.delete("b", &Default::default()).await.unwrap();
        assert_eq!(names(&mut stream, 2).await, ["+a", "-b"], "a write that changes nothing makes no event");
        // The server ends a watch after its timeout; the watcher goes on without a new list.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        maps.create(&PostParams::default(), &map("c")).await.unwrap();
        assert_eq!(names(&mut stream, 1).await, ["+c"], "streaming: {streaming}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_history_is_gone_and_listed_again() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "controller");
    let user: Api<ConfigMap> = api(&cluster, "user");
    let mut stream = watcher(maps, watcher::Config::default()).boxed();
    assert_eq!(names(&mut stream, 2).await, ["init", "done"]);
    cluster.break_watches("controller");
    user.create(&PostParams::default(), &map("a")).await.unwrap();
    let seen = names(&mut stream, 4).await;
    assert!(seen[0].contains("error") && seen[0].contains("too old resource version"), "{seen:?}");
    assert_eq!(seen[1..], ["init", "ia", "done"]);
    user.create(&PostParams::default(), &map("b")).await.unwrap();
    assert_eq!(names(&mut stream, 1).await, ["+b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_starts_after_its_version() {
    let cluster = Cluster::builder().history(3).build().unwrap();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    let first = maps.create(&PostParams::default(), &map("a")).await.unwrap().resource_version().unwrap();
    maps.create(&PostParams::default(), &map("b")).await.unwrap();
    let mut stream = maps.watch(&WatchParams::default(), &first).await.unwrap().boxed();
    match stream.try_next().await.unwrap() {
        Some(WatchEvent::Added(o)) => assert_eq!(o.name_any(), "b"),
        other => panic!("{other:?}"),
    }
    for name in ["c", "d", "e"] {
        maps.create(&PostParams::default(), &map(name)).await.unwrap();
    }
    let mut stream = maps.watch(&WatchParams::default(), &first).await.unwrap().boxed();
    match stream.try_next().await.unwrap() {
        Some(WatchEvent::Error(status)) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let mut stream = watcher(maps.clone(), watcher::Config::default().labels("x=1")).boxed();
    assert_eq!(names(&mut stream, 2).await, ["init", "done"]);
    for value in ["1", "2"] {
        let change = Patch::Merge(json!({"metadata": {"labels": {"x": value}}}));
        maps.patch("a", &PatchParams::default(), &change).await.unwrap();
    }
    assert_eq!(names(&mut stream, 2).await, ["+a", "-a"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_is_served_to_those_who_ask() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let list = maps.list_metadata(&Default::default()).await.unwrap();
    let found: BTreeSet<String> = list.items.iter().map(|o| o.name_any()).collect();
    assert!(found.contains("a"));
    assert_eq!(maps.get_metadata("a").await.unwrap().name_any(), "a");
}
