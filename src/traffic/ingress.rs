//! The canary Ingress: an Ingress of ours beside the user's, whose annotations tell the gateway what the canary gets.
//!
//! It holds the rules that route to the stable Service, with the canary's in its place; the class's script returns its
//! annotations. It is computed from the user's Ingress as it is now, so that changes of that one follow. Classes that
//! hold both versions in one Ingress say `-- ingress: in-place` in their script's header and take the path of every other
//! object that routes. `-- ingress: default-backend` says that a canary Ingress may share `spec.defaultBackend`.

mod canary;

use std::sync::Arc;

use serde_json::{Value, json};

pub use canary::{canary, is_in_place, only_matches, script_input};

use super::{
    Original, Parts, Strategy,
    routes::{Change, Context, Missing, RouteError, RouteWrite, declared_grace},
};
use crate::{
    api::{
        conditions::reasons,
        keys,
        object::{self, ObjectRef, text},
    },
    lua::{NotFound, Script},
};

/// What the classes' scripts are for.
pub const API_VERSION: &str = "networking.k8s.io/v1";
/// What the classes' scripts are for.
pub const KIND: &str = "Ingress";
/// What tells which gateway takes an Ingress.
pub const CLASS_KIND: &str = "IngressClass";
/// What the name of a canary Ingress ends in.
const SUFFIX: &str = "-canary";
/// The longest name that leaves room for it.
pub const LONGEST_NAME: usize = 253 - SUFFIX.len();

/// Name of the canary Ingress of an Ingress.
pub fn canary_name(stable: &str) -> String {
    format!("{stable}{SUFFIX}")
}

/// An Ingress whose class has a canary Ingress, as both were found.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// Name of the user's Ingress.
    pub name: String,
    /// Namespace of both: the Rollout's.
    pub namespace: String,
    /// The user's Ingress, or why there is none.
    pub stable: Result<Arc<Value>, Missing>,
    /// The object with the canary Ingress's name, whoever made it.
    pub canary: Result<Arc<Value>, Missing>,
    /// The script of its class, or where it was looked for.
    pub script: Result<Script, NotFound>,
    /// As [`Network::working`](super::routes::Network::working).
    pub working: Option<Script>,
    /// `spec.controller` of its IngressClass, where it is known.
    pub controller: Option<String>,
}

impl Ingress {
    /// As [`Network::grace`](super::routes::Network::grace).
    pub fn grace(&self) -> Option<i64> {
        declared_grace(self.script.as_ref().ok()?)
    }

    fn target(&self, name: &str) -> ObjectRef {
        ObjectRef::new(API_VERSION, KIND, &self.namespace, name)
    }

    /// The write that makes the gateway send requests as a strategy says; none when it does already.
    ///
    /// # Errors
    /// When an object is missing, the script fails, or the canary Ingress's name is taken.
    pub fn plan_step(
        &self,
        context: &Context<'_>,
        strategy: &Strategy,
        owner: &Value,
    ) -> Result<Option<RouteWrite>, RouteError> {
        let target = self.target(&self.name);
        let failed =
            |reason: &'static str, message: String| RouteError { reason, message: format!("{target}: {message}") };
        let stable = found(&target, &self.stable)?;
        let script = self.script.as_ref().map_err(|e| failed(reasons::SCRIPT_NOT_FOUND, e.to_string()))?;
        let own = self.own(owner)?;
        if let Some(own) = own.filter(|own| object::annotation(own, keys::CANARY_INGRESS).is_none()) {
            // The original controller's: what it wrote there would stay beside what we write. It is made anew.
            return Ok(Some(self.deletion(own)));
        }
        if strategy.weight == Some(0) && strategy.matches.is_empty() {
            match own {
                None => return Ok(None),
                Some(own) if only_matches(script) => return Ok(Some(self.deletion(own))),
                Some(_) => {}
            }
        }
        let stable = Original::from_object(stable).map_err(|e| failed(reasons::ROUTE_REFUSED, e.to_string()))?;
        let input = script_input(&stable, context.names, context.patch, strategy, self.controller.as_deref());
        let outcome = context.engine.run(script, &input).map_err(|e| failed(reasons::SCRIPT_FAILED, e.to_string()))?;
        let parts = canary(&stable, context.names, script, outcome.value)
            .map_err(|message| failed(reasons::ROUTE_REFUSED, message))?;
        let wanted = self.object(parts, owner);
        if own.is_some_and(|own| holds(own, &wanted)) {
            return Ok(None);
        }
        let target = self.target(&canary_name(&self.name));
        Ok(Some(RouteWrite { target, change: Change::Apply { object: wanted }, is_definition: false }))
    }

    /// The write after which nothing of ours routes; none when nothing does.
    ///
    /// # Errors
    /// When it cannot be known whether there is a canary Ingress: pods must not go then.
    pub fn plan_restore(&self, owner: &Value) -> Result<Option<RouteWrite>, RouteError> {
        if let Err(Missing::Forbidden(_)) = &self.canary {
            found(&self.target(&canary_name(&self.name)), &self.canary)?;
        }
        let own = self.owned(owner).filter(|canary| !object::is_deleting(canary));
        Ok(own.map(|own| self.deletion(own)))
    }

    fn deletion(&self, own: &Value) -> RouteWrite {
        let change = Change::Delete { uid: object::uid(own).to_owned() };
        RouteWrite { target: self.target(object::name(own)), change, is_definition: false }
    }

    /// D-06: an object is ours by its owner, never by its name.
    fn owned(&self, owner: &Value) -> Option<&Value> {
        let uid = text(owner, &["uid"]);
        let canary = self.canary.as_deref().ok()?;
        (!uid.is_empty() && object::controller_uid(canary) == Some(uid)).then_some(canary)
    }

    fn own(&self, owner: &Value) -> Result<Option<&Value>, RouteError> {
        let own = self.owned(owner);
        match &self.canary {
            Ok(_) if own.is_none() => Err(RouteError {
                reason: reasons::NAME_TAKEN,
                message: format!(
                    "{} exists and does not belong to this Rollout; rename or delete it",
                    self.target(&canary_name(&self.name))
                ),
            }),
            Err(Missing::Forbidden(_)) => found(&self.target(&canary_name(&self.name)), &self.canary).map(|_| None),
            _ => Ok(own),
        }
    }

    fn object(&self, parts: Parts, owner: &Value) -> Value {
        let digest = object::digest(&json!(parts));
        let mut annotations = parts.annotations;
        annotations.insert(keys::CANARY_INGRESS.to_owned(), digest);
        let mut metadata = json!({
            "name": canary_name(&self.name),
            "namespace": self.namespace,
            "annotations": annotations,
            "ownerReferences": [owner],
        });
        if let Some(metadata) = metadata.as_object_mut().filter(|_| !parts.labels.is_empty()) {
            metadata.insert("labels".to_owned(), json!(parts.labels));
        }
        json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": parts.spec})
    }
}

fn found<'a>(target: &ObjectRef, object: &'a Result<Arc<Value>, Missing>) -> Result<&'a Arc<Value>, RouteError> {
    object.as_ref().map_err(|missing| RouteError {
        reason: reasons::NETWORK_REF_NOT_FOUND,
        message: match missing {
            Missing::Object => format!("{target} does not exist; create it, or correct trafficRoutings.ingress.name"),
            Missing::Kind => format!("{target}: the API server does not serve {API_VERSION} {KIND}"),
            Missing::Forbidden(error) => format!(
                "{target}: the controller may not read this kind ({error}); grant it get, list, watch, create, patch and \
                 delete"
            ),
        },
    })
}

/// Whether an object has all that is wanted. What others add beside it is theirs; lists are atomic.
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|l| holds(l, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| holds(l, w))
        }
        _ => live == wanted,
    }
}
