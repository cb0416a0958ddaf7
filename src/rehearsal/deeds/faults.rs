//! What chance does to the cluster, to pods and to the controller.

use std::{sync::atomic::Ordering, time::Duration};

use kube::api::{DeleteParams, Patch};
use serde_json::json;
use tokio::time::Instant;

use super::{NONE, People, Todo};
use crate::{
    api::object,
    rehearsal::{
        judges::{Topic, sit},
        process::CONTROLLER,
        script::{Act, Kind},
        world::is_ready,
    },
    sim::{Fault, NEVER_READY, Rule, Verb},
};

impl People {
    pub(super) async fn strike(&mut self, act: Act) -> bool {
        const WRITES: [Verb; 3] = [Verb::Create, Verb::Patch, Verb::Delete];
        let Act { kind, arg } = act;
        let ms = Duration::from_millis;
        let until = Instant::now() + Duration::from_secs(arg.unsigned_abs());
        let rule = |fault| Rule::new(CONTROLLER, fault).until(until);
        match kind {
            Kind::Conflict => self.cluster.add_fault(rule(Fault::Conflict).on(&WRITES).chance(0.3)),
            Kind::TooManyRequests => self.cluster.add_fault(rule(Fault::TooManyRequests).chance(0.3)),
            Kind::InternalError => self.cluster.add_fault(rule(Fault::InternalError).chance(0.3)),
            Kind::TimeoutBefore => self.cluster.add_fault(rule(Fault::TimeoutBefore).chance(0.3)),
            Kind::TimeoutAfter => self.cluster.add_fault(rule(Fault::TimeoutAfter).on(&WRITES).chance(0.4)),
            Kind::Latency => self.cluster.add_fault(rule(Fault::Latency(ms(1)..=ms(900))).chance(0.5)),
            Kind::WatchGap => {
                let events = u32::try_from(self.rng.below(8)).unwrap_or_default();
                self.cluster.add_fault(rule(Fault::WatchGap(events)).chance(0.6));
                self.cluster.break_watches(CONTROLLER);
            }
            Kind::WatchBreak => self.cluster.break_watches(CONTROLLER),
            Kind::Stale => {
                self.cluster.add_fault(rule(Fault::WatchDelay(ms(100)..=ms(6000))).chance(0.6));
                self.cluster.break_watches(CONTROLLER);
            }
            Kind::Duplicate => {
                self.cluster.add_fault(rule(Fault::WatchRepeat));
                self.cluster.break_watches(CONTROLLER);
            }
            Kind::Flap | Kind::Evict => return self.hit_a_pod(act).await,
            Kind::Crash => self.cluster.crash_after(CONTROLLER, arg.unsigned_abs()),
            // Nobody goes who is not there.
            Kind::Away if self.away_until.is_some_and(|until| Instant::now() < until) => return false,
            Kind::Away => {
                self.away_until = Some(Instant::now() + Duration::from_secs(arg.unsigned_abs() * 60 + 1));
                sit(&self.bench).record.excuse_longer(self.cluster.clock().now(), arg * 60 + 1);
                self.processes.away.store(arg.unsigned_abs() * 60_000, Ordering::Relaxed);
                self.cluster.crash_after(CONTROLLER, 0);
            }
            Kind::Twins => {
                // Without a Lease between them, one may take away what the other has just routed to.
                self.excuse(&[Topic::Requests], arg + 30);
                let period = Duration::from_secs(arg.unsigned_abs());
                tokio::spawn(self.processes.clone().run_twin(period));
            }
            Kind::Clock => {
                self.excuse(&[Topic::Grace], 180);
                self.processes.skew.fetch_add(arg * 1000, Ordering::Relaxed);
            }
            _ => return false,
        }
        true
    }

    async fn hit_a_pod(&mut self, act: Act) -> bool {
        let ready: Vec<String> =
            self.eyes.pods().iter().filter(|p| is_ready(p)).map(|p| object::name(p).to_owned()).collect();
        let choice = usize::try_from(self.rng.below(ready.len() as u64)).unwrap_or_default();
        let Some(pod) = ready.get(choice) else { return false };
        let api = self.api("chaos", "v1", "Pod");
        if act.kind == Kind::Evict {
            self.excuse(&[Topic::Requests, Topic::Pods], 60);
            return api.delete(pod, &DeleteParams::default()).await.is_ok();
        }
        self.excuse(&[Topic::Requests, Topic::Pods], act.arg + 60);
        let patch = json!({"metadata": {"annotations": {NEVER_READY: "true"}}});
        self.plan_to(Duration::from_secs(act.arg.unsigned_abs()), Todo::Heal(pod.clone()));
        api.patch(pod, &NONE, &Patch::Merge(patch)).await.is_ok()
    }
}
