//! Scheduler and kubelet in one: a pod gets a node, an address, runs, becomes ready, and ends.
//!
//! Annotations of a pod (usually set through the template) steer it:
//! `tidegate.test/never-ready` keeps it running but unready; `tidegate.test/ready-after: "90s"` sets its delay;
//! `tidegate.test/fails: ImagePullBackOff` (or `CrashLoopBackOff`) keeps its containers from running, for that reason.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::json::{self, condition, deleting, int, items, text};
use super::super::objects::DeleteOptions;
use super::super::registry::{NODES, PODS};
use super::super::rng::{Rng, hash};
use super::super::store::{Change, Key, Store};
use super::nodes::may_run;
use super::pods::{ready, set_condition};
use super::{Access, Reconcile};

/// A pod with this annotation never becomes ready.
pub const NEVER_READY: &str = "tidegate.test/never-ready";
/// A pod with this annotation becomes ready after this many seconds, such as `90s`.
pub const READY_AFTER: &str = "tidegate.test/ready-after";
/// The containers of a pod with this annotation wait for ever, for the reason that it says.
pub const FAILS: &str = "tidegate.test/fails";

/// Moments of one pod's life.
#[derive(Debug, Clone, Copy)]
struct Life {
    starts: Instant,
    ready: Instant,
    ends: Option<Instant>,
    /// Containers with other images come up.
    restarts: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Kubelet {
    pods: BTreeMap<String, Life>,
    addresses: u32,
}

/// A pod concerns itself; a node that comes, goes or changes the pods on it and those that are on none.
pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    match change.key.kind {
        PODS => keys.push(change.key.clone()),
        NODES => {
            let concerned = |p: &Value| {
                let node = text(p, "/spec/nodeName");
                node.is_empty() || node == change.key.name
            };
            let pods = store.list(PODS, None).filter(|p| concerned(p));
            keys.extend(pods.map(|p| Key::new(PODS, json::namespace(p), json::name(p))));
        }
        _ => {}
    }
}

/// The node for a pod: one of those that it may run on, by the pod's UID.
fn schedule(access: &Access<'_>, pod: &Value) -> Option<String> {
    let state = access.core.lock();
    let spec = pod.get("spec")?;
    let fit: Vec<&str> = state.store.list(NODES, None).filter(|n| may_run(spec, n)).map(|n| json::name(n)).collect();
    let at = hash(json::uid(pod).as_bytes()) % (fit.len() as u64).max(1);
    fit.get(at as usize).map(|n| (*n).to_owned())
}

impl Reconcile for Kubelet {
    fn reconcile(&mut self, access: &Access<'_>, key: &Key) -> Option<Duration> {
        let pod = access.at(key)?;
        let now = Instant::now();
        let uid = json::uid(&pod).to_owned();
        let delays = &access.core.options.delays;
        let mut rng = Rng::new(access.core.options.seed ^ hash(uid.as_bytes()));
        let start = rng.duration(&delays.pod_start);
        let wait = annotated_delay(&pod).unwrap_or_else(|| rng.duration(&delays.pod_ready));
        let stop = rng.duration(&delays.pod_stop);
        let life = self.pods.entry(uid.clone()).or_insert(Life {
            starts: now + start,
            ready: now + start + wait,
            ends: None,
            restarts: None,
        });

        if deleting(&pod) {
            let grace = int(&pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(0).max(0);
            let longest = Duration::from_secs(grace.unsigned_abs());
            let ends = *life.ends.get_or_insert(now + stop.min(longest));
            let ends = ends.min(now + longest);
            if ends > now {
                return Some(ends - now);
            }
            if grace == 0 && !items(&pod, "/metadata/finalizers").is_empty() {
                // Stopped, and kept by a finalizer: unready, but still there.
                self.unready(access, &pod);
                return None;
            }
            self.pods.remove(&uid);
            let options = DeleteOptions { grace: Some(0), uid: Some(uid), ..DeleteOptions::default() };
            access.delete(PODS, &key.namespace, &key.name, &options);
            return None;
        }
        if matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") {
            return None;
        }
        let life = *life;
        let node = text(&pod, "/spec/nodeName");
        if !node.is_empty() && access.at(&Key::new(NODES, "", node)).is_none() {
            // What the garbage collector of pods does some time after a node is gone.
            let options = DeleteOptions { grace: Some(0), uid: Some(uid), ..DeleteOptions::default() };
            access.delete(PODS, &key.namespace, &key.name, &options);
            return None;
        }
        if node.is_empty() {
            let Some(node) = schedule(access, &pod) else {
                // Its life begins when a node comes.
                self.pods.remove(&uid);
                let is_known = items(&pod, "/status/conditions").iter().any(|c| text(c, "/type") == "PodScheduled");
                if !is_known {
                    let at = access.timestamp();
                    let why = "no node is available: none fits";
                    access.update_status(PODS, &pod, |pod| {
                        set_condition(pod, "PodScheduled", "False", "Unschedulable", why, &at, false);
                    });
                }
                return None;
            };
            let at = access.timestamp();
            access.update(PODS, &key.namespace, &key.name, |pod| {
                json::set(pod, &["spec", "nodeName"], node);
                set_condition(pod, "PodScheduled", "True", "", "", &at, false);
            });
            return Some(life.starts.saturating_duration_since(now));
        }
        if now < life.starts {
            return Some(life.starts - now);
        }
        let fails = text(&pod, &format!("/metadata/annotations/{}", FAILS.replace('/', "~1")));
        if !fails.is_empty() {
            if items(&pod, "/status/containerStatuses").is_empty() {
                fail(access, &pod, fails);
            }
            return None;
        }
        let never = pod.pointer(&format!("/metadata/annotations/{}", NEVER_READY.replace('/', "~1"))).is_some();
        let want_ready = !never && now >= life.ready;
        if text(&pod, "/status/phase") != "Running" {
            self.addresses += 1;
            let ip = format!(
                "10.{}.{}.{}",
                200 + (self.addresses >> 16) % 50,
                (self.addresses >> 8) & 0xff,
                self.addresses & 0xff
            );
            run(access, &pod, &ip, want_ready);
        } else if outdated(&pod) {
            let at = *self.pods.get_mut(&uid)?.restarts.get_or_insert(now + rng.duration(&delays.pod_ready));
            if now < at {
                set_ready(access, &pod, false);
                return Some(at - now);
            }
            restart(access, &pod, want_ready);
        } else {
            if let Some(life) = self.pods.get_mut(&uid) {
                life.restarts = None;
            }
            if is_ready_by(&pod, want_ready) != ready(&pod) || containers_ready(&pod) != want_ready {
                set_ready(access, &pod, want_ready);
            }
        }
        (!never && now < life.ready).then(|| life.ready - now)
    }
}

impl Kubelet {
    fn unready(&self, access: &Access<'_>, pod: &Value) {
        if ready(pod) {
            set_ready(access, pod, false);
        }
    }
}

fn annotated_delay(pod: &Value) -> Option<Duration> {
    let text = text(pod, &format!("/metadata/annotations/{}", READY_AFTER.replace('/', "~1")));
    text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs)
}

/// Whether the pod is ready if its containers are as given: its readiness gates have to be open, too.
fn is_ready_by(pod: &Value, containers: bool) -> bool {
    let open = |g: &Value| condition(pod, text(g, "/conditionType")).is_some_and(|c| text(c, "/status") == "True");
    containers && items(pod, "/spec/readinessGates").iter().all(open)
}

fn containers_ready(pod: &Value) -> bool {
    condition(pod, "ContainersReady").is_some_and(|c| text(c, "/status") == "True")
}

/// Whether a container runs another image than it should.
fn outdated(pod: &Value) -> bool {
    items(pod, "/status/containerStatuses").iter().any(|status| {
        let wanted = items(pod, "/spec/containers").iter().find(|c| c.get("name") == status.get("name"));
        wanted.is_some_and(|w| w.get("image") != status.get("image"))
    })
}

fn image_id(image: &str) -> String {
    format!("sha256:{:016x}", hash(image.as_bytes()))
}

/// Containers with other images start again.
fn restart(access: &Access<'_>, pod: &Value, ready: bool) {
    let now = access.timestamp();
    access.update_status(PODS, pod, |pod| {
        let mut statuses = items(pod, "/status/containerStatuses").to_vec();
        for status in &mut statuses {
            let wanted = items(pod, "/spec/containers").iter().find(|c| c.get("name") == status.get("name"));
            let Some(image) = wanted.map(|w| text(w, "/image")).filter(|i| *i != text(status, "/image")) else {
                continue;
            };
            json::set(status, &["image"], image);
            json::set(status, &["imageID"], image_id(image));
            json::set(status, &["restartCount"], int(status, "/restartCount").unwrap_or(0) + 1);
            json::set(status, &["state"], json!({"running": {"startedAt": now}}));
        }
        statuses.iter_mut().for_each(|s| json::set(s, &["ready"], ready));
        json::set(pod, &["status", "containerStatuses"], statuses);
        conditions(pod, ready, &now);
    });
}

fn run(access: &Access<'_>, pod: &Value, ip: &str, ready: bool) {
    let now = access.timestamp();
    access.update_status(PODS, pod, |pod| {
        let containers: Vec<Value> = items(pod, "/spec/containers")
            .iter()
            .map(|c| {
                json!({"name": text(c, "/name"), "image": text(c, "/image"), "imageID": image_id(text(c, "/image")), "ready": ready, "started": true,
                    "restartCount": 0, "state": {"running": {"startedAt": now}}})
            })
            .collect();
        json::set(pod, &["status", "phase"], "Running");
        json::set(pod, &["status", "podIP"], ip);
        json::set(pod, &["status", "podIPs"], json!([{"ip": ip}]));
        json::set(pod, &["status", "hostIP"], "192.168.0.1");
        json::set(pod, &["status", "startTime"], now.clone());
        json::set(pod, &["status", "containerStatuses"], containers);
        set_condition(pod, "Initialized", "True", "", "", &now, false);
        conditions(pod, ready, &now);
    });
}

fn fail(access: &Access<'_>, pod: &Value, reason: &str) {
    let now = access.timestamp();
    access.update_status(PODS, pod, |pod| {
        let crashes = reason == "CrashLoopBackOff";
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "told to fail", "finishedAt": now}});
        let containers: Vec<Value> = items(pod, "/spec/containers")
            .iter()
            .map(|c| {
                json!({"name": text(c, "/name"), "image": text(c, "/image"), "imageID": "", "ready": false, "started": false,
                    "restartCount": if crashes { 5 } else { 0 }, "lastState": if crashes { ended.clone() } else { json!({}) },
                    "state": {"waiting": {"reason": reason, "message": "told to wait"}}})
            })
            .collect();
        json::set(pod, &["status", "phase"], if crashes { "Running" } else { "Pending" });
        json::set(pod, &["status", "startTime"], now.clone());
        json::set(pod, &["status", "containerStatuses"], containers);
        conditions(pod, false, &now);
    });
}

fn set_ready(access: &Access<'_>, pod: &Value, ready: bool) {
    let now = access.timestamp();
    access.update_status(PODS, pod, |pod| {
        if let Some(Value::Array(containers)) = pod.pointer_mut("/status/containerStatuses") {
            containers.iter_mut().for_each(|c| json::set(c, &["ready"], ready));
        }
        conditions(pod, ready, &now);
    });
}

fn conditions(pod: &mut Value, containers: bool, now: &str) {
    const UNREADY: (&str, &str) = ("ContainersNotReady", "containers with unready status");
    const CLOSED: (&str, &str) = ("ReadinessGatesNotReady", "readiness gates are not \"True\"");
    let ready = is_ready_by(pod, containers);
    for (kind, holds, (reason, message)) in
        [("ContainersReady", containers, UNREADY), ("Ready", ready, if containers { CLOSED } else { UNREADY })]
    {
        if holds {
            set_condition(pod, kind, "True", "", "", now, false);
        } else {
            set_condition(pod, kind, "False", reason, message, now, false);
        }
    }
}
