//! Tidegate: progressive delivery for Kubernetes.
//!
//! A `Rollout` names a workload and the steps by which a new version takes over. For every gateway or mesh object
//! that it names, a Lua script turns the object's original state and the step's strategy into a new state.
//!
//! # The loop
//!
//! Every controller is five words: **gather → decide → apply → status → requeue**.
//!
//! - [`gather`] reads the cluster into a [`rollout::Snapshot`]: plain data, and the only thing a decision may read.
//! - [`rollout::decide`] turns a snapshot into a [`rollout::Plan`]. It is pure: no client, clock or randomness.
//! - [`apply`] is the only writer, and [`apply::guard`] judges each write before it is sent. It executes the plan's
//!   effects in order and stops at the first failure; the next reconcile starts from what the cluster says. Status is
//!   written last, with optimistic concurrency.
//!
//! # Code map
//!
//! | room | what is in it | may use |
//! |---|---|---|
//! | [`api`] | custom resources, keys, conditions and reasons | - |
//! | [`rollout`] | **pure**: snapshot, plan, the state machine | `api`, `workload`, `traffic`, `analysis` |
//! | [`analysis`] | **pure**: questions to metrics servers, and verdicts on their answers | `api`, `yaml` |
//! | [`workload`] | **pure**: one plain view of a workload, and the fields it is held by | `api` |
//! | [`traffic`] | **pure**: strategy → script input, post-conditions, three-way merge, Services | `api`, `lua` |
//! | [`lua`] | script engine, JSON conversion, script library, test-case runner | `yaml`; the runner also `api`, `traffic` |
//! | [`gather`] | watch caches, cluster → snapshot; questions to metrics servers, hooks and receivers, asked beside the loop | pure rooms |
//! | [`apply`] | effects → cluster, events | pure rooms |
//! | [`controller`] | wiring: queue, backoff, health, shutdown | `gather`, `apply` |
//! | [`webhook`] | what the API server asks: validation and conversion of Rollouts, the hold on older servers | `api`, `rollout`, `workload`, `lua`, `telemetry` |
//! | [`sim`] | an in-memory Kubernetes API with a virtual clock and faults; stands in for the cluster | the hold of `workload` |
//! | [`rehearsal`] | generated releases with people and faults on `sim`, and the judges of the invariants | all but `cli`'s commands |
//! | [`cli`] | one file a command; the same binary is the kubectl plugin | all |
//! | [`telemetry`] | logs, metrics, health endpoints, traces | the spans of `rollout` |
//!
//! # Invariants
//!
//! 1. **Capacity before traffic.** A version's share is raised only when enough of its pods are ready endpoints for
//!    it; its pods are removed only after its share was written as 0 and the grace time has passed.
//! 2. **Traffic adds up.** In every written route the shares sum to what the original summed to (100 for weights).
//! 3. **Only our leaves.** A write changes only the fields that a script returned changed.
//! 4. **Restore is exact.** After completion, rollback, disable or deletion every networkRef, Service and workload
//!    field equals the original, merged three ways with what others changed meanwhile.
//! 5. **All or nothing.** Before the first of several networkRefs is written, all scripts have run, all
//!    post-conditions hold, and a server-side dry run accepted each write.
//! 6. **No uncontrolled release.** A template change of a managed workload never rolls past the current step.
//! 7. **Never fewer pods than promised.** Ready pods never fall below replicas − maxUnavailable through our doing.
//! 8. **A person's word is kept.** An approval names its step, is never lost, and never applied to another step.
//! 9. **Roll back always works**, from every state, also while paused or failing.
//! 10. **Nothing hijacked.** Only objects that the Rollout names or that carry our owner reference are changed.
//! 11. **Every wait has a reason** in status: on what, since when, and what would move it.
//! 12. **Idle costs nothing.** With nothing changing there is no write, and no read but watches.

// Tests may unwrap: a panic is how a test reports.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::disallowed_methods
    )
)]

pub mod analysis;
pub mod api;
pub mod apply;
#[allow(clippy::disallowed_methods)] // Clock and environment enter here.
pub mod cli;
#[allow(clippy::disallowed_methods)] // Clock and environment enter here.
pub mod controller;
pub mod gather;
#[allow(clippy::disallowed_methods)] // A script's time budget is wall time.
pub mod lua;
#[allow(clippy::disallowed_methods)] // Wall time of a run.
pub mod rehearsal;
pub mod rollout;
pub mod sim;
#[allow(clippy::disallowed_methods)] // Clock and environment enter here.
pub mod telemetry;
pub mod traffic;
pub mod webhook;
pub mod workload;
pub mod yaml;
