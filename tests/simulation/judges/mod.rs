//! What must hold after every committed write, by the numbers of the crate's invariants.

mod bounds;
mod end;
mod record;
mod routes;
mod words;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use serde_json::Value;
use tidegate::{cli::demo::world::CONTROLLER, sim::Write};

pub use self::end::{Ending, Originals, is_over, judge_end};
use self::record::Record;
use crate::world::Eyes;

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which judge saw it.
    pub judge: &'static str,
    /// What it saw.
    pub what: String,
    /// When, and by which write.
    pub time: Timestamp,
    /// Number of the write; 0 for what a moment showed.
    pub write: u64,
}

/// What every judge sees.
pub struct Sight<'a> {
    pub write: &'a Write,
    pub record: &'a Record,
    pub eyes: &'a Eyes,
}

impl Sight<'_> {
    pub fn by_controller(&self) -> bool {
        &*self.write.identity == CONTROLLER
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
}

type Judge = fn(&Sight<'_>) -> Result<(), String>;

/// Every judge of writes. The number is the invariant's.
const JUDGES: &[(&str, Judge)] = &[
    ("1 capacity before traffic", routes::capacity),
    ("1 drained before removal", routes::drained),
    ("2 traffic adds up", routes::sums),
    ("3 only our leaves", bounds::leaves),
    ("6 no uncontrolled release", bounds::held),
    ("6 only allowed versions", routes::allowed),
    ("7 never fewer pods", bounds::ready),
    ("8 a person's word", words::approvals),
    ("10 nothing hijacked", bounds::ours),
    ("11 every wait has a reason", words::reasons),
    ("12 idle costs nothing", words::idle),
    ("write guard", words::guard),
];

/// Judges the writes of one run.
pub struct Court {
    pub eyes: Eyes,
    pub record: Record,
    pub writes: Vec<Write>,
    /// Number of writes before the story.
    pub prologue: usize,
    pub violation: Option<Violation>,
    /// Set with the violation: the controller gets no answers any more.
    pub is_over: Arc<AtomicBool>,
}

/// Writes of one run; the longest story needs a tenth of them.
const MOST_WRITES: usize = 5000;

impl Court {
    /// Takes its seat; `is_calm` says that neither crashes nor faults disturb the controller.
    pub fn new(eyes: Eyes, is_calm: bool) -> Arc<Mutex<Court>> {
        let record = Record::new(is_calm);
        Arc::new(Mutex::new(Court {
            eyes,
            record,
            writes: Vec::new(),
            prologue: 0,
            violation: None,
            is_over: Arc::default(),
        }))
    }

    /// The story begins.
    pub fn open(&mut self) {
        self.prologue = self.writes.len();
        self.record.is_open = true;
    }

    /// Hears a write.
    pub fn hear(&mut self, write: &Write) {
        self.writes.push(write.clone());
        self.record.listen(write, &self.eyes);
        if self.violation.is_none() && self.record.is_open {
            let sight = Sight { write, record: &self.record, eyes: &self.eyes };
            for (judge, verdict) in JUDGES {
                if let Err(what) = verdict(&sight) {
                    self.violation = Some(Violation { judge, what, time: write.time, write: write.n });
                    break;
                }
            }
        }
        self.record.conclude(write, &self.eyes);
        if self.writes.len() == MOST_WRITES {
            self.accuse("liveness", format!("{MOST_WRITES} writes and no end"), write.time);
        }
        if self.violation.is_some() {
            self.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// Something that no single write shows.
    pub fn accuse(&mut self, judge: &'static str, what: String, time: Timestamp) {
        self.violation.get_or_insert(Violation { judge, what, time, write: 0 });
    }
}
