//! Everything that a decision may read.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{calls::Reply, history::History, line::Line, windows::ForAll};
use crate::{
    analysis::Sample,
    api::{notifications::Receiver, v1beta1::Rollout},
    lua::Engine,
    traffic::{
        ingress::Ingress,
        routes::{Missing, Network},
    },
    workload::Surroundings,
};

/// Everything that a decision may read.
#[derive(Clone)]
pub struct Snapshot {
    /// The moment of the decision.
    pub now: Timestamp,
    /// The Rollout itself.
    pub rollout: Rollout,
    /// Other Rollouts that name the same workload and go before this one.
    pub rivals: Vec<String>,
    /// Kinds of which nothing can be known, among those of the workload, its revisions, Services and endpoints: an object
    /// that is absent below may well exist.
    pub unknown: Vec<UnknownKind>,
    /// The workload.
    pub workload: Option<Arc<Value>>,
    /// The workload that the Rollout named before, if none names it now and no release is going on.
    pub former_workload: Option<Arc<Value>>,
    /// Objects that say its revisions.
    pub former_revisions: Vec<Arc<Value>>,
    /// The object with the name of the canary Deployment, whoever made it.
    pub canary: Option<Arc<Value>>,
    /// Objects that say the revisions of the workload and of the canary Deployment: ReplicaSets, ControllerRevisions.
    pub revisions: Vec<Arc<Value>>,
    /// Pods of the workload and of the canary Deployment, while it is under release.
    pub pods: Vec<Arc<Value>>,
    /// Nodes of these pods, where a decision depends on them.
    pub nodes: Vec<Arc<Value>>,
    /// The user's Service.
    pub stable_service: Option<Arc<Value>>,
    /// The object with the name of the canary Service, whoever made it.
    pub canary_service: Option<Arc<Value>>,
    /// EndpointSlices of both Services.
    pub endpoint_slices: Vec<Arc<Value>>,
    /// The networkRefs, with their scripts.
    pub networks: Vec<Network>,
    /// The Ingress whose class has a canary Ingress.
    pub ingress: Option<Ingress>,
    /// No release of this Rollout goes on, but a networkRef carries what one changed, and nobody else routes it.
    pub is_left_routed: bool,
    /// The TrafficRouting that it shares.
    pub traffic_routing: Option<Arc<Value>>,
    /// Records of earlier releases; only during one, and only where they are wanted.
    pub history: Option<History>,
    /// CronJobs that gates name, by name.
    pub cron_jobs: BTreeMap<String, Arc<Value>>,
    /// Jobs of the Rollout.
    pub jobs: Vec<Arc<Value>>,
    /// MetricTemplates that the Rollout names, by the name that it uses.
    pub templates: BTreeMap<String, Arc<Value>>,
    /// The last answer to each question that an earlier decision asked, by its id.
    pub samples: BTreeMap<String, Sample>,
    /// What came of each request that an earlier decision wanted sent, by its id.
    pub replies: BTreeMap<String, Reply>,
    /// Who is told of the release, or why nobody can be.
    pub receivers: Result<Vec<Receiver>, String>,
    /// The controller's namespace, where Secrets of receivers are.
    pub home: String,
    /// The limit on releases in flight, if there is one.
    pub line: Option<Line>,
    /// The administrator's change windows, or why they cannot be read.
    pub windows: Result<ForAll, String>,
    /// Whether the API server holds changed workloads.
    pub hold: Hold,
    /// Runs scripts. A script's result depends on its input alone, so that a decision stays a function of this snapshot.
    pub engine: Engine,
}

impl Snapshot {
    /// What stands around the workload.
    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings { revisions: &self.revisions, pods: &self.pods, nodes: &self.nodes }
    }
}

/// A kind that is not served, or that the controller may not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Never [`Missing::Object`].
    pub why: Missing,
}

/// Whether the API server holds changed workloads by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The admission policy is in force.
    InForce,
    /// It is not; says why and what follows.
    Unavailable(String),
}
