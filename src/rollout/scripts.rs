//! During a release: which text of a script serves an object.
//!
//! A release goes on with the scripts that it began with until new texts have shown that they work: a text that was
//! changed meanwhile first runs for every step on the live objects, beside the one that serves. One that fails is not used in
//! this release; one that works takes over at once, and what it does otherwise is told. A TrafficRouting does the same from its first
//! change of routes to its last.

use serde_json::{Value, json};

use super::{
    machine::Machine,
    release::{Scope, owner_reference},
};
use crate::{
    api::{
        conditions::{self, reasons, types},
        v1beta1::{RejectedScript, ServingScript},
    },
    lua::{NotFound, Origin, Script},
    traffic::{
        Strategy,
        diff::diff,
        ingress::{self, Ingress},
        routes::{self, Context, Network},
    },
};

/// An object, and the texts that could serve it.
struct Offer {
    kind: String,
    name: String,
    /// What the library has now.
    script: Result<Script, NotFound>,
    /// What has served in this release, where that is another text.
    working: Option<Script>,
}

/// What became of an offer.
#[derive(Default)]
struct Choice {
    serving: Option<ServingScript>,
    /// The text that serves instead of the library's.
    instead: Option<Script>,
    /// For people; a warning when the text was rejected.
    event: Option<(&'static str, String)>,
}

/// The objects that route, with the texts of their scripts.
pub(super) struct Routers<'a> {
    pub networks: &'a mut [Network],
    pub ingress: Option<&'a mut Ingress>,
}

/// What every text is tried with.
pub(super) struct Trial<'a> {
    pub context: Context<'a>,
    /// Of each step that changes routes.
    pub strategies: Vec<&'a Strategy>,
    /// Owner of a canary Ingress.
    pub owner: Value,
}

/// What was chosen, and what people are told of it: a reason and a message.
pub(super) type Chosen = (Vec<ServingScript>, Vec<(&'static str, String)>);

impl Routers<'_> {
    /// Chooses the text of each object's script, which serves from here on. `known`: those that served so far.
    pub(super) fn choose(self, known: &[ServingScript], trial: &Trial<'_>) -> Chosen {
        let mut chosen = Vec::new();
        for network in self.networks {
            let offer = Offer {
                kind: network.reference.kind.clone(),
                name: network.reference.name.clone(),
                script: network.script.clone(),
                working: network.working.clone(),
            };
            let choice = offer.choose(known, |script| trial.on_network(network, script));
            if let Some(script) = &choice.instead {
                network.script = Ok(script.clone());
            }
            chosen.push(choice);
        }
        if let Some(ingress) = self.ingress {
            let offer = Offer {
                kind: ingress::KIND.to_owned(),
                name: ingress.name.clone(),
                script: ingress.script.clone(),
                working: ingress.working.clone(),
            };
            let choice = offer.choose(known, |script| trial.on_ingress(ingress, script));
            if let Some(script) = &choice.instead {
                ingress.script = Ok(script.clone());
            }
            chosen.push(choice);
        }
        let (serving, events): (Vec<_>, Vec<_>) = chosen.into_iter().map(|c| (c.serving, c.event)).unzip();
        (serving.into_iter().flatten().collect(), events.into_iter().flatten().collect())
    }
}

impl Trial<'_> {
    /// What a text makes of an object in every step.
    fn on_network(&self, network: &Network, script: &Script) -> Result<Vec<Value>, String> {
        let networks = [Network { script: Ok(script.clone()), ..network.clone() }];
        let results = self.strategies.iter().map(|strategy| routes::results(&networks, &self.context, strategy));
        results.map(|result| result.map(|parts| json!(parts.first())).map_err(|e| e.message)).collect()
    }

    fn on_ingress(&self, ingress: &Ingress, script: &Script) -> Result<Vec<Value>, String> {
        let ingress = Ingress { script: Ok(script.clone()), ..ingress.clone() };
        let results = self.strategies.iter().map(|strategy| ingress.plan_step(&self.context, strategy, &self.owner));
        results.map(|result| result.map(|write| json!(write)).map_err(|e| e.message)).collect()
    }
}

impl Machine<'_> {
    /// Chooses the text of each object's script for this pass.
    pub(super) fn choose_scripts(&mut self, scope: &Scope) {
        let (Some(traffic), Ok(release)) = (&scope.traffic, self.release()) else { return };
        let known = std::mem::take(&mut self.status.scripts);
        let trial = Trial {
            context: Context { names: &traffic.names, patch: release.patch.as_ref(), engine: &self.snap.engine },
            strategies: release.steps.iter().map(|step| &step.strategy).filter(|s| !s.is_empty()).collect(),
            owner: owner_reference(&self.snap.rollout),
        };
        let routers = Routers { networks: &mut self.networks, ingress: self.ingress.as_mut() };
        let (serving, events) = routers.choose(&known, &trial);
        self.status.scripts = serving;
        for (reason, message) in events {
            if reason == reasons::SCRIPT_REJECTED {
                self.warn(reason, message);
            } else {
                self.event(reason, message);
            }
        }
        self.report_rejected();
    }

    /// A new release begins with the texts of its own time.
    pub(super) fn forget_scripts(&mut self) {
        self.status.scripts.clear();
        self.report_rejected();
    }

    /// The next release uses what was rejected in this one, if nobody mends it.
    pub(super) fn forget_rejected(&mut self) {
        self.status.scripts.iter_mut().for_each(|script| script.rejected = None);
        self.report_rejected();
    }

    fn report_rejected(&mut self) {
        let rejected: Vec<String> =
            self.status.scripts.iter().filter_map(|s| Some(s.rejected.as_ref()?.message.clone())).collect();
        if rejected.is_empty() {
            conditions::remove(&mut self.status.conditions, types::SCRIPT_REJECTED);
        } else {
            self.set_condition(types::SCRIPT_REJECTED, true, reasons::SCRIPT_FAILED, &rejected.join("; "));
        }
    }
}

impl Offer {
    /// `results_of` says what a text makes of the object in every step.
    fn choose(&self, known: &[ServingScript], results_of: impl Fn(&Script) -> Result<Vec<Value>, String>) -> Choice {
        let known = known.iter().find(|k| (&k.kind, &k.name) == (&self.kind, &self.name));
        let Some(known) = known else {
            let serving = self.script.as_ref().ok().map(|script| self.serving(script));
            return Choice { serving, ..Choice::default() };
        };
        let goes_on = || Choice { serving: Some(known.clone()), ..Choice::default() };
        match (&self.script, &self.working) {
            (Ok(script), _) if script.version() == known.version => {
                let serving = ServingScript { rejected: None, ..known.clone() };
                Choice { serving: Some(serving), ..Choice::default() }
            }
            // What served is not known any more, as after a restart of the controller: whatever is there has to do.
            (Ok(script), None) => match results_of(script) {
                Ok(_) => self.taken(known, script, "the text before is not known any more".to_owned()),
                Err(_) => goes_on(),
            },
            (Err(_), None) => goes_on(),
            (Ok(script), Some(_)) if known.rejected.as_ref().is_some_and(|r| r.version == script.version()) => {
                Choice { instead: self.working.clone(), ..goes_on() }
            }
            (Ok(script), Some(working)) => match (results_of(script), results_of(working)) {
                (Ok(after), Ok(before)) => self.taken(known, script, differences(&before, &after)),
                (Ok(_), Err(_)) => self.taken(known, script, "the text before failed".to_owned()),
                (Err(problem), Ok(_)) => self.rejected(known, &script.version(), problem),
                // Neither works, perhaps because of the object: people have to know what is wrong with the one that they see.
                (Err(_), Err(_)) => goes_on(),
            },
            (Err(gone), Some(_)) => self.rejected(known, "", gone.to_string()),
        }
    }

    fn serving(&self, script: &Script) -> ServingScript {
        let source = match &script.origin {
            Origin::BuiltIn => "BuiltIn",
            Origin::ConfigMap { namespace, .. } if !namespace.is_empty() => "NamespaceConfigMap",
            Origin::ConfigMap { .. } | Origin::File(_) => "ConfigMap",
        };
        ServingScript {
            kind: self.kind.clone(),
            name: self.name.clone(),
            source: source.to_owned(),
            script: script.name.clone(),
            version: script.version(),
            ..ServingScript::default()
        }
    }

    fn taken(&self, before: &ServingScript, script: &Script, differences: String) -> Choice {
        let serving = ServingScript { differences: differences.clone(), ..self.serving(script) };
        let message = format!(
            "{} {}: script {} has changed from version {} to {}, which serves from now on: {differences}",
            self.kind, self.name, serving.script, before.version, serving.version
        );
        Choice { serving: Some(serving), instead: None, event: Some((reasons::SCRIPT_CHANGED, message)) }
    }

    fn rejected(&self, known: &ServingScript, version: &str, problem: String) -> Choice {
        let is_news = known.rejected.as_ref().is_none_or(|r| r.version != version || r.message != problem);
        let what = if version.is_empty() { "what is left".to_owned() } else { format!("version {version}") };
        let message = format!(
            "{} {}: {what} of its script is not used in this release, version {} goes on: {problem}",
            self.kind, self.name, known.version
        );
        let rejected = Some(RejectedScript { version: version.to_owned(), message: problem });
        Choice {
            serving: Some(ServingScript { rejected, ..known.clone() }),
            instead: self.working.clone(),
            event: is_news.then_some((reasons::SCRIPT_REJECTED, message)),
        }
    }
}

/// In words, from what a text makes of the steps to what another one does.
fn differences(before: &[Value], after: &[Value]) -> String {
    const MOST: usize = 3;
    const LONGEST: usize = 80;
    let steps: Vec<(usize, Vec<Value>)> = before
        .iter()
        .zip(after)
        .map(|(before, after)| diff("", Some(before), Some(after)))
        .enumerate()
        .filter(|(_, operations)| !operations.is_empty())
        .collect();
    let Some((first, operations)) = steps.first() else { return "the routes stay the same".to_owned() };
    let word = |operation: &Value| {
        let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
        let value = operation.get("value").map(|v| format!(" {v}")).unwrap_or_default();
        let all = format!("{} {}{value}", text("op"), text("path"));
        let mut short: String = all.chars().take(LONGEST).collect();
        if short.len() < all.len() {
            short.push('…');
        }
        short
    };
    let mut words: Vec<String> = operations.iter().take(MOST).map(word).collect();
    if operations.len() > MOST {
        words.push(format!("{} more", operations.len() - MOST));
    }
    let others = match steps.len() - 1 {
        0 => String::new(),
        n => format!("; {n} more routing steps differ"),
    };
    format!("in routing step {}: {}{others}", first + 1, words.join(", "))
}
