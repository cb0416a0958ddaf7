//! The engine: worker threads with VMs kept ready, and the caches.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    ErrorKind, Library, Limits, Outcome, Script, ScriptError,
    cache::Lru,
    compile::{self, SyntaxError},
    fingerprint::fingerprint,
    vm::{self, Prelude, Vm},
};

/// Deep recursion in the VM and its compiler is bounded by counts; this is what those counts may need at most, with
/// room for a build without optimisation.
const STACK_BYTES: usize = 8 << 20;
/// VMs kept ready by each worker.
const READY: usize = 2;
/// What a run may take beyond its wall limit, for conversion on a busy machine, before its worker is given up.
const GRACE: Duration = Duration::from_secs(5);
/// Workers given up at most; beyond that the process is in a state that only a restart mends.
const MOST_LOST: usize = 16;
/// Sum of the compiled scripts kept, in bytes.
const COMPILED_BYTES: usize = 64 << 20;
/// Sum of the results kept, in bytes.
const RESULT_BYTES: usize = 32 << 20;

type Key = [u8; 32];
type Compiled = Result<Arc<[u8]>, SyntaxError>;
type Answer = Result<Outcome, ScriptError>;
type Observer = Box<dyn Fn(&Script, Result<u64, ErrorKind>, Duration) + Send + Sync>;

/// Runs scripts. A cheap handle to worker threads that end when the last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    workers: Arc<Workers>,
    observer: OnceLock<Observer>,
    memory: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Worker threads and caches.
struct Workers {
    shared: Arc<Shared>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_all();
    }
}

struct Shared {
    limits: Limits,
    prelude: Result<Prelude, String>,
    queue: Mutex<Queue>,
    wake: Condvar,
    compiled: Mutex<Lru<Key, Compiled>>,
    results: Mutex<Lru<Key, Arc<Answer>>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    workers: usize,
    lost: usize,
}

struct Job {
    script: Script,
    digest: Key,
    /// None: compile only.
    input: Option<Value>,
    state: Arc<AtomicU8>,
    reply: mpsc::Sender<Event>,
}

enum Event {
    Compiled(Compiled),
    Done(vm::Run),
}

/// States of a job. Caller and worker agree by them on who still waits for whom.
const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const GIVEN_UP: u8 = 3;

/// Takes the job from one state to the next; false if the other side was first.
fn turn(state: &AtomicU8, from: u8, to: u8) -> bool {
    state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves none of what is guarded half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", self.limits()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with this many worker threads (at least one) and default limits.
    pub fn new(workers: usize) -> Self {
        Self::with_limits(workers, Limits::default())
    }

    /// An engine with this many worker threads (at least one) and these limits.
    pub fn with_limits(workers: usize, limits: Limits) -> Self {
        Self::with_shared(workers, limits, &Library::shared())
    }

    /// An engine whose scripts find these functions in their global `tidegate`, for tools that work on them. If they do
    /// not compile, every run fails.
    pub fn with_shared(workers: usize, limits: Limits, functions: &[Script]) -> Self {
        let shared = Arc::new(Shared {
            prelude: Prelude::compile(functions),
            queue: Mutex::default(),
            wake: Condvar::new(),
            compiled: Mutex::new(Lru::new(limits.compiled, COMPILED_BYTES)),
            results: Mutex::new(Lru::new(limits.results, RESULT_BYTES)),
            limits,
        });
        for _ in 0..workers.max(1) {
            // If there is no thread to be had now, `submit` tries again and reports it.
            let _ = spawn_worker(&shared);
        }
        Self::of(Arc::new(Workers { shared }))
    }

    fn of(workers: Arc<Workers>) -> Self {
        Self { inner: Arc::new(Inner { workers, observer: OnceLock::new(), memory: OnceLock::new() }) }
    }

    /// The same workers, compiled scripts and results under another handle, which has no observer and remembers nothing:
    /// what another process would have. Results are functions of script and input, so nobody can tell the difference.
    pub fn anew(&self) -> Self {
        Self::of(self.inner.workers.clone())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.workers.shared
    }

    /// The limits that every run is held to.
    pub fn limits(&self) -> &Limits {
        &self.shared().limits
    }

    /// Calls a function after every run, with the steps that it used or how it failed, and how long its caller waited for
    /// it. Results that are known from an earlier run are no runs. Only the first observer counts.
    pub fn observe(&self, observer: impl Fn(&Script, Result<u64, ErrorKind>, Duration) + Send + Sync + 'static) {
        // A second observer would be a second owner of the counters.
        let _ = self.inner.observer.set(Box::new(observer));
    }

    /// What the callers of this engine remember of its results: it lives and is shared as the engine is. An engine has
    /// room for one type; a second is never remembered.
    pub fn memory<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let memory = self.inner.memory.get_or_init(|| Arc::new(T::default()));
        Arc::clone(memory).downcast().unwrap_or_default()
    }

    /// Compiled scripts and results that are kept.
    pub fn kept(&self) -> (usize, usize) {
        (lock(&self.shared().compiled).len(), lock(&self.shared().results).len())
    }

    /// Runs the script with `obj` as its only global. Blocks the calling thread, for at most the wall limit and a
    /// small overhead once a worker is free.
    ///
    /// # Errors
    /// See [`ErrorKind`]. All but [`ErrorKind::Time`] come out the same for the same script and input.
    pub fn run(&self, script: &Script, obj: &Value) -> Result<Outcome, ScriptError> {
        let shared = self.shared();
        let limits = &shared.limits;
        let digest = self.compile_limits(script)?;
        let input = fingerprint(obj, limits)
            .map_err(|m| ScriptError::new(ErrorKind::Input, script, None, &m, limits.error_bytes))?;
        let key: Key = Sha256::new()
            .chain_update(digest)
            .chain_update(input)
            .chain_update(script.name.as_bytes())
            .finalize()
            .into();
        if let Some(known) = lock(&shared.results).get(&key) {
            return (*known).clone();
        }
        let started = Instant::now();
        let event = self.submit(script, digest, Some(obj.clone()));
        if let Some(observer) = self.inner.observer.get() {
            let used = match &event {
                Ok(Event::Done((Ok(outcome), _))) => Ok(outcome.fuel_used),
                Ok(Event::Done((Err(error), _))) | Err(error) => Err(error.kind),
                Ok(Event::Compiled(_)) => Err(ErrorKind::Syntax),
            };
            observer(script, used, started.elapsed());
        }
        let (answer, weight) = match event? {
            Event::Done(run) => run,
            Event::Compiled(Err(e)) => (Err(syntax_error(script, &e, limits)), 0),
            Event::Compiled(Ok(_)) => (Err(fault(script, limits, "no result")), 0),
        };
        if limits.results > 0 && answer.as_ref().err().is_none_or(|e| e.kind.is_deterministic()) {
            let answer = Arc::new(answer.clone());
            // Parsed JSON takes some five times the room of its text.
            lock(&shared.results).put(key, answer, weight * 5 + limits.error_bytes);
        }
        answer
    }

    /// Compiles the script without running it.
    ///
    /// # Errors
    /// [`ErrorKind::Syntax`] with the line, or [`ErrorKind::Time`] when no worker was free.
    pub fn check(&self, script: &Script) -> Result<(), ScriptError> {
        let digest = self.compile_limits(script)?;
        let known = lock(&self.shared().compiled).get(&digest);
        let compiled = match known {
            Some(compiled) => compiled,
            None => match self.submit(script, digest, None)? {
                Event::Compiled(compiled) => compiled,
                Event::Done(_) => return Err(fault(script, self.limits(), "no result")),
            },
        };
        compiled.map(|_| ()).map_err(|e| syntax_error(script, &e, self.limits()))
    }

    fn compile_limits(&self, script: &Script) -> Result<Key, ScriptError> {
        let limits = self.limits();
        let length = script.source.len();
        if length > limits.source_bytes {
            let message = format!("the script has {length} bytes, more than the {} allowed", limits.source_bytes);
            return Err(ScriptError::new(ErrorKind::Syntax, script, None, &message, limits.error_bytes));
        }
        Ok(script.digest())
    }

    /// Hands a job to a worker and waits for its last event.
    fn submit(&self, script: &Script, digest: Key, input: Option<Value>) -> Result<Event, ScriptError> {
        let shared = self.shared();
        let limits = &shared.limits;
        let state = Arc::new(AtomicU8::new(WAITING));
        let (reply, events) = mpsc::channel();
        {
            let mut queue = lock(&shared.queue);
            let job = Job { script: script.clone(), digest, input, state: Arc::clone(&state), reply };
            queue.jobs.push_back(job);
            if queue.workers == 0 {
                drop(queue);
                spawn_worker(shared).map_err(|e| fault(script, limits, &format!("cannot start a thread: {e}")))?;
            }
        }
        shared.wake.notify_one();

        let mut answer = events.recv_timeout(limits.queue);
        if let Err(RecvTimeoutError::Timeout) = answer {
            if turn(&state, WAITING, GIVEN_UP) {
                let message = format!("no script worker was free for {:?}", limits.queue);
                return Err(ScriptError::new(ErrorKind::Time, script, None, &message, limits.error_bytes));
            }
            answer = events.recv_timeout(limits.wall + GRACE);
        }
        if let Err(RecvTimeoutError::Timeout) = answer {
            if turn(&state, RUNNING, GIVEN_UP) {
                replace_worker(shared);
                let message =
                    format!("the script could not be stopped after {:?}; its thread was given up", limits.wall);
                return Err(ScriptError::new(ErrorKind::Time, script, None, &message, limits.error_bytes));
            }
            answer = events.recv().map_err(RecvTimeoutError::from);
        }
        answer.map_err(|_| fault(script, limits, "the worker ended"))
    }
}

fn syntax_error(script: &Script, error: &SyntaxError, limits: &Limits) -> ScriptError {
    ScriptError::new(ErrorKind::Syntax, script, error.line, &error.message, limits.error_bytes)
}

/// A failure of the engine, not of the script; worth another try.
fn fault(script: &Script, limits: &Limits, what: &str) -> ScriptError {
    ScriptError::new(ErrorKind::Time, script, None, &format!("the script engine failed: {what}"), limits.error_bytes)
}

fn spawn_worker(shared: &Arc<Shared>) -> std::io::Result<()> {
    let mine = Arc::clone(shared);
    lock(&shared.queue).workers += 1;
    let spawned = thread::Builder::new().name("lua".to_owned()).stack_size(STACK_BYTES).spawn(move || work(&mine));
    if spawned.is_err() {
        lock(&shared.queue).workers -= 1;
    }
    spawned.map(|_| ())
}

/// Starts another worker for one that is stuck in a run; the stuck one ends if it ever comes back.
fn replace_worker(shared: &Arc<Shared>) {
    {
        let mut queue = lock(&shared.queue);
        queue.workers = queue.workers.saturating_sub(1);
        queue.lost += 1;
        if queue.lost > MOST_LOST {
            return;
        }
    }
    let _ = spawn_worker(shared);
}

fn work(shared: &Shared) {
    let mut ready: Vec<Vm> = Vec::with_capacity(READY);
    while let Some(job) = next_job(shared, &mut ready) {
        if !turn(&job.state, WAITING, RUNNING) {
            continue;
        }
        // The used VM is dropped after the reply.
        let (event, _used) = catch_unwind(AssertUnwindSafe(|| execute(shared, &job, &mut ready)))
            .unwrap_or_else(|panic| (failed(shared, &job, panic_text(&*panic)), None));
        if !turn(&job.state, RUNNING, DONE) {
            // Another worker has taken this one's place.
            return;
        }
        let _ = job.reply.send(event);
    }
}

/// The next job; while there is none, VMs are made ready. None when the engine is gone.
fn next_job(shared: &Shared, ready: &mut Vec<Vm>) -> Option<Job> {
    let mut warm = true;
    loop {
        let mut queue = lock(&shared.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            if warm && ready.len() < READY {
                break;
            }
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        match new_vm(shared) {
            Ok(vm) => ready.push(vm),
            // The job that needs it will say so.
            Err(_) => warm = false,
        }
    }
}

fn new_vm(shared: &Shared) -> Result<Vm, String> {
    let prelude = shared.prelude.as_ref().map_err(Clone::clone)?;
    Vm::new(prelude, &shared.limits).map_err(|e| e.to_string())
}

fn execute(shared: &Shared, job: &Job, ready: &mut Vec<Vm>) -> (Event, Option<Vm>) {
    let compiled = compiled(shared, job);
    let (bytecode, input) = match (compiled, &job.input) {
        (Ok(bytecode), Some(input)) => (bytecode, input),
        (compiled, _) => return (Event::Compiled(compiled), None),
    };
    match ready.pop().map_or_else(|| new_vm(shared), Ok) {
        Ok(vm) => (Event::Done(vm.run(&bytecode, &job.script, input, &shared.limits)), Some(vm)),
        Err(e) => (failed(shared, job, &format!("cannot make a VM: {e}")), None),
    }
}

fn failed(shared: &Shared, job: &Job, what: &str) -> Event {
    Event::Done((Err(fault(&job.script, &shared.limits, what)), 0))
}

fn compiled(shared: &Shared, job: &Job) -> Compiled {
    if let Some(known) = lock(&shared.compiled).get(&job.digest) {
        return known;
    }
    let compiled: Compiled = compile::compile(&job.script.source).map(Arc::from);
    let weight = compiled.as_ref().map_or(1024, |bytecode| bytecode.len());
    lock(&shared.compiled).put(job.digest, compiled.clone(), weight);
    compiled
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
