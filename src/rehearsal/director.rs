//! Has everything happen in its time, and waits for the end.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    deeds::People,
    judges::{self, Bench, is_over, judge_end, sit},
    process::Processes,
    script::{Script, State, When},
    world::{self, Eyes, is_ready},
};
use crate::{
    api::object::{at, int, text},
    sim::Cluster,
};

/// A release whose people have done their part ends within this time.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Events that wait for a state which never comes are given up so long after the last one with a time.
const HOPE: Duration = Duration::from_secs(90);
/// What people still have to do is given up so long after that: it waits for something that never comes.
const DESPAIR: Duration = Duration::from_secs(4 * 3600);
/// From the end of all faults until whatever waits for a retry has had its time.
const CALM: Duration = Duration::from_secs(120);
/// How long nothing may happen at the end.
const IDLE: Duration = Duration::from_secs(900);

/// Has the events of a script played, and sees to the end.
pub struct Director<'a> {
    pub people: People,
    cluster: Cluster,
    bench: Bench,
    eyes: Eyes,
    processes: Processes,
    script: &'a Script,
    curtain: Instant,
    /// When each event is due, once that is known.
    waits: Vec<Option<Instant>>,
    done: Vec<bool>,
    /// Moments and faults by the state of the release in which they happened.
    pub states: BTreeMap<(&'static str, &'static str), u64>,
}

impl<'a> Director<'a> {
    pub fn new(
        cluster: &Cluster,
        bench: &Bench,
        eyes: Eyes,
        processes: &Processes,
        script: &'a Script,
    ) -> Director<'a> {
        Director {
            people: People::new(cluster, bench, processes, script),
            cluster: cluster.clone(),
            bench: bench.clone(),
            eyes,
            processes: processes.clone(),
            script,
            curtain: Instant::now(),
            waits: vec![None; script.events.len()],
            done: vec![false; script.events.len()],
            states: BTreeMap::new(),
        }
    }

    /// Until the workload stands as it is at the start.
    pub async fn wait_for_pods(&self) {
        let wanted = usize::try_from(self.script.setup.replicas).unwrap_or_default();
        while self.eyes.pods().iter().filter(|p| is_ready(p)).count() < wanted {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn accuse(&self, judge: &'static str, what: String) {
        sit(&self.bench).accuse(judge, what, self.cluster.clock().now());
    }

    fn is_broken(&self) -> bool {
        sit(&self.bench).violation.is_some()
    }

    /// Everything, from the first Rollout to the last look.
    pub async fn direct(&mut self) -> anyhow::Result<()> {
        {
            let mut court = sit(&self.bench);
            court.record.is_open = true;
            court.record.stable = world::name_of(&world::Version::FIRST);
            court.record.wanted = court.record.stable.clone();
        }
        self.people.begin()?;
        let limit = Instant::now() + Duration::from_secs(120);
        while self.state().0 != State::Idle {
            if self.is_broken() {
                return Ok(());
            }
            if Instant::now() > limit {
                self.accuse("liveness", format!("the Rollout is not healthy: {}", self.status()));
                return Ok(());
            }
            self.next_ring(Instant::now() + Duration::from_secs(1)).await;
        }
        self.curtain = Instant::now();
        self.people.start();
        self.play_events().await;
        if self.is_broken() {
            return Ok(());
        }
        self.end().await;
        Ok(())
    }

    fn status(&self) -> String {
        self.eyes
            .rollout()
            .map_or_else(|| "there is none".to_owned(), |r| r.get("status").map(Value::to_string).unwrap_or_default())
    }

    /// State of the release, and its step.
    fn state(&self) -> (State, i64) {
        state_of(self.eyes.rollout().as_deref())
    }

    /// Until a Rollout is written, or a moment comes.
    async fn next_ring(&self, until: Instant) {
        let bell = sit(&self.bench).bell.clone();
        let _ = tokio::time::timeout_at(until, bell.notified()).await;
    }

    fn see(&mut self) {
        let now = Instant::now();
        let (state, step) = self.state();
        for (event, due) in self.script.events.iter().zip(&mut self.waits) {
            let at = match event.when {
                When::At(ms) => Some(self.curtain + Duration::from_millis(ms)),
                // A state before the first release is none that anybody waits for.
                When::In(wanted, of, ms) if wanted == state && (of == step || of == 0) && self.people.has_pushed => {
                    Some(now + Duration::from_millis(ms))
                }
                When::In(..) => None,
            };
            *due = due.or(at);
        }
    }

    /// Events that are due, in order of their moments.
    fn due(&self) -> Option<(usize, Instant)> {
        let open = self.waits.iter().zip(&self.done).enumerate().filter(|(_, (_, done))| !**done);
        open.filter_map(|(i, (due, _))| due.map(|d| (i, d))).min_by_key(|(i, d)| (*d, *i))
    }

    async fn play_events(&mut self) {
        let last = self.script.events.iter().filter_map(|e| match e.when {
            When::At(ms) => Some(ms),
            When::In(..) => None,
        });
        let hope = self.curtain + Duration::from_millis(last.max().unwrap_or(0)) + HOPE;
        let mut hope = hope;
        while !self.is_broken() {
            self.see();
            let now = Instant::now();
            if let Some((index, due)) = self.due()
                && due <= now
            {
                if let Some(done) = self.done.get_mut(index) {
                    *done = true;
                }
                if let Some(event) = self.script.events.get(index) {
                    let state = self.state().0;
                    if self.people.act(event.act).await {
                        *self.states.entry((event.act.kind.as_str(), state.as_str())).or_default() += 1;
                    }
                    hope = hope.max(Instant::now() + HOPE);
                }
                continue;
            }
            if self.people.do_next().await {
                continue;
            }
            let is_done = self.done.iter().all(|d| *d);
            if (is_done || now >= hope) && (!self.people.is_busy() || now >= hope + DESPAIR) {
                return;
            }
            let mut until = if now < hope { hope } else { now + Duration::from_secs(5) };
            for moment in [self.due().map(|(_, d)| d), self.people.next_due()].into_iter().flatten() {
                until = until.min(moment);
            }
            self.next_ring(until).await;
        }
    }

    /// Faults stop, people mend what they broke, approve what waits, and it must come to its end.
    async fn end(&mut self) {
        self.people.mend().await;
        let patience = Instant::now() + PATIENCE;
        let calm = Instant::now() + CALM;
        let ending = loop {
            if self.is_broken() {
                return;
            }
            while self.people.do_next().await {}
            let (ending, wanted) = (self.people.ending(), self.people.wanted());
            match is_over(&self.eyes, ending, &wanted) {
                Ok(()) if !self.people.is_busy() => break ending,
                Ok(()) => {}
                Err(why) if Instant::now() > patience => {
                    let judge = if self.people.has_approved_what_waits() { "8 a person's word" } else { "liveness" };
                    return self.accuse(judge, format!("it does not end: {why}; the status is {}", self.status()));
                }
                Err(_) => {}
            }
            let mut until = Instant::now() + Duration::from_secs(10);
            if let Some(due) = self.people.next_due() {
                until = until.min(due);
            }
            self.next_ring(until).await;
        };
        tokio::time::sleep_until(calm.max(Instant::now() + Duration::from_secs(10))).await;
        if self.is_broken() {
            return;
        }
        if let Err(what) = judge_end(&self.eyes, &self.people.originals, ending, &self.people.wanted()) {
            return self.accuse("4 restore is exact", what);
        }
        sit(&self.bench).record.is_calm = true;
        let before = (self.processes.requests.load(Ordering::Relaxed), self.cluster.writes());
        tokio::time::sleep(IDLE).await;
        let after = (self.processes.requests.load(Ordering::Relaxed), self.cluster.writes());
        if before != after {
            self.accuse(
                "12 idle costs nothing",
                format!("{} requests and {} writes after the end", after.0 - before.0, after.1 - before.1),
            );
        }
    }
}

/// State and step of a Rollout.
fn state_of(rollout: Option<&Value>) -> (State, i64) {
    let Some(rollout) = rollout else { return (State::Finalising, 0) };
    let status = |path: &[&str]| at(rollout, &["status"]).map(|s| text(s, path).to_owned()).unwrap_or_default();
    let step = int(world::release(rollout), &["currentStepIndex"]).unwrap_or_default();
    match status(&["phase"]).as_str() {
        "Healthy" | "Disabled" => return (State::Idle, 0),
        "Progressing" if !judges::is_winding_up(rollout) => {}
        "" | "Initial" => return (State::Before, 0),
        _ => return (State::Finalising, step),
    }
    let state = match text(world::release(rollout), &["currentStepState"]) {
        "StepUpgrade" => State::Upgrade,
        "StepTrafficRouting" | "StepMetricsAnalysis" => State::Routing,
        "StepPaused" => State::Paused,
        "StepReady" => State::Ready,
        _ => State::Before,
    };
    (state, step)
}
