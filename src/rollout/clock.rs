//! Time in a release: pauses and waits count from moments that are stored, in whole seconds, by clocks that may differ.

use super::{
    machine::Machine,
    release::Traffic,
    turn::{Turn, Wait},
};
use crate::{
    api::v1beta1::{RolloutStatus, Settling},
    traffic::routes,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

impl Machine<'_> {
    /// Waits until a change of the network, first seen in place in some earlier pass, had time to reach the data planes.
    /// Time counts from the pass that saw it, not from the write: a crash between write and status must not shorten it.
    pub(super) fn settle(&mut self, what: &str, seconds: i64) -> Turn {
        if seconds <= 0 {
            return Ok(());
        }
        let now = self.snap.now;
        let sub = self.sub();
        let since = match &sub.settling {
            Some(Settling { what: known, since: Some(Time(since)) }) if known == what => *since,
            _ => {
                // Stored in whole seconds: rounded down, the wait would be short by up to one.
                let since = whole_second_after(now);
                sub.settling = Some(Settling { what: what.to_owned(), since: Some(Time(since)) });
                since
            }
        };
        let until = since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        if until <= now {
            return Ok(());
        }
        Err(Wait::until(format!("giving the gateways {seconds} seconds after a change ({what})"), until))
    }

    /// Seconds for gateways to learn of a Service or subset before a route names it: the user's number, or 3.
    pub(super) fn learning(traffic: &Traffic) -> i64 {
        traffic.grace.unwrap_or(3)
    }

    /// Seconds to wait after a change of the network: the user's number; else none where readiness of pods is the
    /// evidence, and where nothing tells that requests have stopped and pods are about to go, what the gateways need.
    pub(super) fn grace(&self, traffic: &Traffic, pods_go: bool) -> i64 {
        let unless_said = || if pods_go { routes::grace(&self.networks, self.ingress.as_ref()) } else { 0 };
        traffic.grace.unwrap_or_else(unless_said)
    }
}

/// A wait that begins in the future was stored by a replica whose clock goes ahead: it begins now.
pub(super) fn heed_clock(status: &mut RolloutStatus, now: Timestamp) {
    let latest = whole_second_after(now);
    let Some(sub) = &mut status.canary_status else { return };
    let settling = sub.settling.as_mut().and_then(|s| s.since.as_mut());
    for since in [sub.last_update_time.as_mut(), settling].into_iter().flatten() {
        since.0 = since.0.min(latest);
    }
}

/// The last whole second that is not after a moment: what is due then is due at once.
pub(super) fn second_before(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// The first whole second that is not before a moment.
pub(super) fn whole_second_after(moment: Timestamp) -> Timestamp {
    let seconds = moment.as_second() + i64::from(moment.subsec_nanosecond() > 0);
    Timestamp::from_second(seconds).unwrap_or(moment)
}
