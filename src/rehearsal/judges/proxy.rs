//! A gateway that learns of changes only after a while.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    rehearsal::script::Setup,
    sim::{Past, View, Write},
};

type Key = (String, String, String, String);

/// What a gateway knows of the objects that tell it where requests go: routes, subsets, and which Services there are.
/// Which pods are ready it learns at once.
pub struct Proxy {
    /// From a change until it is known: of routes, of subsets, of Services.
    lags: [SignedDuration; 3],
    /// What it will learn, and when.
    news: Vec<(Timestamp, Key, Option<Arc<Value>>)>,
    /// What it knows otherwise than it is.
    past: Past,
}

impl Proxy {
    /// Slow within the grace time that the user gives it.
    pub fn new(setup: &Setup) -> Proxy {
        let grace = setup.grace.unwrap_or(3);
        let lags = setup.lags.map(|percent| SignedDuration::from_millis(grace * percent * 10));
        Proxy { lags, news: Vec::new(), past: Past::new() }
    }

    /// A write that it will learn of.
    pub fn hear(&mut self, write: &Write) {
        let [routes, subsets, services] = self.lags;
        let lag = match write.gvr.resource.as_str() {
            "virtualservices" | "httproutes" | "ingresses" => routes,
            "destinationrules" => subsets,
            "services" => services,
            _ => return,
        };
        if lag.is_zero() {
            return;
        }
        let gvr = &write.gvr;
        let key = (gvr.group.clone(), gvr.resource.clone(), write.namespace.to_string(), write.name.to_string());
        self.past.entry(key.clone()).or_insert_with(|| write.before.clone());
        self.news.push((write.time + lag, key, write.after.clone()));
    }

    /// Learns what is due; whether anything was.
    pub fn learn(&mut self, now: Timestamp) -> bool {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.news).into_iter().partition(|(at, ..)| *at <= now);
        let is_news = !due.is_empty();
        for (_, key, after) in due {
            if later.iter().any(|(_, of, _)| *of == key) {
                self.past.insert(key, after);
            } else {
                self.past.remove(&key);
            }
        }
        self.news = later;
        is_news
    }

    /// When it learns next.
    pub fn next(&self) -> Option<Timestamp> {
        self.news.iter().map(|(at, ..)| *at).min()
    }

    /// The cluster as it knows it, if it knows anything otherwise than it is.
    pub fn view(&self, view: &View) -> Option<View> {
        (!self.past.is_empty()).then(|| view.with_past(self.past.clone()))
    }
}
