//! What must hold after every committed write, by the numbers of the crate's invariants.

mod barriers;
mod bounds;
mod end;
mod plan;
mod proxy;
mod record;
mod routes;
mod shares;
mod words;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;

pub use self::{
    end::{Originals, is_over, judge_end},
    record::Topic,
    words::is_winding_up,
};
use self::{proxy::Proxy, record::Record, routes::Sent};
use super::{
    process::{CONTROLLER, Servers},
    script::Setup,
    timeline::is_telling,
    world::{Eyes, WORKLOAD},
};
use crate::sim::{View, Write};

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which judge saw it.
    pub judge: &'static str,
    /// What it saw.
    pub what: String,
    /// When.
    pub time: Timestamp,
    /// Number of the write; 0 for what a moment showed.
    pub write: u64,
}

/// What every judge sees at some moment.
pub struct Scene<'a> {
    pub record: &'a Record,
    pub eyes: &'a Eyes,
    pub setup: &'a Setup,
    pub now: Timestamp,
    /// The cluster as the gateway knows it, where that is not how it is.
    pub known: Option<View>,
    pub sent: &'a Sent,
    pub servers: &'a Servers,
}

impl Scene<'_> {
    pub fn is_excused(&self, topic: Topic) -> bool {
        self.record.is_excused(topic, self.now)
    }

    /// Pods that the workload wants, or wanted a moment ago if that was less.
    pub fn replicas(&self) -> i64 {
        self.record.replicas(self.eyes, self.now)
    }
}

/// What judges of writes see.
pub struct Sight<'a> {
    pub write: &'a Write,
    scene: Scene<'a>,
}

impl<'a> std::ops::Deref for Sight<'a> {
    type Target = Scene<'a>;

    fn deref(&self) -> &Scene<'a> {
        &self.scene
    }
}

impl Sight<'_> {
    pub fn by_controller(&self) -> bool {
        by_controller(self.write)
    }

    pub fn resource(&self) -> &str {
        &self.write.gvr.resource
    }

    pub fn before(&self) -> &Value {
        self.write.before.as_deref().unwrap_or(&Value::Null)
    }

    pub fn after(&self) -> &Value {
        self.write.after.as_deref().unwrap_or(&Value::Null)
    }

    /// It writes the workload itself.
    pub fn is_of_workload(&self) -> bool {
        self.resource() == self.setup.workload.resource().2 && self.write.name == WORKLOAD
    }
}

/// Whether the controller wrote, or its twin.
pub fn by_controller(write: &Write) -> bool {
    write.identity.starts_with(CONTROLLER)
}

type Judge = fn(&Sight<'_>) -> Result<(), String>;

/// Every judge of writes. The number is the invariant's.
const JUDGES: &[(&str, Judge)] = &[
    ("1 capacity before traffic", routes::capacity),
    ("1 drained before removal", routes::drained),
    ("2 traffic adds up", shares::sums),
    ("3 only our leaves", bounds::leaves),
    ("6 no uncontrolled release", bounds::held),
    ("6 only allowed versions", routes::allowed),
    ("6 the right share", shares::share),
    ("7 never fewer pods", bounds::ready),
    ("8 a person's word", words::approvals),
    ("10 nothing hijacked", bounds::ours),
    ("11 every wait has a reason", words::reasons),
    ("12 idle costs nothing", words::idle),
    ("the hours", barriers::hours),
    ("the gates", barriers::gates),
    ("the metrics", barriers::metrics),
    ("the hooks", barriers::hooks),
    ("write guard", words::guard),
];

type JudgeOfMoments = fn(&Scene<'_>) -> Result<(), String>;

/// What must hold at every moment, also when nothing is written.
const MOMENTS: &[(&str, JudgeOfMoments)] = &[("1 capacity before traffic", routes::requests)];

/// Nothing was written for so long: one look a minute will do.
const SETTLED: Duration = Duration::from_secs(15);

/// Judges the writes of one rehearsal.
pub struct Court {
    eyes: Eyes,
    setup: Setup,
    proxy: Proxy,
    sent: Sent,
    pub servers: Servers,
    pub record: Record,
    /// The story, if it is to be told.
    pub writes: Option<Vec<Write>>,
    /// Committed writes since the curtain, and those of the controller.
    pub counts: (usize, usize),
    pub violation: Option<Violation>,
    /// Set with the violation: the controller gets no answers any more.
    pub is_over: Arc<AtomicBool>,
    /// Rung when a Rollout was written.
    pub bell: Arc<Notify>,
    /// Rung when there is something for the gateway to learn.
    pub news: Arc<Notify>,
    /// Identity, verb, object and moment of every write so far.
    pub hash: u64,
}

/// Shared by the cluster and the people.
pub type Bench = Arc<Mutex<Court>>;

/// The court, whatever happened to its last holder.
pub fn sit(bench: &Bench) -> MutexGuard<'_, Court> {
    bench.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes of one rehearsal; the longest needs a fifth of them.
const MOST_WRITES: usize = 20_000;

impl Court {
    /// Takes its seat.
    pub fn new(eyes: Eyes, setup: &Setup, servers: Servers, tells: bool) -> Bench {
        Arc::new(Mutex::new(Court {
            eyes,
            setup: setup.clone(),
            proxy: Proxy::new(setup),
            sent: Sent::default(),
            servers,
            record: Record::default(),
            writes: tells.then(Vec::new),
            counts: (0, 0),
            violation: None,
            is_over: Arc::default(),
            bell: Arc::default(),
            news: Arc::default(),
            hash: 0xcbf2_9ce4_8422_2325,
        }))
    }

    /// Hears a write.
    pub fn hear(&mut self, write: &Write) {
        if !self.record.is_open {
            return;
        }
        if routes::is_on_the_way(write, &self.setup) {
            self.sent = Sent::default();
        }
        self.counts.0 += 1;
        self.counts.1 += usize::from(by_controller(write));
        self.note(write);
        if let Some(writes) = self.writes.as_mut().filter(|_| is_telling(write)) {
            writes.push(write.clone());
        }
        self.record.listen(write, &self.setup);
        self.proxy.hear(write);
        if self.proxy.learn(write.time) {
            self.sent.forget_late();
        }
        if self.proxy.next().is_some() {
            self.news.notify_one();
        }
        if self.violation.is_none() {
            let scene = self.scene(write.time);
            let sight = Sight { write, scene };
            for (judge, verdict) in JUDGES {
                if let Err(what) = verdict(&sight) {
                    self.violation = Some(Violation { judge, what, time: write.time, write: write.n });
                    break;
                }
            }
        }
        self.record.conclude(write, &self.sent, &self.eyes, &self.setup);
        if self.counts.0 == MOST_WRITES {
            self.accuse("liveness", format!("{MOST_WRITES} writes and no end"), write.time);
        }
        if self.violation.is_some() {
            self.is_over.store(true, Ordering::Relaxed);
        }
        if write.gvr.resource == "rollouts" || self.violation.is_some() {
            self.bell.notify_one();
        }
    }

    fn scene(&self, now: Timestamp) -> Scene<'_> {
        let known = self.proxy.view(&self.eyes.view);
        Scene {
            record: &self.record,
            eyes: &self.eyes,
            setup: &self.setup,
            now,
            known,
            sent: &self.sent,
            servers: &self.servers,
        }
    }

    /// Looks at a moment. When to look again.
    pub fn look(&mut self, now: Timestamp) -> Duration {
        if self.proxy.learn(now) {
            self.sent.forget_late();
        }
        if !self.record.is_open || self.violation.is_some() {
            return SETTLED;
        }
        let scene = self.scene(now);
        let wrong = MOMENTS.iter().find_map(|(judge, verdict)| verdict(&scene).err().map(|what| (*judge, what)));
        if let Some((judge, what)) = wrong {
            self.accuse(judge, what, now);
            self.bell.notify_one();
        }
        let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
        let last = self.record.last_cause.max(self.record.last_write).map_or(SETTLED, since);
        let calm = if last < SETTLED { Duration::from_secs(1) } else { Duration::from_secs(60) };
        let next = self.proxy.next().and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        next.map_or(calm, |next| next.min(calm))
    }

    /// Something that no single write shows.
    pub fn accuse(&mut self, judge: &'static str, what: String, time: Timestamp) {
        self.violation.get_or_insert(Violation { judge, what, time, write: 0 });
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn note(&mut self, write: &Write) {
        // Events are named by the wall clock.
        let name = if write.gvr.resource == "events" { "" } else { &write.name };
        let time = write.time.as_nanosecond().to_le_bytes();
        for part in [write.identity.as_bytes(), write.gvr.resource.as_bytes(), name.as_bytes(), &time] {
            for byte in part {
                self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
    }
}
