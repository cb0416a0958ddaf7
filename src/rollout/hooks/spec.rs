//! The hooks of a Rollout's spec, read once into a form that cannot be wrong.

use crate::{
    analysis::metric::seconds,
    api::{
        analysis::OnFailure,
        hooks::{self as api, HookMoment, OnUnreachable},
        v1beta1::Rollout,
    },
    rollout::release::SpecError,
};

const DEFAULT_TIMEOUT: i64 = 10;
const LONGEST_TIMEOUT: i64 = 60;
const DEFAULT_RETRIES: i32 = 5;
const DEFAULT_INTERVAL: i64 = 60;
const DEFAULT_UNREACHABLE: i64 = 600;

/// A hook; times in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// Name, once in a Rollout.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// When it is asked.
    pub when: Vec<HookMoment>,
    /// At which steps; empty: at all.
    pub steps: Vec<i32>,
    /// How long one answer may take.
    pub timeout: i64,
    /// Tries in vain, after the first one, before it counts as unreachable.
    pub retries: i32,
    /// The longest time between two tries.
    pub interval: i64,
    /// What follows when it is unreachable for too long.
    pub on_unreachable: OnUnreachable,
    /// How long that is.
    pub unreachable_timeout: i64,
    /// What follows when it refuses.
    pub on_refusal: OnFailure,
    /// Name of the Secret.
    pub secret: Option<String>,
    /// Name of the ConfigMap with a CA.
    pub trust: Option<String>,
}

impl Hook {
    /// Whether it is asked at this moment of this step.
    pub fn is_for(&self, moment: HookMoment, step: i32) -> bool {
        let is_of_steps = matches!(moment, HookMoment::BeforeStep | HookMoment::AfterStep);
        self.when.contains(&moment) && (!is_of_steps || self.steps.is_empty() || self.steps.contains(&step))
    }
}

/// Reads the hooks of a Rollout.
///
/// # Errors
/// The field, what is wrong, and what would be right.
pub fn read(rollout: &Rollout) -> Result<Vec<Hook>, SpecError> {
    let strategy = &rollout.spec.strategy;
    let steps = match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), _) => canary.steps.len(),
        (None, Some(blue)) => blue.steps.len(),
        (None, None) => 0,
    };
    read_all(&strategy.hooks, steps)
}

/// Reads the hooks of a Rollout with so many steps.
///
/// # Errors
/// As [`read`].
pub fn read_all(written: &[api::Hook], steps: usize) -> Result<Vec<Hook>, SpecError> {
    let mut hooks: Vec<Hook> = Vec::new();
    for (i, hook) in written.iter().enumerate() {
        let field = format!("spec.strategy.hooks[{i}]");
        let read = of(&field, hook, steps)?;
        if hooks.iter().any(|other| other.name == read.name) {
            let problem = format!("{:?} is there twice; give each its own name", read.name);
            return Err(SpecError { field: format!("{field}.name"), problem });
        }
        hooks.push(read);
    }
    Ok(hooks)
}

fn of(field: &str, hook: &api::Hook, steps: usize) -> Result<Hook, SpecError> {
    let wrong = |name: &str, problem: String| SpecError { field: format!("{field}.{name}"), problem };
    if hook.name.is_empty() {
        return Err(wrong("name", "is empty".to_owned()));
    }
    let uri: Option<http::Uri> = hook.url.parse().ok();
    let is_good = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if !is_good {
        let problem = format!("{:?} is none such as https://hooks.example/gate, without a login in it", hook.url);
        return Err(wrong("url", problem));
    }
    if hook.when.is_empty() {
        return Err(wrong("when", "is empty; name BeforeStep, AfterStep, BeforePromotion or OnRollback".to_owned()));
    }
    if let Some(step) = hook.steps.iter().find(|step| usize::try_from(**step).map_or(true, |s| s < 1 || s > steps)) {
        return Err(wrong("steps", format!("there is no step {step}; steps are 1 to {steps}")));
    }
    let time = |name: &str, text: &Option<String>, default: i64| match text.as_deref() {
        None => Ok(default),
        Some(text) => match seconds(text) {
            Some(seconds) if seconds >= 1 => Ok(seconds),
            _ => Err(wrong(name, format!("{text:?} is no duration of at least 1s, such as 30s, 5m or 1h30m"))),
        },
    };
    let timeout = time("timeout", &hook.timeout, DEFAULT_TIMEOUT)?;
    if timeout > LONGEST_TIMEOUT {
        return Err(wrong("timeout", format!("is longer than {LONGEST_TIMEOUT}s; a hook that needs longer holds")));
    }
    Ok(Hook {
        name: hook.name.clone(),
        url: hook.url.clone(),
        when: hook.when.clone(),
        steps: hook.steps.clone(),
        timeout,
        retries: hook.retries.unwrap_or(DEFAULT_RETRIES).clamp(0, 20),
        interval: time("interval", &hook.interval, DEFAULT_INTERVAL)?,
        on_unreachable: hook.on_unreachable.unwrap_or_default(),
        unreachable_timeout: time("unreachableTimeout", &hook.unreachable_timeout, DEFAULT_UNREACHABLE)?,
        on_refusal: hook.on_refusal.unwrap_or_default(),
        secret: hook.secret_ref.as_ref().map(|s| s.name.clone()),
        trust: hook.ca_config_map.clone(),
    })
}
