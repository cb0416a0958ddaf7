//! Whether the API server holds changed workloads.

use super::{BINDING, Lookup, Objects, POLICY, WEBHOOKS, optional};
use crate::{
    api::object::ObjectRef,
    rollout::Hold,
    traffic::routes::Missing,
    workload::hold::{self, Rule, rules},
};

/// Whether the API server holds changed workloads of any kind; `None` while that is being read.
pub fn hold_of_all(objects: &impl Objects) -> Option<Hold> {
    let all = rules().map(|rule| hold(objects, Some(rule))).collect::<Option<Vec<Hold>>>()?;
    Some(all.into_iter().find(|hold| *hold != Hold::InForce).unwrap_or(Hold::InForce))
}

/// Whether the API server holds changed workloads of a kind, by a policy or by our webhook; `None` while that is being
/// read.
pub(super) fn hold(objects: &impl Objects, rule: Option<&Rule>) -> Option<Hold> {
    let Some(rule) = rule else { return Some(Hold::InForce) };
    let Some(lack) = policy_lack(objects, rule)? else { return Some(Hold::InForce) };
    let webhooks = optional(objects.get(&ObjectRef::new(WEBHOOKS.0, WEBHOOKS.1, "", hold::WEBHOOKS)))?;
    Some(if webhooks.is_some_and(|w| hold::is_served(&w, rule)) { Hold::InForce } else { Hold::Unavailable(lack) })
}

/// What is missing for the policy of a rule to be in force.
fn policy_lack(objects: &impl Objects, rule: &Rule) -> Option<Option<String>> {
    const LOST: &str = "a template changed while the controller is down is not held and rolls out at once";
    let policy = rule.policy;
    for (api_version, kind) in [POLICY, BINDING] {
        return Some(Some(match objects.get(&ObjectRef::new(api_version, kind, "", policy)) {
            Ok(_) => continue,
            Err(Lookup::Pending) => return None,
            Err(Lookup::Missing(Missing::Object)) => format!(
                "{kind} {policy} is not installed, so {LOST}; install it with `tidegate policy | kubectl apply -f -`"
            ),
            Err(Lookup::Missing(Missing::Kind)) => format!(
                "this API server does not serve {api_version} {kind} (Kubernetes 1.36 and later do), so {LOST}; install \
                 the webhooks: `tidegate webhooks`"
            ),
            Err(Lookup::Missing(Missing::Forbidden(why))) => {
                format!("the controller may not read {kind} ({why}), so perhaps {LOST}")
            }
        }));
    }
    Some(None)
}
