//! The controller on a real control plane with real traffic. See README.md beside this file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

#[path = "../providers/mod.rs"]
mod providers;
mod rig;
mod scenarios;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Handle, Runtime};

use rig::Rig;
use scenarios::{
    adopt, cases, certificates, chart, cost, crash, examples, generated, hooks, in_memory, kinds, leaders, leaving,
    mistakes, operator, plane, policy, schema, script, story, styles, traffic, workloads,
};

/// The longest that a scenario may take; each of its waits has a deadline of its own.
const LIMIT: Duration = Duration::from_secs(600);

/// What the names of scenarios begin with that `make e2e` leaves out.
const BESIDE: [&str; 2] = [traffic::PREFIX, cost::PREFIX];

/// What all scenarios share: the rig, or why there is none.
type Shared = Arc<Result<Arc<Rig>>>;

fn trial<F>(handle: &Handle, rig: &Shared, name: &str, scenario: impl Fn(Arc<Rig>) -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>> + 'static,
{
    let (handle, rig) = (handle.clone(), rig.clone());
    Trial::test(name, move || {
        let rig = rig.as_ref().as_ref().map_err(|e| Failed::from(format!("the rig did not come up: {e:#}")))?.clone();
        let outcome = handle.block_on(async {
            tokio::select! {
                outcome = tokio::time::timeout(LIMIT, scenario(rig.clone())) => {
                    outcome.unwrap_or_else(|_| Err(anyhow!("not done within {LIMIT:?}")))
                }
                // Without one of its programs the rig answers nothing; no scenario must wait for that.
                dead = rig.dies() => Err(dead),
            }
        });
        outcome.and(rig.alive()).map_err(|e| Failed::from(format!("{e:#}\nlogs: {}", rig.dir.display())))
    })
}

fn trials(handle: &Handle, rig: &Shared) -> Vec<Trial> {
    let rows = styles::ROWS
        .iter()
        .map(|row| trial(handle, rig, &format!("release_{}", row.name), move |rig| styles::play(rig, row)));
    let scenarios = vec![
        trial(handle, rig, "pods_answer", plane::pods_answer),
        trial(handle, rig, "rbac_is_enforced", plane::rbac_is_enforced),
        trial(handle, rig, "gateway_splits", plane::gateway_splits),
        trial(handle, rig, "graceful_roll_loses_nothing", plane::graceful_roll_loses_nothing),
        trial(handle, rig, "dead_pods_are_seen", plane::dead_pods_are_seen),
        trial(handle, rig, "ledger_sees_wrong_order", plane::ledger_sees_wrong_order),
        trial(handle, rig, "nothing_is_pruned", schema::nothing_is_pruned),
        trial(handle, rig, "mistakes_are_refused", schema::mistakes_are_refused),
        trial(handle, rig, "cases_hold_on_the_api_server", cases::cases_hold_on_the_api_server),
        trial(handle, rig, "policy_equals_its_twin", policy::policy_equals_its_twin),
        trial(handle, rig, "in_memory_cluster_answers_alike", in_memory::in_memory_cluster_answers_alike),
        trial(
            handle,
            rig,
            "in_memory_cluster_answers_anything_alike",
            generated::in_memory_cluster_answers_anything_alike,
        ),
        trial(handle, rig, "stateful_sets_roll_alike", workloads::stateful_sets_roll_alike),
        trial(handle, rig, "daemon_sets_roll_alike", workloads::daemon_sets_roll_alike),
        trial(handle, rig, "kruise_kinds_roll_alike", workloads::kruise_kinds_roll_alike),
        trial(handle, rig, "kind_comes_and_goes", kinds::kind_comes_and_goes),
        trial(handle, rig, "istio_story", story::istio_story),
        trial(handle, rig, "kubectl_patch_approves", story::kubectl_patch_approves),
        trial(handle, rig, "rolling_back_loses_nothing", story::rolling_back_loses_nothing),
        trial(handle, rig, "leaving_midway_restores", story::leaving_midway_restores),
        trial(handle, rig, "others_change_routes_meanwhile", story::others_change_routes_meanwhile),
        trial(handle, rig, "missing_network_ref", mistakes::missing_network_ref),
        trial(handle, rig, "hooks_and_jobs", hooks::hooks_and_jobs),
        trial(handle, rig, "hold_without_controller", crash::hold_without_controller),
        trial(handle, rig, "killed_in_every_step", crash::killed_in_every_step),
        trial(handle, rig, "api_server_away", crash::api_server_away),
        trial(handle, rig, "one_of_two_leads", leaders::one_of_two_leads),
        trial(handle, rig, "leaders_change_while_measuring", leaders::leaders_change_while_measuring),
        trial(handle, rig, "chart_renders", chart::chart_renders),
        trial(handle, rig, "chart_life", chart::chart_life),
        trial(handle, rig, "uninstalled_midway", leaving::uninstalled_midway),
        trial(handle, rig, "certificates_change_unnoticed", certificates::certificates_change_unnoticed),
        trial(handle, rig, "operator", operator::operator),
        trial(handle, rig, "some_namespaces", operator::some_namespaces),
        trial(handle, rig, "taken_over_midway", adopt::taken_over_midway),
        trial(handle, rig, "config_map_script_wins", script::config_map_script_wins),
        trial(handle, rig, "namespace_brings_a_script", script::namespace_brings_a_script),
        trial(handle, rig, &format!("{}admission", cost::PREFIX), cost::admission),
    ];
    let of_kinds = kinds::ROWS
        .iter()
        .map(|row| trial(handle, rig, &format!("release_{}", row.1.name), move |rig| kinds::play(rig, row)));
    let of_examples = examples::STORIES
        .iter()
        .map(|name| trial(handle, rig, &format!("example_{name}"), move |rig| examples::play(rig, name)));
    scenarios.into_iter().chain(rows).chain(of_kinds).chain(of_examples).chain(through_gateways(handle, rig)).collect()
}

/// The scenarios of `make e2e-traffic`.
fn through_gateways(handle: &Handle, rig: &Shared) -> Vec<Trial> {
    let name = |name: &str| format!("{}{name}", traffic::PREFIX);
    let recipes =
        traffic::ROWS.iter().map(|row| trial(handle, rig, &name(row.name), move |rig| traffic::story::play(rig, row)));
    let metered = traffic::metrics::METRICS
        .iter()
        .map(|row| trial(handle, rig, &name(row.row.name), move |rig| traffic::metrics::play(rig, row)));
    let alerts = trial(handle, rig, &name(traffic::ALERTS), traffic::metrics::alerts);
    let proof = trial(handle, rig, &name(traffic::proof::ROW.name), traffic::proof::play);
    let tried = trial(handle, rig, &name(traffic::history::TRIED.name), traffic::history::play);
    let traces = trial(handle, rig, &name(traffic::TRACES), traffic::traces::play);
    recipes.chain(metered).chain([alerts, traces, proof, tried]).collect()
}

/// Whether a scenario is asked for, as libtest-mimic understands the arguments.
fn wanted(args: &Arguments, name: &str) -> bool {
    let fits = |filter: &String| if args.exact { name == filter } else { name.contains(filter.as_str()) };
    args.filter.as_ref().is_none_or(fits) && !args.skip.iter().any(fits)
}

fn main() -> Result<()> {
    let mut args = Arguments::from_args();
    // Scenarios mostly wait, so there may be more of them than cores.
    args.test_threads.get_or_insert(8);
    let runtime = Runtime::new()?;
    if args.list {
        let none: Shared = Arc::new(Err(anyhow!("not started for --list")));
        libtest_mimic::run(&args, trials(runtime.handle(), &none)).exit();
    }
    let tools = rig::netns::enter(&traffic::programs(|name| wanted(&args, name)))?;
    // As the first process of its namespace it gets only those signals that it asks for.
    runtime.spawn(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("SIGTERM");
        tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminate.recv() => {} }
        std::process::exit(130);
    });
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let rig: Shared = Arc::new(runtime.block_on(Rig::start(&tools)));
    let conclusion = libtest_mimic::run(&args, trials(runtime.handle(), &rig));
    let rights = match rig.as_ref() {
        Ok(rig) => {
            rig.forget_data();
            let is_whole = args.filter.is_none()
                && !conclusion.has_failed()
                && args.skip.iter().all(|s| BESIDE.contains(&s.as_str()));
            rig::audit::judge(&rig.dir, is_whole)
        }
        Err(_) => Ok(()),
    };
    if let Err(error) = rights {
        eprintln!("e2e: {error:#}");
        std::process::exit(101);
    }
    conclusion.exit();
}
