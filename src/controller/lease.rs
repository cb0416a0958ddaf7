//! Leader election: of several replicas one decides, by a Lease.
//!
//! The rules, with `d` = [`Election::duration`] and `w` = [`Election::deadline`], `w` < `d`:
//!
//! - Every write of the Lease names the version that was read: of two candidates one gets a conflict.
//! - A candidate takes a held Lease only after it has seen it unchanged for the `d` that the Lease itself names, by its
//!   own clock from its own look. Clocks of different machines are never compared.
//! - A leader writes until `w` after it *sent* the last renewal that was accepted ([`Fence`]); every single write asks.
//!   No candidate can have seen that renewal before it was sent, so at least `d − w` lies between the last write of the
//!   one and the first of the other. A process that was stopped in between finds the fence closed when it wakes up.
//! - What the network still delivers after that names the version of the object that it was meant for.
//! - A leader that leaves gives the Lease back after its last write, so that the next one starts at once.

use std::{pin::pin, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams, WatchEvent, WatchParams},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Clock;
use crate::{
    api::keys,
    apply::Fence,
    telemetry::{Health, Metrics},
};

/// Name of the readiness check that holds once the Lease can be read.
pub const ELECTION: &str = "leader-election";

/// How a leader is found. The words are those of Kubernetes' own components.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease: the original's, so that it and Tidegate never decide at the same time.
    pub name: String,
    /// This process; no other has the same, not even an earlier one of the same pod.
    pub identity: String,
    /// How long candidates wait after the last renewal that they saw; whole seconds.
    pub duration: Duration,
    /// How long a leader writes after the last renewal that was accepted.
    pub deadline: Duration,
    /// Between two renewals, and before another try.
    pub retry: Duration,
}

impl Election {
    /// Whether the times fit each other.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let (duration, deadline, retry) = (self.duration, self.deadline, self.retry);
        if duration.subsec_nanos() != 0 || duration.is_zero() || duration > Duration::from_secs(3600) {
            return Err(format!("the lease duration is {duration:?}: choose whole seconds, from 1s to 1h"));
        }
        if deadline + Duration::from_secs(1) > duration {
            return Err(format!(
                "the renew deadline is {deadline:?}: it must be at least 1s shorter than the lease duration of {duration:?}, \
                 or two leaders might write"
            ));
        }
        if retry.is_zero() || retry * 2 > deadline {
            return Err(format!(
                "the retry period is {retry:?}: choose more than 0 and at most half the renew deadline of {deadline:?}, \
                 so that one lost renewal does not end the term"
            ));
        }
        Ok(())
    }
}

/// Leads whenever no other process does, until `stop`; then gives the Lease back. `lead` gets the fence of its term, and
/// ends soon after its token is cancelled.
pub async fn run<F: Future<Output = ()>>(
    client: Client,
    election: Election,
    clock: Clock,
    (health, metrics): (Health, Metrics),
    stop: CancellationToken,
    mut lead: impl FnMut(Fence, CancellationToken) -> F,
) {
    let api = Api::namespaced(client, &election.namespace);
    let mut elector = Elector { api, election, clock, health, seen: None };
    while let Some(vacant) = stop.run_until_cancelled(elector.vacancy()).await {
        // Not cut short by `stop`: others would wait for a Lease that nobody holds.
        let Some((lease, fence)) = elector.take(vacant).await else {
            stop.run_until_cancelled(sleep(elector.election.retry)).await;
            continue;
        };
        tracing::info!(lease = elector.election.name, identity = elector.election.identity, "leading");
        metrics.set_leader(true);
        let term = stop.child_token();
        let mut work = pin!(lead(fence.clone(), term.clone()));
        let ended = tokio::select! {
            biased;
            () = &mut work => None,
            why = elector.renew(lease, &fence) => Some(why),
        };
        fence.close();
        metrics.set_leader(false);
        match ended {
            None => {
                elector.release().await;
                if !stop.is_cancelled() {
                    tracing::error!("a term ended by itself; this is a bug");
                    stop.run_until_cancelled(sleep(elector.election.duration)).await;
                }
            }
            Some(why) => {
                tracing::warn!("not leading any more: {why}");
                term.cancel();
                work.await;
            }
        }
    }
}

struct Elector {
    api: Api<Lease>,
    election: Election,
    clock: Clock,
    health: Health,
    /// The Lease, and since when it is as it is, by this process's own clock.
    seen: Option<(LeaseSpec, Instant)>,
}

/// A Lease that may be taken; `None` if there is none yet.
type Vacant = Option<Lease>;

impl Elector {
    /// Waits until the Lease may be taken.
    async fn vacancy(&mut self) -> Vacant {
        let retry = self.election.retry;
        loop {
            let found = match timeout(self.election.deadline, self.api.get_opt(&self.election.name)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    self.complain(&error);
                    sleep(retry).await;
                    continue;
                }
                // The wait was the pause.
                Err(_) => continue,
            };
            self.health.set(ELECTION, Ok(()));
            self.note(found.as_ref());
            let free_at = self.free_at();
            if free_at <= Instant::now() {
                return found;
            }
            let from = found.as_ref().map_or_else(|| "0".to_owned(), |l| l.resource_version().unwrap_or_default());
            // A watch that tells nothing is no harm: the Lease is read again before it is taken.
            if let Err(error) = self.watch(&from).await {
                tracing::debug!(%error, "the Lease cannot be watched; looking again later");
                sleep(retry.min(free_at.saturating_duration_since(Instant::now()))).await;
            }
        }
    }

    /// Follows the Lease until it may be free, or the watch ends.
    async fn watch(&mut self, from: &str) -> kube::Result<()> {
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.election.name));
        let mut events = {
            let opened = self.api.watch(&params, from);
            match timeout(self.election.retry, opened).await {
                Ok(stream) => stream?.boxed(),
                Err(_) => return Ok(()),
            }
        };
        loop {
            let event = tokio::select! {
                biased;
                event = events.try_next() => event?,
                () = sleep_until(self.free_at()) => return Ok(()),
            };
            match event {
                Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => self.note(Some(&lease)),
                Some(WatchEvent::Bookmark(_)) => {}
                Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
                // Deleted, or the stream's end.
                Some(WatchEvent::Deleted(_)) | None => {
                    sleep(self.election.retry.min(self.free_at().saturating_duration_since(Instant::now()))).await;
                    return Ok(());
                }
            }
        }
    }

    /// A Lease that vanished counts as it was last seen: its holder does not know of that at once.
    fn note(&mut self, lease: Option<&Lease>) {
        let Some(spec) = lease.map(|l| l.spec.clone().unwrap_or_default()) else { return };
        if self.seen.as_ref().is_none_or(|(known, _)| *known != spec) {
            let holder = holder(&spec);
            let is_new = self.seen.as_ref().is_none_or(|(known, _)| self::holder(known) != holder);
            if is_new && !holder.is_empty() && holder != self.election.identity {
                tracing::info!(holder, "standing by");
            }
            self.seen = Some((spec, Instant::now()));
        }
    }

    fn free_at(&self) -> Instant {
        let Some((spec, since)) = &self.seen else { return Instant::now() };
        if holder(spec).is_empty() || holder(spec) == self.election.identity {
            return *since;
        }
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        *since + seconds.map_or(self.election.duration, Duration::from_secs)
    }

    /// Takes a vacant Lease; `None` if another one was faster or the API server did not take it.
    async fn take(&mut self, vacant: Vacant) -> Option<(Lease, Fence)> {
        let fence = Fence::new(self.clock.clone(), self.election.deadline);
        let mut lease = vacant.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let mut spec = lease.spec.take().unwrap_or_default();
        if holder(&spec) != self.election.identity {
            let is_first = spec.acquire_time.is_none();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(!is_first)));
            spec.acquire_time = Some(micro((self.clock)()));
        }
        lease.spec = Some(spec);
        match timeout(self.election.deadline, self.write(&lease)).await {
            Ok(Ok(lease)) => {
                self.note(Some(&lease));
                Some((lease, fence))
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => None,
            Ok(Err(error)) => {
                self.complain(&error);
                None
            }
            Err(_) => None,
        }
    }

    /// Writes the Lease in this process's name: creates it if it was never read.
    async fn write(&self, lease: &Lease) -> kube::Result<Lease> {
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.election.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.election.duration.as_secs()).ok();
        spec.renew_time = Some(micro((self.clock)()));
        if lease.metadata.resource_version.is_none() {
            return self.api.create(&params(), &lease).await;
        }
        self.api.replace(&self.election.name, &params(), &lease).await
    }

    /// Keeps the Lease. Returns why it is lost.
    async fn renew(&mut self, mut lease: Lease, fence: &Fence) -> String {
        let Election { deadline, retry, .. } = self.election;
        let mut trouble = "the process stood still".to_owned();
        loop {
            let Some(left) = fence.left() else {
                return format!("the Lease was not renewed within {} s: {trouble}", deadline.as_secs_f32());
            };
            sleep(retry.min(left)).await;
            let from = fence.now();
            // Time for a second try.
            let result = match timeout(deadline / 2, self.write(&lease)).await {
                Ok(Err(kube::Error::Api(status))) if status.code == 409 || status.code == 404 => self.again().await,
                Ok(result) => result.map(Ok),
                Err(_) => Err(kube::Error::Service("no answer in time".into())),
            };
            match result {
                Ok(Ok(renewed)) => {
                    lease = renewed;
                    if fence.extend(from, deadline) {
                        "the process stood still".clone_into(&mut trouble);
                    }
                }
                Ok(Err(other)) => return other,
                Err(error) => {
                    tracing::warn!(%error, "the Lease was not renewed");
                    trouble = error.to_string();
                }
            }
        }
    }

    /// Renews a Lease that is not as it was: somebody may have labelled it, an earlier try may have succeeded without an
    /// answer, or another process took it.
    async fn again(&self) -> kube::Result<Result<Lease, String>> {
        let work = async {
            let Some(lease) = self.api.get_opt(&self.election.name).await? else {
                tracing::warn!("the Lease was deleted; making it anew");
                let metadata = ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() };
                return self.write(&Lease { metadata, spec: None }).await.map(Ok);
            };
            match lease.spec.as_ref().map(holder) {
                Some(holder) if holder == self.election.identity => self.write(&lease).await.map(Ok),
                other => Ok(Err(format!("the Lease is held by {:?}", other.unwrap_or_default()))),
            }
        };
        match timeout(self.election.deadline / 2, work).await {
            Ok(result) => result,
            Err(_) => Err(kube::Error::Service("no answer in time".into())),
        }
    }

    /// Gives the Lease back: others need not wait for its end.
    async fn release(&self) {
        let work = async {
            loop {
                let Some(mut lease) = self.api.get_opt(&self.election.name).await? else { return Ok(()) };
                let spec = lease.spec.as_mut().filter(|s| holder(s) == self.election.identity);
                let Some(spec) = spec else { return Ok(()) };
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(micro((self.clock)()));
                match self.api.replace(&self.election.name, &params(), &lease).await {
                    // A renewal that was on its way.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    result => return result.map(drop),
                }
            }
        };
        match timeout(self.election.retry, work).await {
            Ok(Ok(())) => tracing::info!("the Lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease is not given back; it ends by itself"),
            Err(_) => tracing::warn!("the Lease is not given back in time; it ends by itself"),
        }
    }

    fn complain(&self, error: &kube::Error) {
        let Election { namespace, name, .. } = &self.election;
        tracing::warn!(%error, "no part in the election of a leader: Lease {namespace}/{name}");
        if let kube::Error::Api(status) = error
            && (status.code == 403 || status.code == 404)
        {
            let problem = format!(
                "Lease {namespace}/{name}: {}; grant get, create, update and watch on it, or name another namespace with \
                 --leader-elect-resource-namespace",
                status.message
            );
            self.health.set(ELECTION, Err(problem));
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn holder(spec: &LeaseSpec) -> &str {
    spec.holder_identity.as_deref().unwrap_or_default()
}

fn micro(at: Timestamp) -> MicroTime {
    MicroTime(at)
}
