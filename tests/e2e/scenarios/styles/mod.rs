//! Releases of a Deployment in every style on the real Deployment controller, under a steady load: one row each.

mod play;
mod rows;

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;
use tidegate::api::keys::{MANAGED, WORKLOAD_TYPE};

pub use self::rows::{ROWS, asked_by_header, by_header, named_anew, routing, switch};
use self::{play::Play, rows::DEPLOYMENT};
use crate::rig::Rig;

pub const THIRD: &str = "nginx-configmap-third";

/// What is released.
pub struct On {
    pub api_version: &'static str,
    pub kind: &'static str,
    /// What its spec has beside selector and template.
    pub spec: fn() -> Value,
    pub pods: usize,
    /// So many of them are Ready at every moment.
    pub least: usize,
    /// One pod on each of so many nodes of its own.
    pub is_on_nodes: bool,
    /// What its owner says that it behaves as; known kinds need nobody's word.
    pub behaves_as: Option<&'static str>,
}

impl On {
    /// Label by which it is held.
    fn switch(&self) -> &'static str {
        if self.behaves_as.is_some() { MANAGED } else { WORKLOAD_TYPE }
    }
}

/// What is done or looked at, in order.
pub enum Deed {
    /// The template mounts another ConfigMap; the write is held.
    Mount(&'static str),
    /// The same, with pods that no node takes.
    MountBroken(&'static str),
    /// A step waits for approval.
    Paused(u64),
    Approve,
    /// `nextStepIndex`, as `kubectl patch` writes it.
    Jump(u64),
    /// Ready pods of each version, now and two seconds later.
    Has(&'static [(&'static str, usize)]),
    /// The share of requests that a version answers.
    Answers(&'static str, f64),
    /// Who answers all requests with this header.
    Asked((&'static str, &'static str), &'static str),
    /// The id of the release, on the workload.
    Id(&'static str),
    /// So many pods carry this id.
    Labelled(&'static str, usize),
    /// One more pod of this version, Ready so far, is not any more, as its kubelet says it.
    Fails(&'static str),
    /// A merge patch of the spec of the Service that users ask.
    Service(Value),
    /// A merge patch of the Deployment's spec.
    Deployment(Value),
    /// A JSON patch of the Rollout.
    Rollout(Value),
    /// The Rollout's message says so.
    Says(&'static str),
    /// The Rollout is deleted.
    Delete,
    /// All is as before but for the version, and nobody noticed.
    End(&'static str),
    /// The Rollout is gone or disabled, the Deployment has rolled to the version by itself, and nobody noticed.
    Left(&'static str),
}

/// A release and the strategy of its Rollout.
pub struct Row {
    pub name: &'static str,
    pub strategy: fn() -> Value,
    pub deeds: fn() -> Vec<Deed>,
}

/// Plays one row.
pub async fn play(rig: Arc<Rig>, row: &'static Row) -> Result<()> {
    play_on(rig, &DEPLOYMENT, row).await
}

/// Plays one row with a workload of some kind.
pub async fn play_on(rig: Arc<Rig>, on: &'static On, row: &'static Row) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let mut play = Play::begin(&rig, on, &row.name.replace('_', "-"), (row.strategy)()).await?;
    for (i, deed) in (row.deeds)().into_iter().enumerate() {
        play = match play.deed(deed).await.with_context(|| format!("deed {}", i + 1))? {
            Some(play) => play,
            None => return Ok(()),
        };
    }
    anyhow::bail!("the row does not end")
}
