//! `rollout approve`: says that the step that waits is good.

mod patch;

use kube::{
    Api, Client,
    api::{DynamicObject, PatchParams},
};

pub use self::patch::{Approval, NotPaused, approval, approval_patch};
use super::{
    output::{Io, Whole, object},
    resources::{self, RESOURCE, Usage},
    view::View,
};

/// Arguments of `rollout approve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Args {
    /// rollout/NAME, or rollout NAME; several at once
    #[arg(required = true, value_name = "RESOURCE")]
    pub resources: Vec<String>,
    /// Approve only if the Rollout is at this step (1-based)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub step: Option<i32>,
    /// Approve also a step whose metrics are not judged yet: the release goes on without their verdict
    #[arg(long)]
    pub unmeasured: bool,
    /// client: only say what would be approved; server: let the API server check it without keeping it
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Print the object instead of a sentence
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
}

/// Where an approval is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// It is done.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// Sent, checked, not kept.
    Server,
}

/// Forms of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// The object after the approval.
    Json,
    /// The object after the approval.
    Yaml,
    /// `rollout.rollouts.kruise.io/NAME`.
    Name,
}

/// Approves each of the Rollouts; a failure of one does not keep the others. True when all are approved.
///
/// # Errors
/// A wrong command line, or a closed output.
pub async fn run(args: &Args, client: Client, namespace: &str, io: &mut Io<'_>) -> anyhow::Result<bool> {
    let names = resources::some_names(&args.resources)?;
    if args.step.is_some() && names.len() > 1 {
        return Err(Usage("--step goes with one Rollout: each has steps of its own".to_owned()).into());
    }
    let api = resources::api(&client, namespace);
    let mut all = true;
    for name in &names {
        match approve(&api, namespace, name, args).await {
            Ok(done) => {
                io.print(&done.text)?;
                if let Some(note) = done.note {
                    io.note(&note)?;
                }
            }
            Err(error) => {
                all = false;
                io.note(&format!("error: {error:#}"))?;
            }
        }
    }
    Ok(all)
}

struct Done {
    text: String,
    note: Option<String>,
}

async fn approve(api: &Api<DynamicObject>, namespace: &str, name: &str, args: &Args) -> anyhow::Result<Done> {
    let read = api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
    let rollout = resources::typed(&read)?;
    let approval = match approval(&rollout, args.step, args.unmeasured) {
        Ok(approval) => approval,
        Err(already @ NotPaused::AlreadyApproved { .. }) => return done(&read, name, &already.to_string(), args, None),
        Err(why) => anyhow::bail!("{RESOURCE} {name:?} cannot be approved: {why}"),
    };
    let Approval { patch, step, steps } = approval;
    let note = View::of(&rollout).is_frozen().then(|| {
        format!("note: rollout/{name} is frozen by spec.strategy.paused; it goes on when that is set to false")
    });
    let of = format!("(step {step} of {steps})");
    if args.dry_run == DryRun::Client {
        let mut value = serde_json::to_value(&read)?;
        json_patch::patch(&mut value, &patch)?;
        return done(&serde_json::from_value(value)?, name, &format!("approved {of} (dry run)"), args, note);
    }
    let params = PatchParams {
        dry_run: args.dry_run == DryRun::Server,
        field_manager: Some("tidegate-approve".to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(name, &params, &kube::api::Patch::<DynamicObject>::Json(patch)).await {
        Ok(written) => {
            let operation =
                if params.dry_run { format!("approved {of} (server dry run)") } else { format!("approved {of}") };
            done(&written, name, &operation, args, note)
        }
        // A failed test is 422; 409 means that others wrote all the while.
        Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {
            lost_race(api, namespace, name, step, args, &status.message).await
        }
        Err(error) => Err(resources::failure(&error, namespace, name)),
    }
}

/// The release moved between our read and our write. If someone else approved this step, that is what was wanted.
async fn lost_race(
    api: &Api<DynamicObject>,
    namespace: &str,
    name: &str,
    step: i32,
    args: &Args,
    refusal: &str,
) -> anyhow::Result<Done> {
    let read = api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
    let why = match approval(&resources::typed(&read)?, Some(step), args.unmeasured) {
        Err(already @ NotPaused::AlreadyApproved { .. }) => return done(&read, name, &already.to_string(), args, None),
        Err(why) => why.to_string(),
        Ok(_) => format!("it waits at step {step} again; look at it and approve again (the server said: {refusal})"),
    };
    anyhow::bail!("{RESOURCE} {name:?} changed while step {step} was being approved, nothing was approved: {why}")
}

fn done(
    result: &DynamicObject,
    name: &str,
    operation: &str,
    args: &Args,
    note: Option<String>,
) -> anyhow::Result<Done> {
    let text = match args.output {
        None => format!("{RESOURCE}/{name} {operation}\n"),
        Some(Output::Json) => object(result, Whole::Json)?,
        Some(Output::Yaml) => object(result, Whole::Yaml)?,
        Some(Output::Name) => object(result, Whole::Name)?,
    };
    Ok(Done { text, note })
}

#[cfg(test)]
mod tests;
