//! What a write is refused for.

use super::*;

impl Core {
    pub(super) fn validate(
        &self,
        kind: &Kind,
        caller: &Caller,
        new: &Value,
        old: Option<&Value>,
        mut errors: Vec<FieldError>,
    ) -> Result<(), Box<Status>> {
        if !caller.internal {
            validate::metadata(new, &mut errors);
        }
        check_finalizers(kind, new, &mut errors);
        match kind.version(&caller.version).and_then(|v| v.schema.as_ref()) {
            Some(schema) => crd::validate(schema, new, old, &mut errors),
            None if !kind.custom && !caller.internal => validate::built_in(kind, new, old, &mut errors),
            None => {}
        }
        if caller.subresource == Some("status") {
            // Validated by itself, so messages name fields from there on.
            errors.iter_mut().for_each(|e| e.message = e.message.replacen(": status.", ": ", 1));
        }
        if errors.is_empty() { Ok(()) } else { Err(status::invalid(kind, json::name(new), errors)) }
    }

    /// For built-in kinds the URL says what is missing in the body.
    pub fn name_type(&self, caller: &Caller, kind: &Kind, object: &mut Value) {
        if !kind.custom && object.is_object() {
            json::default(object, &["apiVersion"], registry::api_version(&kind.group, &caller.version));
            json::default(object, &["kind"], kind.kind.clone());
        }
    }

    /// Name and namespace of a body are those of the URL.
    pub fn check_url(&self, kind: &Kind, namespace: &str, name: &str, object: &Value) -> Result<(), Box<Status>> {
        if json::name(object) != name {
            return Err(status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                json::name(object)
            )));
        }
        if kind.namespaced && !json::namespace(object).is_empty() && json::namespace(object) != namespace {
            return Err(status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(())
    }

    pub fn check_type(&self, caller: &Caller, kind: &Kind, object: &Value) -> Result<(), Box<Status>> {
        if !object.is_object() {
            return Err(status::bad_request("the request's body is not an object"));
        }
        let expected = registry::api_version(&kind.group, &caller.version);
        let (version, name) = (text(object, "/apiVersion"), text(object, "/kind"));
        if version == expected && name == kind.kind {
            return Ok(());
        }
        if !kind.custom && version == expected {
            return Err(status::bad_request(format!(
                "{name} in version \"{}\" cannot be handled as a {}: converting ({}.{name}) to ({}.{}): unknown conversion",
                caller.version,
                kind.kind,
                caller.version,
                if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() },
                kind.kind
            )));
        }
        if kind.custom && name == kind.kind {
            let why =
                format!("the API version in the data ({version}) does not match the expected API version ({expected})");
            return Err(status::bad_request(why));
        }
        Err(status::bad_request(format!(
            "the API version in the data ({version}, Kind={name}) does not match the expected API version ({expected}, Kind={})",
            kind.kind
        )))
    }

    pub(super) fn check_namespace(
        &self,
        state: &State,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<(), Box<Status>> {
        if !kind.namespaced {
            return Ok(());
        }
        let all = state.store.registry.get(NAMESPACES).cloned();
        match (state.store.get(NAMESPACES, "", namespace), all) {
            (Some(found), _) if deleting(found) => Err(status::failure(
                403,
                "Forbidden",
                format!(
                    "{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                    kind.qualified()
                ),
            )),
            (Some(_), _) | (None, None) => Ok(()),
            (None, Some(namespaces)) => Err(status::not_found(&namespaces, namespace)),
        }
    }
}

fn check_finalizers(kind: &Kind, object: &Value, errors: &mut Vec<FieldError>) {
    for (i, finalizer) in items(object, "/metadata/finalizers").iter().enumerate() {
        let value = finalizer.as_str().unwrap_or_default();
        let known = matches!(value, ORPHAN | FOREGROUND | "kubernetes");
        if value.is_empty() || (!value.contains('/') && !known && !kind.custom) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            let field = format!("metadata.finalizers[{i}]");
            errors.push(FieldError::invalid(field, format!("\"{value}\""), why));
        }
    }
}

pub(super) fn check_preconditions(
    kind: &Kind,
    name: &str,
    stored: &Value,
    options: &DeleteOptions,
) -> Result<(), Box<Status>> {
    if let Some(uid) = options.uid.as_deref().filter(|u| *u != json::uid(stored)) {
        let have = json::uid(stored);
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({have}). The object might have been deleted and then recreated"
        );
        return Err(status::precondition(kind, name, &why));
    }
    let have = text(stored, "/metadata/resourceVersion");
    if let Some(version) = options.resource_version.as_deref().filter(|v| *v != have) {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({have}). The object might have been modified"
        );
        return Err(status::precondition(kind, name, &why));
    }
    Ok(())
}
