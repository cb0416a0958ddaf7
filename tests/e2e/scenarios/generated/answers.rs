//! What one server has answered, in words that both have in common.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::{SELECTORS, SENTINEL, requests::Step, send};

pub struct Server<'a> {
    pub client: &'a Client,
    namespace: String,
    base: &'a Value,
    /// The newest answer about each object, by path.
    live: BTreeMap<String, Value>,
    /// Versions that each object has had.
    versions: BTreeMap<String, Vec<String>>,
    token: String,
    generated: String,
    uids: Numbers,
    written: Numbers,
    names: Numbers,
    addresses: Numbers,
    in_text: Regex,
}

/// Numbers things in the order of their first appearance.
struct Numbers(&'static str, Vec<String>);

impl Numbers {
    fn of(&mut self, text: &str) -> String {
        let at = self.1.iter().position(|t| t == text).unwrap_or_else(|| {
            self.1.push(text.to_owned());
            self.1.len() - 1
        });
        format!("<{} {at}>", self.0)
    }
}

impl<'a> Server<'a> {
    pub fn new(client: &'a Client, namespace: &str, base: &'a Value) -> Result<Self> {
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
            base,
            live: BTreeMap::new(),
            versions: BTreeMap::new(),
            token: String::new(),
            generated: "none".into(),
            uids: Numbers("uid", Vec::new()),
            written: Numbers("version", Vec::new()),
            names: Numbers("generated", Vec::new()),
            addresses: Numbers("address", Vec::new()),
            in_text: Regex::new(
                r"(?P<uid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|(?P<version>ResourceVersion in (?:record|the precondition) \([0-9]+)|(?P<name>gen-[a-z0-9]{5})|(?P<address>10\.96\.[0-9]+\.[0-9]+)",
            )?,
        })
    }

    /// Sends a step with what this server knows in the places of its marks.
    pub async fn ask(&mut self, step: &Step) -> Result<(u16, Value)> {
        let mut step = step.clone();
        let object = self.filled(step.path.trim_end_matches("/status").trim_end_matches("/scale"), "");
        step.path = self.filled(&step.path, &object);
        step.query = step.query.iter().map(|q| self.filled(q, &object)).collect();
        step.body = self.body(&step.body, &object);
        if step.over_live {
            let name = object.rsplit('/').next().unwrap_or_default();
            let (version, kind) = (&self.base["apiVersion"], &self.base["kind"]);
            let none = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
            let mut body = self.live.get(&object).cloned().unwrap_or(none);
            json_patch::merge(&mut body, &step.body);
            step.body = body;
        }
        let (code, mut answer) = send(self.client, &step).await?;
        self.remember(&step, code, &object, &answer);
        self.common(&mut answer);
        Ok((code, answer))
    }

    fn remember(&mut self, step: &Step, code: u16, object: &str, answer: &Value) {
        if answer["items"].is_array() {
            self.token = answer["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        }
        let one = answer["metadata"]["uid"].is_string() && answer["kind"] != "Scale";
        if code >= 300 || !one || step.dry() {
            return;
        }
        let name = answer["metadata"]["name"].as_str().unwrap_or_default();
        if name.starts_with("gen-") {
            self.generated = name.to_owned();
        }
        let path = if step.method == "POST" { format!("{object}/{name}") } else { object.to_owned() };
        if let Some(version) = answer["metadata"]["resourceVersion"].as_str() {
            let versions = self.versions.entry(path.clone()).or_default();
            if versions.last().is_none_or(|v| v != version) {
                versions.push(version.to_owned());
            }
        }
        self.live.insert(path, answer.clone());
    }

    fn filled(&self, text: &str, object: &str) -> String {
        let versions = self.versions.get(object).map_or(&[][..], Vec::as_slice);
        let version = |back: usize| versions.iter().rev().nth(back).map_or("1", String::as_str);
        let uid = self.live.get(object).and_then(|o| o["metadata"]["uid"].as_str()).unwrap_or("none");
        text.replace("{namespace}", &self.namespace)
            .replace("{version}", version(0))
            .replace("{older}", version(1))
            .replace("{uid}", uid)
            .replace("{continue}", &self.token)
            .replace("{generated}", &self.generated)
    }

    fn body(&self, value: &Value, object: &str) -> Value {
        match value {
            Value::Object(map) => {
                map.iter().map(|(k, v)| (k.clone(), self.body(v, object))).collect::<Map<_, _>>().into()
            }
            Value::Array(list) => list.iter().map(|v| self.body(v, object)).collect(),
            Value::String(text) => self.filled(text, object).into(),
            other => other.clone(),
        }
    }

    /// The events of a watch up to the sentinel.
    pub async fn told(&mut self, path: String) -> Result<Value> {
        let request = Request::get(&path).header("accept", "application/json").body(Body::from(Vec::new()))?;
        let mut body = self.client.send(request).await?.into_body();
        let (mut rest, mut events) = (Vec::new(), Vec::new());
        loop {
            let frame = body.frame().await.with_context(|| format!("{path} ended before the sentinel"))??;
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line)?;
                let object = &mut event["object"];
                if object["kind"] == "Status" {
                    bail!("{path}: {object}");
                }
                if object["metadata"]["name"] == SENTINEL {
                    // An earlier watch's may be told of as well.
                    let mine = SELECTORS.iter().find(|s| path.contains(s.0));
                    let labels = object["metadata"]["labels"].clone();
                    if event["type"] == "ADDED" && mine.map_or(labels.is_null(), |s| labels[s.1] == s.2) {
                        return Ok(events.into());
                    }
                    continue;
                }
                self.common(object);
                events.push(event);
            }
        }
    }

    fn common(&mut self, value: &mut Value) {
        if let Some(causes) = value.pointer_mut("/details/causes").and_then(Value::as_array_mut) {
            // The order of several causes is not fixed, and the server says some of them several times.
            causes.sort_by_key(Value::to_string);
            causes.dedup();
            let several = causes.len() > 1;
            if several {
                value["message"] = json!("*");
            }
        }
        if value["items"].is_array() {
            // Others write meanwhile.
            value["metadata"]["resourceVersion"] = json!(null);
        }
        self.same(value);
    }

    fn same(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "creationTimestamp" | "time" | "deletionTimestamp" => *value = json!("*"),
                        "continue" if value != "" => *value = json!("*"),
                        "resourceVersion" if value.is_string() => {
                            *value = self.written.of(value.as_str().unwrap_or_default()).into();
                        }
                        _ => self.same(value),
                    }
                }
            }
            Value::Array(list) => {
                list.iter_mut().for_each(|v| self.same(v));
                // Managers stand in the order of the seconds in which they wrote; that of causes is not fixed.
                let unordered =
                    |v: &Value| v["fieldsType"].is_string() || v["field"].is_string() && v["reason"].is_string();
                if list.iter().any(unordered) {
                    list.sort_by_key(Value::to_string);
                }
            }
            Value::String(text) => {
                let mut out = String::new();
                let mut from = 0;
                for found in self.in_text.captures_iter(text) {
                    let Some(whole) = found.get(0) else { continue };
                    out.push_str(&text[from..whole.start()]);
                    out.push_str(&match (found.name("uid"), found.name("name"), found.name("address")) {
                        (Some(uid), _, _) => self.uids.of(uid.as_str()),
                        (_, Some(name), _) => self.names.of(name.as_str()),
                        (_, _, Some(address)) => self.addresses.of(address.as_str()),
                        _ => "<version>".to_owned(),
                    });
                    from = whole.end();
                }
                out.push_str(&text[from..]);
                *text = out;
            }
            _ => {}
        }
    }
}
