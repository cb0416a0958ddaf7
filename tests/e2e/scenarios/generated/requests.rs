//! Sequences of requests from a seed.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::yaml;

use crate::rig::random::Random;

/// A kind in kinds.yaml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    pub path: String,
    /// The same objects in another version.
    also: Option<String>,
    pub base: Value,
    #[serde(default)]
    status: bool,
    #[serde(default)]
    scale: bool,
    #[serde(default)]
    custom: bool,
    /// Each apply brings the whole object.
    #[serde(default)]
    whole: bool,
    changes: Vec<Value>,
    own: Vec<Value>,
    #[serde(default)]
    creates: Vec<Value>,
    #[serde(default)]
    strategic: Vec<Value>,
    #[serde(default)]
    statuses: Vec<Value>,
    json: Vec<Value>,
}

pub fn kinds() -> Result<Vec<Kind>> {
    let list: Value = yaml::from_str(include_str!("kinds.yaml"))?;
    serde_json::from_value(list).context("kinds.yaml")
}

/// A request. `{namespace}`, `{version}`, `{older}`, `{uid}`, `{continue}` and `{generated}` in it stand for what the
/// server that it goes to has answered so far.
#[derive(Clone, Debug)]
pub struct Step {
    pub method: &'static str,
    pub media: &'static str,
    pub path: String,
    pub query: Vec<String>,
    pub body: Value,
    /// The body is a merge patch of the object as that server last gave it: read, change, write.
    pub over_live: bool,
}

impl Step {
    fn new(method: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self { method, media: "application/json", path: path.into(), query: Vec::new(), body, over_live: false }
    }

    pub fn uri(&self) -> String {
        format!("{}?{}", self.path, self.query.join("&"))
    }

    pub fn dry(&self) -> bool {
        self.query.iter().any(|q| q.starts_with("dryRun"))
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let media = self.media.trim_start_matches("application/");
        let body = if self.body.is_null() { String::new() } else { self.body.to_string() };
        let live = if self.over_live { "live + " } else { "" };
        write!(f, "{} {} ({media}) {live}{body}", self.method, self.uri())
    }
}

/// A label selector, and labels that it selects.
pub const SELECTORS: [(&str, &str, &str); 4] = [
    ("tier%3Da", "tier", "a"),
    ("tier%20in%20(a,b),!gone", "tier", "b"),
    ("app,tier!%3Da", "app", "web"),
    ("!tier", "app", "other"),
];

const NAMES: [&str; 2] = ["a", "b"];
const MANAGERS: [&str; 3] = ["one", "two", "three"];

/// Requests for the objects of one kind in a namespace of its own.
pub struct Maker<'a> {
    pub random: &'a mut Random,
    pub kind: &'a Kind,
}

impl Maker<'_> {
    pub fn sequence(&mut self, length: usize) -> Vec<Step> {
        let mut steps = vec![Step::new("POST", &self.kind.path, self.manifest("a"))];
        while steps.len() < length {
            let step = self.step();
            steps.extend(step);
        }
        steps
    }

    fn step(&mut self) -> Vec<Step> {
        let path = match &self.kind.also {
            Some(also) if self.random.one_in(8) => also.clone(),
            _ => self.kind.path.clone(),
        };
        // Most requests are of one object, so that a history comes together.
        let name = if self.random.one_in(4) { NAMES[1] } else { NAMES[0] };
        let object = format!("{path}/{name}");
        let mut steps = match self.random.below(40) {
            0..=4 => return self.create(path, name),
            5..=6 => return self.list(&path),
            7 => vec![Step::new("GET", object, Value::Null)],
            8..=11 => vec![self.update(object, name)],
            12..=16 => vec![self.patch(object, "application/merge-patch+json")],
            17..=20 => vec![self.patch(object, "application/json-patch+json")],
            21..=23 if !self.kind.custom => vec![self.patch(object, "application/strategic-merge-patch+json")],
            21..=29 => vec![self.apply(object, name)],
            30..=33 if self.kind.status => vec![self.status(object)],
            30..=35 if self.kind.scale => vec![self.scale(object)],
            30..=35 => vec![self.apply(object, name)],
            36 => {
                let body = self.delete_options();
                let mut step = Step::new("DELETE", path, body);
                step.query.push(format!("labelSelector={}", self.random.pick(&SELECTORS).0));
                vec![step]
            }
            _ => vec![self.delete(object)],
        };
        for step in &mut steps {
            if step.method != "GET" && step.method != "DELETE" {
                self.options(step);
            }
        }
        steps
    }

    fn options(&mut self, step: &mut Step) {
        if self.random.one_in(8) {
            step.query.push("dryRun=All".into());
        }
        if !step.query.iter().any(|q| q.starts_with("fieldManager")) && self.random.one_in(4) {
            step.query.push(format!("fieldManager={}", self.random.pick(&MANAGERS)));
        }
    }

    fn change(&mut self) -> Value {
        let kind = self.kind;
        let from = if self.random.one_in(3) { &kind.changes } else { &kind.own };
        self.random.pick(from).clone()
    }

    fn changes(&mut self, at_most: usize) -> Value {
        let mut all = self.change();
        for _ in 0..self.random.below(at_most) {
            // Unlike a merge patch, what is merged here keeps its nulls.
            layer(&mut all, &self.change());
        }
        all
    }

    fn manifest(&mut self, name: &str) -> Value {
        let mut object = self.kind.base.clone();
        object["metadata"]["name"] = json!(name);
        for _ in 0..self.random.below(3) {
            let change = self.change();
            json_patch::merge(&mut object, &change);
        }
        if !self.kind.creates.is_empty() && self.random.one_in(2) {
            let change = self.random.pick(&self.kind.creates).clone();
            json_patch::merge(&mut object, &change);
        }
        object
    }

    fn of_version(&self, mut object: Value, path: &str) -> Value {
        if let Some(version) = path.strip_prefix("/apis/").and_then(|p| p.split_once("/namespaces")) {
            object["apiVersion"] = json!(version.0);
        }
        object
    }

    fn create(&mut self, path: String, name: &str) -> Vec<Step> {
        let mut object = self.manifest(name);
        object = self.of_version(object, &path);
        let generated = self.random.one_in(4);
        if generated {
            object["metadata"]["generateName"] = json!("gen-");
            object["metadata"].as_object_mut().unwrap().remove("name");
        }
        let mut step = Step::new("POST", &path, object);
        self.options(&mut step);
        let again = Step::new("GET", format!("{path}/{{generated}}"), Value::Null);
        if generated && !step.dry() { vec![step, again] } else { vec![step] }
    }

    fn list(&mut self, path: &str) -> Vec<Step> {
        let mut step = Step::new("GET", path, Value::Null);
        match self.random.below(5) {
            0 => step.query.push(format!("fieldSelector=metadata.name{}a", self.random.pick(&["%3D", "!%3D"]))),
            1 | 2 => step.query.push(format!("labelSelector={}", self.random.pick(&SELECTORS).0)),
            _ => {}
        }
        if step.query.is_empty() && self.random.one_in(2) {
            step.query.push("limit=1".into());
            let mut next = step.clone();
            next.query.push("continue={continue}".into());
            return vec![step, next];
        }
        vec![step]
    }

    fn version(&mut self) -> Value {
        self.random.pick(&[Value::Null, json!("{version}"), json!("{version}"), json!("{older}")]).clone()
    }

    fn update(&mut self, object: String, name: &str) -> Step {
        if self.random.one_in(4) {
            let mut body = self.manifest(name);
            body = self.of_version(body, &object);
            let version = self.version();
            json_patch::merge(&mut body, &json!({"metadata": {"resourceVersion": version}}));
            return Step::new("PUT", object, body);
        }
        let mut body = self.changes(3);
        match self.random.below(6) {
            0 => layer(&mut body, &json!({"metadata": {"resourceVersion": null}})),
            1 => layer(&mut body, &json!({"metadata": {"resourceVersion": "{older}"}})),
            2 => layer(&mut body, &json!({"metadata": {"managedFields": null}})),
            _ => {}
        }
        Step { over_live: true, ..Step::new("PUT", object, body) }
    }

    fn patch(&mut self, object: String, media: &'static str) -> Step {
        let kind = self.kind;
        let mut body = match media {
            "application/json-patch+json" => self.random.pick(&kind.json).clone(),
            "application/strategic-merge-patch+json" if !kind.strategic.is_empty() && self.random.one_in(2) => {
                self.random.pick(&kind.strategic).clone()
            }
            _ => self.changes(3),
        };
        if body.is_object() && self.random.one_in(6) {
            let version = self.random.pick(&["{version}", "{older}"]);
            layer(&mut body, &json!({"metadata": {"resourceVersion": version}}));
        }
        Step { media, ..Step::new("PATCH", object, body) }
    }

    fn apply(&mut self, object: String, name: &str) -> Step {
        let mut body = json!({"apiVersion": self.kind.base["apiVersion"], "kind": self.kind.base["kind"]});
        if self.kind.whole || self.random.one_in(2) {
            body = self.kind.base.clone();
        }
        body["metadata"]["name"] = json!(name);
        for _ in 0..=self.random.below(3) {
            let change = self.change();
            json_patch::merge(&mut body, &change);
        }
        body = self.of_version(body, &object);
        let mut step = Step { media: "application/apply-patch+yaml", ..Step::new("PATCH", object, body) };
        step.query.push(format!("fieldManager={}", self.random.pick(&MANAGERS)));
        if self.random.one_in(3) {
            step.query.push("force=true".into());
        }
        step
    }

    fn status(&mut self, object: String) -> Step {
        let path = format!("{object}/status");
        let mut body = self.random.pick(&self.kind.statuses).clone();
        if self.random.one_in(3) {
            // What a writer of the status has no say in.
            layer(&mut body, &self.change());
        }
        match self.random.below(4) {
            0 => Step { over_live: true, ..Step::new("PUT", path, body) },
            1 => {
                let named = json!({"apiVersion": self.kind.base["apiVersion"], "kind": self.kind.base["kind"]});
                let mut applied = self.of_version(named, &path);
                json_patch::merge(&mut applied, &body);
                applied["metadata"]["name"] = json!(path.rsplit('/').nth(1));
                let mut step = Step { media: "application/apply-patch+yaml", ..Step::new("PATCH", path, applied) };
                step.query.push(format!("fieldManager={}", self.random.pick(&MANAGERS)));
                if self.random.one_in(2) {
                    step.query.push("force=true".into());
                }
                step
            }
            2 if !self.kind.custom => {
                Step { media: "application/strategic-merge-patch+json", ..Step::new("PATCH", path, body) }
            }
            _ => Step { media: "application/merge-patch+json", ..Step::new("PATCH", path, body) },
        }
    }

    fn scale(&mut self, object: String) -> Step {
        let path = format!("{object}/scale");
        let replicas = self.random.below(4) as i64 - 1;
        match self.random.below(4) {
            0 => Step::new("GET", path, Value::Null),
            1 => {
                let name = object.rsplit('/').next().unwrap_or_default();
                let version = self.version();
                let mut body = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
                    "metadata": {"name": name, "namespace": "{namespace}"}, "spec": {"replicas": replicas}});
                json_patch::merge(&mut body, &json!({"metadata": {"resourceVersion": version}}));
                Step::new("PUT", path, body)
            }
            _ => {
                let body = json!({"spec": {"replicas": replicas}});
                Step { media: "application/merge-patch+json", ..Step::new("PATCH", path, body) }
            }
        }
    }

    fn delete_options(&mut self) -> Value {
        match self.random.below(6) {
            0..=2 => Value::Null,
            _ => {
                let policy = self.random.pick(&["Background", "Foreground", "Orphan"]);
                json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy})
            }
        }
    }

    fn delete(&mut self, object: String) -> Step {
        let mut body = self.delete_options();
        if self.random.one_in(2) {
            let (key, value) = *self.random.pick(&[
                ("uid", "{uid}"),
                ("uid", "other"),
                ("resourceVersion", "{version}"),
                ("resourceVersion", "{older}"),
            ]);
            json_patch::merge(
                &mut body,
                &json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {key: value}}),
            );
        }
        let mut step = Step::new("DELETE", object, body);
        match self.random.below(8) {
            0 => step.query.push("dryRun=All".into()),
            1 => step.query.push("gracePeriodSeconds=0".into()),
            2 => step.query.push("propagationPolicy=Foreground".into()),
            _ => {}
        }
        step
    }
}

/// Lays `over` on a merge patch. Nulls of either stay, for they say what to remove.
fn layer(patch: &mut Value, over: &Value) {
    match (patch, over) {
        (Value::Object(patch), Value::Object(over)) => {
            for (key, value) in over {
                layer(patch.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (patch, over) => *patch = over.clone(),
    }
}
