//! Custom resources of the group `rollouts.kruise.io`, their keys, conditions and reasons. No logic beyond defaults
//! and parsing.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | workload | the user's own object that runs pods, named by the Rollout |
//! | stable, canary | the version that ran before the release, the version that the release brings |
//! | revision | the server's name for one version of a pod template (`pod-template-hash`, `controller-revision-hash`) |
//! | step | one entry of the plan: how many canary pods, which share or which requests, and what to wait for |
//! | weight | the canary's share of requests, in percent |
//! | match | which requests go to the canary whatever the weight |
//! | networkRef | an object of a gateway or mesh whose fields decide where requests go |
//! | approve | a person's word that a waiting step is good |
//! | promote, roll back | finish with the new version, return to the old one |
//! | analysis, metric, measurement | what is asked of a metrics server about a release, one question, one answer |
//! | hold | keep a changed template from rolling out by itself |

pub mod analysis;
pub mod comparison;
pub mod conditions;
pub mod convert;
pub mod crd;
pub mod hooks;
pub mod keys;
pub mod notifications;
pub mod object;
pub mod proof;
pub mod providers;
mod rules;
pub mod trace;
pub mod v1alpha1;
pub mod v1beta1;
pub mod windows;

/// The API group of every kind here.
pub const GROUP: &str = "rollouts.kruise.io";
