//! One object at a time: get, create, update, patch and delete.

use super::*;

impl Connection {
    /// Runs the operation; the flag says that the client died of its own write.
    pub(super) fn execute(&self, asked: &Asked, body: &[u8], struck: &[Fault]) -> (Answer, bool) {
        if asked.verb == Verb::DeleteCollection {
            return self.delete_collection(asked, body);
        }
        self.core.run(|state| {
            let before = state.writes();
            let result = self.operate(state, asked, body, struck);
            let died = state.writes() > before && state.faults.wrote(&self.identity);
            (result.unwrap_or_else(|status| refuse(&status)), died)
        })
    }

    pub(super) fn operate(
        &self,
        state: &mut State,
        asked: &Asked,
        body: &[u8],
        struck: &[Fault],
    ) -> Result<Answer, Box<Status>> {
        let core = &self.core;
        let Asked { kind, caller, .. } = asked;
        let namespace = asked.namespace.as_deref().unwrap_or_default();
        let name = asked.name.as_deref().unwrap_or_default();
        let selection = || -> Result<Selection, Box<Status>> {
            let part = |key: &str| asked.query.get(key).map(String::as_str).unwrap_or_default();
            Ok(Selection {
                kind: kind.clone(),
                namespace: asked.namespace.clone(),
                labels: Labels::parse(part("labelSelector"))?,
                fields: Fields::parse(part("fieldSelector"), &kind.plural)?,
                metadata_only: asked.metadata_only,
            })
        };
        let shown = |object: &Arc<Value>, code: u16| {
            let view = if caller.subresource == Some("scale") {
                Arc::new(scale::view(kind, object))
            } else if asked.metadata_only {
                Arc::new(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": object.get("metadata")}))
            } else {
                core.view_version(kind, caller, object)
            };
            json_answer(code, &view)
        };
        match asked.verb {
            Verb::Get => {
                let key = Key::new(kind.id, namespace, name);
                let object = state.store.at(&key).ok_or_else(|| status::not_found(kind, name))?;
                Ok(shown(object, 200))
            }
            Verb::List => self.list(state, asked, &selection()?),
            Verb::Watch => self.watch(state, asked, selection()?, struck),
            Verb::Create => {
                let object = parse(body, &asked.content_type)?;
                core.create(state, caller, kind, namespace, object).map(|o| shown(&o, 201))
            }
            Verb::Update => {
                let mut object = parse(body, &asked.content_type)?;
                let missing = state.store.at(&Key::new(kind.id, namespace, name)).is_none();
                if caller.subresource != Some("scale") {
                    core.name_type(caller, kind, &mut object);
                    core.check_type(caller, kind, &object)?;
                    core.check_url(kind, namespace, name, &object)?;
                }
                if missing && kind.update_creates() {
                    let uid = json::uid(&object);
                    if !uid.is_empty() {
                        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
                        return Err(status::conflict(kind, name, &why));
                    }
                    json::remove(&mut object, &["metadata", "resourceVersion"]);
                    return core.create(state, caller, kind, namespace, object).map(|o| shown(&o, 201));
                }
                core.update(state, caller, kind, namespace, name, |old| {
                    if caller.subresource == Some("scale") {
                        return Ok((scale::set(kind, name, old, &object)?, false));
                    }
                    Ok((object, false))
                })
                .map(|o| shown(&o, 200))
            }
            Verb::Patch => self.patch(state, asked, body).map(|(o, code)| shown(&o, code)),
            Verb::Delete => {
                let (options, dry_run) = delete_options(asked, body)?;
                let caller = &Caller { dry_run, ..caller.clone() };
                match core.delete(state, caller, kind, namespace, name, &options)? {
                    Deleted::Waiting(object) => Ok(shown(&object, 200)),
                    Deleted::Gone(last)
                        if matches!(kind.plural.as_str(), "pods" | "services" | "serviceaccounts")
                            && kind.group.is_empty() =>
                    {
                        Ok(shown(&last, 200))
                    }
                    Deleted::Gone(last) => {
                        let mut details = json!({"name": name, "kind": kind.plural, "uid": json::uid(&last)});
                        if !kind.group.is_empty() {
                            json::set(&mut details, &["group"], kind.group.clone());
                        }
                        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                        Ok(json_answer(200, &body))
                    }
                }
            }
            Verb::DeleteCollection => Err(status::unsupported("deletecollection", &kind.qualified())),
        }
    }

    pub(super) fn patch(
        &self,
        state: &mut State,
        asked: &Asked,
        body: &[u8],
    ) -> Result<(Arc<Value>, u16), Box<Status>> {
        let core = &self.core;
        let Asked { kind, caller, .. } = asked;
        let namespace = asked.namespace.as_deref().unwrap_or_default();
        let name = asked.name.as_deref().unwrap_or_default();
        let change = parse(body, &asked.content_type)?;
        let content = asked.content_type.split(';').next().unwrap_or_default().trim();
        let scaling = caller.subresource == Some("scale");
        let force = asked.query.get("force").is_some_and(|f| f == "true");
        if content == "application/apply-patch+yaml" {
            if asked.query.get("fieldManager").is_none_or(String::is_empty) {
                return Err(status::manager_required());
            }
            if scaling {
                return Err(status::unsupported("apply", &format!("{}/scale", kind.qualified())));
            }
            let time = core.timestamp();
            let key = Key::new(kind.id, namespace, name);
            if state.store.at(&key).is_none() {
                if caller.subresource.is_some() {
                    return Err(status::not_found(kind, name));
                }
                if !text(&change, "/metadata/uid").is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {}, and no existing object was found",
                        text(&change, "/metadata/uid")
                    );
                    return Err(status::conflict(kind, name, &why));
                }
                let mut config = change;
                json::default(&mut config, &["metadata", "name"], name);
                if json::name(&config) != name {
                    return Err(status::bad_request(format!(
                        "the name of the object ({}) does not match the name on the URL ({name})",
                        json::name(&config)
                    )));
                }
                let object = patch::apply::apply(kind, caller, &Value::Null, &config, force, &time)?;
                return core.create(state, caller, kind, namespace, object).map(|o| (o, 201));
            }
            return core
                .update(state, caller, kind, namespace, name, |old| {
                    let version = text(&change, "/metadata/resourceVersion");
                    if !version.is_empty() && version != text(old, "/metadata/resourceVersion") {
                        return Err(status::modified(kind, name));
                    }
                    Ok((patch::apply::apply(kind, caller, old, &change, force, &time)?, true))
                })
                .map(|o| (o, 200));
        }
        let patched = |target: &Value| match content {
            "application/json-patch+json" => patch::json::patch(target, &change),
            "application/merge-patch+json" => {
                if !change.is_object() {
                    return Err(status::bad_request("the merge patch is not an object"));
                }
                let mut result = target.clone();
                patch::merge::merge(&mut result, &change);
                Ok(result)
            }
            "application/strategic-merge-patch+json" => patch::strategic::patch(kind, target, &change),
            _ => Err(status::unsupported_media()),
        };
        core.update(state, caller, kind, namespace, name, |old| {
            if scaling {
                let scale = patched(&scale::view(kind, old))?;
                return Ok((scale::set(kind, name, old, &scale)?, false));
            }
            Ok((patched(old)?, false))
        })
        .map(|o| (o, 200))
    }

    pub(super) fn delete_collection(&self, asked: &Asked, body: &[u8]) -> (Answer, bool) {
        let part = |key: &str| asked.query.get(key).map(String::as_str).unwrap_or_default();
        let prepared = (|| {
            let labels = Labels::parse(part("labelSelector"))?;
            let fields = Fields::parse(part("fieldSelector"), &asked.kind.plural)?;
            Ok::<_, Box<Status>>((labels, fields, delete_options(asked, body)?))
        })();
        let (labels, fields, (options, dry_run)) = match prepared {
            Ok(parts) => parts,
            Err(status) => return (refuse(&status), false),
        };
        let caller = &Caller { dry_run, ..asked.caller.clone() };
        let found: Vec<Arc<Value>> = {
            let state = self.core.lock();
            let all = state.store.list(asked.kind.id, asked.namespace.as_deref());
            all.filter(|o| labels.selects(o) && fields.selects(o)).cloned().collect()
        };
        for object in &found {
            let (namespace, name) = (json::namespace(object), json::name(object));
            let (result, died) = self.core.run(|state| {
                let before = state.writes();
                let result = self.core.delete(state, caller, &asked.kind, namespace, name, &options);
                (result, state.writes() > before && state.faults.wrote(&self.identity))
            });
            if died {
                return (refuse(&status::internal("crashed")), true);
            }
            if let Err(status) = result
                && status.code != 404
            {
                return (refuse(&status), false);
            }
        }
        let version = self.core.lock().store.version().to_string();
        let untyped = |o: &Arc<Value>| {
            let mut shown = Value::clone(o);
            if !asked.kind.custom {
                json::remove(&mut shown, &["apiVersion"]);
                json::remove(&mut shown, &["kind"]);
            }
            shown
        };
        let list: Vec<Value> = found.iter().map(untyped).collect();
        let mut body = json!({"kind": format!("{}List", asked.kind.kind),
            "apiVersion": api_version(&asked.kind.group, &asked.caller.version),
            "metadata": {"resourceVersion": version}, "items": list});
        if asked.kind.custom {
            json::set(&mut body, &["metadata", "continue"], "");
        }
        (json_answer(200, &body), false)
    }
}

/// What a deletion asks for, and whether it is only a trial. With a body the query says nothing.
fn delete_options(asked: &Asked, body: &[u8]) -> Result<(DeleteOptions, bool), Box<Status>> {
    let body = if body.is_empty() { Value::Null } else { parse(body, &asked.content_type)? };
    let query = |key: &str| asked.query.get(key).filter(|_| body.is_null()).cloned();
    let dry_run =
        query("dryRun").is_some_and(|d| d == "All") || json::items(&body, "/dryRun").iter().any(|d| d == "All");
    let of_body = |pointer: &str| Some(text(&body, pointer).to_owned()).filter(|s| !s.is_empty());
    let grace = json::int(&body, "/gracePeriodSeconds").or_else(|| query("gracePeriodSeconds")?.parse().ok());
    let options = DeleteOptions {
        uid: of_body("/preconditions/uid"),
        resource_version: of_body("/preconditions/resourceVersion"),
        grace,
        propagation: of_body("/propagationPolicy").or_else(|| query("propagationPolicy")),
    };
    Ok((options, dry_run))
}

/// The body as JSON; YAML where the content type says so.
fn parse(body: &[u8], content_type: &str) -> Result<Value, Box<Status>> {
    let wrong = |e: &dyn std::fmt::Display| status::bad_request(format!("the object provided is unrecognized: {e}"));
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(e) if content_type.contains("yaml") => {
            let text = std::str::from_utf8(body).map_err(|_| wrong(&e))?;
            crate::yaml::from_str(text).map_err(|e| wrong(&e))
        }
        Err(e) => Err(wrong(&e)),
    }
}
