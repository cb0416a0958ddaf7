//! Requests and what became of them.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    http::Connection,
    poll::{SOON, until},
};

/// Connections of one load.
const CONNECTIONS: usize = 8;

/// How many standard deviations a share may be off: one false alarm in 1.7 million.
pub const SIGMAS: f64 = 5.0;

/// The outcome of one request: the version that answered, or why none did.
pub struct Sample {
    /// Since the load began.
    pub at: Duration,
    pub answer: Result<Answer, String>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    /// The ConfigMap that the answering pod mounts.
    pub version: String,
}

/// All requests of a load, in order of their end.
#[derive(Default)]
pub struct Tally {
    pub samples: Vec<Sample>,
    /// Requests beside these that failed as [`Target::own_failure`] says.
    pub forgiven: usize,
}

impl Tally {
    fn of_target(mut samples: Vec<Sample>, target: &Target) -> Tally {
        let all = samples.len();
        samples.retain(|sample| !target.forgives(sample));
        Tally { forgiven: all - samples.len(), samples }
    }

    pub fn by_version(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for answer in self.samples.iter().filter_map(|s| s.answer.as_ref().ok()) {
            *counts.entry(answer.version.as_str()).or_default() += 1;
        }
        counts
    }

    pub fn of(&self, version: &str) -> usize {
        self.by_version().get(version).copied().unwrap_or(0)
    }

    pub fn failures(&self) -> Vec<&Sample> {
        self.samples.iter().filter(|s| s.answer.is_err()).collect()
    }

    pub fn none_failed(&self) -> Result<()> {
        ensure!(self.failures().is_empty(), "requests failed: {self}");
        ensure!(!self.samples.is_empty(), "the load sent no request at all");
        Ok(())
    }

    /// No failure, and `version` answered `share` (0 to 1) of the requests within [`SIGMAS`].
    pub fn has_share(&self, version: &str, share: f64) -> Result<()> {
        self.none_failed()?;
        let n = self.samples.len() as f64;
        let allowed = SIGMAS * (n * share * (1.0 - share)).sqrt();
        let got = self.of(version) as f64;
        ensure!(
            (got - n * share).abs() <= allowed,
            "{version} should answer {:.0} +- {allowed:.0} of {n}: {self}",
            n * share
        );
        Ok(())
    }

    /// No failure, and nobody but `version` answered.
    pub fn only(&self, version: &str) -> Result<()> {
        self.has_share(version, 1.0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = self.failures();
        write!(f, "{} requests, {:?}, {} failed", self.samples.len(), self.by_version(), failures.len())?;
        if self.forgiven > 0 {
            write!(f, ", {} forgiven", self.forgiven)?;
        }
        for failure in failures.iter().take(5) {
            let why = failure.answer.as_ref().err().map(String::as_str).unwrap_or_default();
            write!(f, "; after {:.3} s: {why}", failure.at.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A listener of the gateway and the headers that its requests carry.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Whose pods may answer.
    pub namespace: String,
    pub headers: Vec<(String, String)>,
    pub path: String,
    /// A failure that is the gateway's own doing, whoever changes the route. It is counted apart.
    pub own_failure: Option<&'static str>,
}

impl Target {
    pub fn with(&self, name: &str, value: &str) -> Target {
        let mut target = self.clone();
        target.headers.push((name.to_owned(), value.to_owned()));
        target
    }

    fn forgives(&self, sample: &Sample) -> bool {
        sample.answer.as_ref().is_err_and(|why| self.own_failure == Some(why.trim()))
    }

    pub fn at(&self, path: &str) -> Target {
        Target { path: path.to_owned(), ..self.clone() }
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Answer, String> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let (status, body) = connection.get(&self.path, &headers).await.map_err(|e| format!("{e:#}"))?;
        let text = String::from_utf8_lossy(&body);
        if !status.is_success() {
            return Err(format!("{status} {text}"));
        }
        let body: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        // kwok gives a dead pod's address to the next one: an answer from elsewhere is a request to a dead pod.
        if field("namespace") != self.namespace {
            return Err(format!("pod {} of namespace {} answered", field("pod"), field("namespace")));
        }
        Ok(Answer { version: field("version") })
    }

    /// Sends `n` requests as fast as they are answered.
    pub async fn send(&self, n: usize) -> Tally {
        let left = Arc::new(std::sync::atomic::AtomicUsize::new(n));
        let begin = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS.min(n) {
            let (target, left) = (self.clone(), left.clone());
            workers.spawn(async move {
                let mut connection = Connection::to(target.address);
                let mut samples = Vec::new();
                let take = |left: usize| left.checked_sub(1);
                while left
                    .fetch_update(std::sync::atomic::Ordering::Relaxed, std::sync::atomic::Ordering::Relaxed, take)
                    .is_ok()
                {
                    let answer = target.ask(&mut connection).await;
                    samples.push(Sample { at: begin.elapsed(), answer });
                }
                samples
            });
        }
        let mut samples: Vec<Sample> = workers.join_all().await.into_iter().flatten().collect();
        samples.sort_by_key(|s| s.at);
        Tally::of_target(samples, self)
    }

    /// Waits until a route change has reached the gateway: `fits` holds for 20 requests in a row.
    pub async fn settles(&self, what: &str, mut fits: impl FnMut(&Tally) -> Result<()>) -> Result<()> {
        until(what, SOON, async || {
            let tally = self.send(20).await;
            tally.none_failed()?;
            fits(&tally)
        })
        .await
    }

    /// Waits until `version` gets some traffic.
    pub async fn reaches(&self, version: &str) -> Result<()> {
        self.settles(&format!("some requests reach {version}"), |t| {
            ensure!(t.of(version) > 0, "{t}");
            Ok(())
        })
        .await
    }

    /// A load of `rate` requests a second until it is stopped.
    pub fn steady(&self, rate: u32) -> Steady {
        let stop = CancellationToken::new();
        let samples = Arc::new(Mutex::new(Vec::new()));
        let begin = Instant::now();
        let mut workers = JoinSet::new();
        let period = Duration::from_secs(CONNECTIONS as u64) / rate;
        for worker in 0..CONNECTIONS as u32 {
            let (target, stop, samples) = (self.clone(), stop.clone(), samples.clone());
            workers.spawn(async move {
                let mut connection = Connection::to(target.address);
                let first = tokio::time::Instant::now() + period * worker / CONNECTIONS as u32;
                let mut ticks = tokio::time::interval_at(first, period);
                // A slow machine sends less, it does not catch up in bursts.
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    tokio::select! { _ = stop.cancelled() => return, _ = ticks.tick() => {} }
                    let answer = target.ask(&mut connection).await;
                    samples.lock().await.push(Sample { at: begin.elapsed(), answer });
                }
            });
        }
        Steady { target: self.clone(), begin, stop, samples, workers }
    }
}

/// A load that is going on.
pub struct Steady {
    target: Target,
    begin: Instant,
    stop: CancellationToken,
    samples: Arc<Mutex<Vec<Sample>>>,
    workers: JoinSet<()>,
}

impl Steady {
    pub async fn stop(mut self) -> Result<Tally> {
        self.stop.cancel();
        while let Some(worker) = self.workers.join_next().await {
            worker?;
        }
        Ok(Tally::of_target(std::mem::take(&mut *self.samples.lock().await), &self.target))
    }

    /// How long after a moment `version` gave its first answer.
    pub async fn first(&self, version: &str, after: Instant) -> Option<Duration> {
        let after = after.saturating_duration_since(self.begin);
        let samples = self.samples.lock().await;
        let mut answers = samples.iter().filter(|s| s.at > after);
        let by = |s: &&Sample| s.answer.as_ref().is_ok_and(|a| a.version == version);
        answers.find(by).map(|s| s.at.saturating_sub(after))
    }

    /// How long after a moment anybody but `version` gave the last answer; zero when nobody did.
    pub async fn last_other(&self, version: &str, after: Instant) -> Duration {
        let after = after.saturating_duration_since(self.begin);
        let samples = self.samples.lock().await;
        let others = samples.iter().filter(|s| s.answer.as_ref().is_ok_and(|a| a.version != version));
        others.map(|s| s.at.saturating_sub(after)).max().unwrap_or_default()
    }

    /// An error as soon as a request has failed: the change that caused it is then the last one.
    pub async fn check(&self, during: &str) -> Result<()> {
        let samples = self.samples.lock().await;
        if let Some((at, why)) = samples
            .iter()
            .filter(|s| !self.target.forgives(s))
            .find_map(|s| s.answer.as_ref().err().map(|why| (s.at, why)))
        {
            bail!("a request of the steady load failed by the end of {during}: after {:.3} s: {why}", at.as_secs_f64());
        }
        ensure!(!samples.is_empty(), "the steady load has sent nothing by the end of {during}");
        Ok(())
    }
}
