//! What can go wrong between a client and the cluster, by rule and from a seed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::core::Verb;
use super::registry::KindId;
use super::rng::{Rng, hash};

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// 409 on an update, patch or delete, as if another writer had been faster.
    Conflict,
    /// 429 with `Retry-After: 1`.
    TooManyRequests,
    /// 500.
    InternalError,
    /// The request is lost: nothing is written, the client sees a timeout or a broken connection.
    TimeoutBefore,
    /// The request is done, but the client sees a timeout or a broken connection.
    TimeoutAfter,
    /// A watch ends after the given number of events, and what follows is lost: the next watch from there gets 410.
    WatchGap(u32),
    /// Every event of a watch comes late by a duration in this range; the order stays.
    WatchDelay(RangeInclusive<Duration>),
    /// Every event of a watch comes twice.
    WatchRepeat,
    /// The answer takes a duration in this range.
    Latency(RangeInclusive<Duration>),
}

impl Fault {
    /// A short name, used as the key of counts.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Conflict => "conflict",
            Fault::TooManyRequests => "too-many-requests",
            Fault::InternalError => "internal-error",
            Fault::TimeoutBefore => "timeout-before",
            Fault::TimeoutAfter => "timeout-after",
            Fault::WatchGap(_) => "watch-gap",
            Fault::WatchDelay(_) => "watch-delay",
            Fault::WatchRepeat => "watch-repeat",
            Fault::Latency(_) => "latency",
        }
    }

    fn fits(&self, verb: Verb) -> bool {
        match self {
            Fault::Conflict => matches!(verb, Verb::Update | Verb::Patch | Verb::Delete),
            Fault::WatchGap(_) | Fault::WatchDelay(_) | Fault::WatchRepeat => verb == Verb::Watch,
            Fault::TimeoutAfter => verb.writes(),
            _ => true,
        }
    }
}

/// When a fault strikes. Made with [`Rule::new`] and narrowed by its methods.
#[derive(Debug, Clone)]
pub struct Rule {
    identity: String,
    fault: Fault,
    verbs: Vec<Verb>,
    resource: Option<String>,
    skip: u64,
    times: u64,
    probability: f64,
    until: Option<Instant>,
}

impl Rule {
    /// The fault strikes every request of this client that it fits.
    pub fn new(identity: &str, fault: Fault) -> Self {
        Self {
            identity: identity.to_owned(),
            fault,
            verbs: Vec::new(),
            resource: None,
            skip: 0,
            times: u64::MAX,
            probability: 1.0,
            until: None,
        }
    }

    /// Only these verbs.
    pub fn on(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// Only this resource, by its plural.
    pub fn resource(mut self, plural: &str) -> Self {
        self.resource = Some(plural.to_owned());
        self
    }

    /// Spares the first `n` requests that fit.
    pub fn after(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// Strikes at most `n` times.
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    /// Strikes before this moment only.
    pub fn until(mut self, moment: Instant) -> Self {
        self.until = Some(moment);
        self
    }

    /// Strikes each request with this probability (0 to 1), from the cluster's seed.
    pub fn chance(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }
}

#[derive(Debug)]
struct Client {
    rules: Vec<Rule>,
    rng: Rng,
    /// Clients of an older epoch are dead.
    epoch: u64,
    crashed: watch::Sender<bool>,
    crash_after: Option<u64>,
    /// Watches opened before this number are cut.
    cut: u64,
    /// Watches from an older version than this get 410.
    floors: BTreeMap<KindId, u64>,
    /// The same for watches of every kind.
    floor: u64,
    open: BTreeMap<u64, Waker>,
}

/// Faults of every client.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    clients: BTreeMap<Arc<str>, Client>,
    counts: BTreeMap<(Arc<str>, &'static str), u64>,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self { seed, clients: BTreeMap::new(), counts: BTreeMap::new() }
    }

    fn client(&mut self, identity: &str) -> &mut Client {
        let seed = self.seed;
        self.clients.entry(Arc::from(identity)).or_insert_with(|| Client {
            rules: Vec::new(),
            rng: Rng::new(seed ^ hash(identity.as_bytes())),
            epoch: 0,
            crashed: watch::channel(false).0,
            crash_after: None,
            cut: 0,
            floors: BTreeMap::new(),
            floor: 0,
            open: BTreeMap::new(),
        })
    }

    pub fn add(&mut self, rule: Rule) {
        let identity = rule.identity.clone();
        self.client(&identity).rules.push(rule);
    }

    pub fn clear(&mut self, identity: &str) {
        let client = self.client(identity);
        client.rules.clear();
        client.crash_after = None;
    }

    pub fn counts(&self) -> &BTreeMap<(Arc<str>, &'static str), u64> {
        &self.counts
    }

    /// Every fault that strikes a request: at most one that decides its answer, and delays.
    pub fn strike(&mut self, identity: &Arc<str>, verb: Verb, plural: &str) -> Vec<Fault> {
        let Some(client) = self.clients.get_mut(identity) else { return Vec::new() };
        let mut struck: Vec<Fault> = Vec::new();
        for rule in &mut client.rules {
            let fits = rule.times > 0
                && rule.until.is_none_or(|until| Instant::now() < until)
                && rule.fault.fits(verb)
                && (rule.verbs.is_empty() || rule.verbs.contains(&verb))
                && rule.resource.as_deref().is_none_or(|r| r == plural);
            if !fits {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            let decides = |f: &Fault| !matches!(f, Fault::Latency(_) | Fault::WatchDelay(_) | Fault::WatchRepeat);
            if decides(&rule.fault) && struck.iter().any(decides) {
                continue;
            }
            if rule.probability < 1.0 && !client.rng.chance(rule.probability) {
                continue;
            }
            rule.times = rule.times.saturating_sub(1);
            struck.push(rule.fault.clone());
        }
        for fault in &struck {
            *self.counts.entry((identity.clone(), fault.name())).or_default() += 1;
        }
        struck
    }

    pub fn duration(&mut self, identity: &str, range: &RangeInclusive<Duration>) -> Duration {
        self.client(identity).rng.duration(range)
    }

    pub fn coin(&mut self, identity: &str) -> bool {
        self.client(identity).rng.chance(0.5)
    }

    pub fn epoch(&mut self, identity: &str) -> u64 {
        self.client(identity).epoch
    }

    /// True for a client whose process has crashed.
    pub fn dead(&self, identity: &str, epoch: u64) -> bool {
        self.clients.get(identity).is_some_and(|c| c.epoch != epoch || *c.crashed.borrow())
    }

    /// The client's process dies when `n` more of its writes are done; 0 is now.
    pub fn crash_after(&mut self, identity: &str, n: u64) {
        if n == 0 {
            self.crash(identity);
        } else {
            self.client(identity).crash_after = Some(n);
        }
    }

    fn crash(&mut self, identity: &str) {
        let client = self.client(identity);
        client.crash_after = None;
        client.crashed.send_replace(true);
        client.open.clear();
        *self.counts.entry((Arc::from(identity), "crash")).or_default() += 1;
    }

    /// Counts a committed write; true if the client died of it.
    pub fn wrote(&mut self, identity: &str) -> bool {
        let Some(client) = self.clients.get_mut(identity) else { return false };
        match client.crash_after.as_mut() {
            Some(1) => {
                self.crash(identity);
                true
            }
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }

    pub fn crashed(&mut self, identity: &str) -> watch::Receiver<bool> {
        self.client(identity).crashed.subscribe()
    }

    /// A new process starts; connections of the old one stay dead.
    pub fn revive(&mut self, identity: &str) {
        let client = self.client(identity);
        client.epoch += 1;
        client.crash_after = None;
        client.floors.clear();
        client.floor = 0;
        client.open.clear();
        client.crashed.send_replace(false);
    }

    pub fn watch_waits(&mut self, identity: &str, watch: u64, waker: &Waker) {
        self.client(identity).open.insert(watch, waker.clone());
    }

    pub fn watch_ended(&mut self, identity: &str, watch: u64) {
        if let Some(client) = self.clients.get_mut(identity) {
            client.open.remove(&watch);
        }
    }

    /// Ends every open watch of a client; what happens until it lists again is lost to it.
    pub fn break_watches(&mut self, identity: &str, version: u64, next_watch: u64) {
        let client = self.client(identity);
        client.cut = next_watch;
        client.floor = version;
        for waker in std::mem::take(&mut client.open).into_values() {
            waker.wake();
        }
        *self.counts.entry((Arc::from(identity), "watch-gap")).or_default() += 1;
    }

    pub fn is_cut(&self, identity: &str, watch: u64) -> bool {
        self.clients.get(identity).is_some_and(|c| watch <= c.cut)
    }

    /// Watches of a kind from before this version get 410 from now on.
    pub fn lose_before(&mut self, identity: &str, kind: KindId, version: u64) {
        self.client(identity).floors.insert(kind, version);
    }

    pub fn floor(&self, identity: &str, kind: KindId) -> u64 {
        self.clients.get(identity).map_or(0, |c| c.floors.get(&kind).copied().unwrap_or(0).max(c.floor))
    }
}
