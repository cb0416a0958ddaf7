//! Many objects: list and watch.

use super::*;

impl Connection {
    pub(super) fn list(&self, state: &State, asked: &Asked, selection: &Selection) -> Result<Answer, Box<Status>> {
        let kind = &asked.kind;
        let mut objects: Vec<Arc<Value>> = match (selection.fields.single_name(), &asked.namespace) {
            (Some(name), Some(namespace)) => state.store.get(kind.id, namespace, name).into_iter().cloned().collect(),
            _ => state.store.list(kind.id, asked.namespace.as_deref()).cloned().collect(),
        };
        objects.retain(|o| selection.selects(o));
        let mut meta = json!({"resourceVersion": state.store.version().to_string()});
        if kind.custom {
            json::set(&mut meta, &["continue"], "");
        }
        let limit = asked.query.get("limit").and_then(|l| l.parse::<usize>().ok()).filter(|l| *l > 0);
        let start = match asked.query.get("continue").filter(|c| !c.is_empty()) {
            Some(token) => Some(token.split_once('/').ok_or_else(|| status::bad_request("continue key is not valid"))?),
            None => None,
        };
        if let Some((namespace, name)) = start {
            objects.retain(|o| (json::namespace(o), json::name(o)) > (namespace, name));
        }
        if let Some(limit) = limit.filter(|l| *l < objects.len()) {
            let left = objects.len() - limit;
            objects.truncate(limit);
            if let Some(last) = objects.last() {
                json::set(&mut meta, &["continue"], format!("{}/{}", json::namespace(last), json::name(last)));
                // With a selector the server does not know.
                if !selection.is_selective() {
                    json::set(&mut meta, &["remainingItemCount"], left);
                }
            }
        }
        let (version, list) = if asked.metadata_only {
            ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned())
        } else {
            (api_version(&kind.group, &asked.caller.version), format!("{}List", kind.kind))
        };
        // Written by hand: the objects are not copied into one value first.
        let mut bytes = Vec::with_capacity(256 + objects.len() * 1024);
        bytes.extend_from_slice(b"{\"kind\":");
        let put = |value: &Value, bytes: &mut Vec<u8>| {
            let _ = serde_json::to_writer(bytes, value);
        };
        put(&list.into(), &mut bytes);
        bytes.extend_from_slice(b",\"apiVersion\":");
        put(&version.into(), &mut bytes);
        bytes.extend_from_slice(b",\"metadata\":");
        put(&meta, &mut bytes);
        bytes.extend_from_slice(b",\"items\":[");
        for (i, object) in objects.iter().enumerate() {
            if i > 0 {
                bytes.push(b',');
            }
            let shown = selection.show(&self.core, &asked.caller, object);
            if kind.custom || asked.metadata_only {
                put(&shown, &mut bytes);
            } else {
                // Elements of a list of a built-in kind do not repeat what the list says.
                let _ = serde_json::to_writer(&mut bytes, &Untyped(&shown));
            }
        }
        bytes.extend_from_slice(b"]}");
        let mut response = Response::new(Full::new(Bytes::from(bytes)).map_err(|e| match e {}).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    pub(super) fn watch(
        &self,
        state: &mut State,
        asked: &Asked,
        selection: Selection,
        struck: &[Fault],
    ) -> Result<Answer, Box<Status>> {
        let kind = asked.kind.id;
        let part = |key: &str| asked.query.get(key).map(String::as_str).unwrap_or_default();
        let head = state.store.version();
        let initial = part("sendInitialEvents") == "true";
        let bookmarks = part("allowWatchBookmarks") == "true";
        let asked_version = part("resourceVersion");
        let version = match asked_version {
            "" | "0" => None,
            text => Some(
                text.parse::<u64>().map_err(|_| status::bad_request(format!("invalid resource version \"{text}\"")))?,
            ),
        };
        let mut ready = VecDeque::new();
        let from_start = version.is_none() && part("sendInitialEvents") != "false";
        let cursor = match version {
            Some(version) if !initial => {
                let oldest =
                    state.store.table(kind).map_or(0, |t| t.oldest).max(state.faults.floor(&self.identity, kind));
                if version < oldest {
                    ready.push_back(line("ERROR", &status_value(&status::expired(version, oldest))));
                }
                version
            }
            _ => head,
        };
        let done = !ready.is_empty();
        if initial || from_start {
            for object in state.store.list(kind, asked.namespace.as_deref()).filter(|o| selection.selects(o)) {
                ready.push_back(line("ADDED", &selection.show(&self.core, &asked.caller, object)));
            }
            if initial {
                let mark = json!({"kind": asked.kind.kind, "apiVersion": api_version(&asked.kind.group, &asked.caller.version),
                    "metadata": {"resourceVersion": head.to_string(), "creationTimestamp": null,
                        "annotations": {"k8s.io/initial-events-end": "true"}}});
                ready.push_back(line("BOOKMARK", &mark));
            }
        }
        let seconds = part("timeoutSeconds").parse::<u64>().unwrap_or(1800).clamp(1, 86_400);
        let watch = Watch {
            core: self.core.clone(),
            caller: asked.caller.clone(),
            epoch: self.epoch,
            id: state.next_watch(),
            selection,
            cursor,
            ready,
            bookmarks,
            bookmarked: cursor,
            deadline: Instant::now() + Duration::from_secs(seconds),
            delay: struck.iter().find_map(|f| match f {
                Fault::WatchDelay(range) => Some(range.clone()),
                _ => None,
            }),
            due: None,
            events_left: struck.iter().find_map(|f| match f {
                Fault::WatchGap(n) => Some(*n),
                _ => None,
            }),
            repeats: struck.contains(&Fault::WatchRepeat),
            sleep: None,
            done,
        };
        let mut response = Response::new(watch.map_frame(|f: Frame<Bytes>| f).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// An object without `apiVersion` and `kind`.
struct Untyped<'a>(&'a Value);

impl serde::Serialize for Untyped<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        serializer.collect_map(fields.filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind")))
    }
}
