//! An object as the API server sent it. `DynamicObject` reads every field of the metadata into a type and collects the
//! rest in a second pass, only to be written out again: that is most of what a watch event costs.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, api::ApiResource, core::DynamicResourceScope};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::api::object;

/// An object as JSON, without `metadata.managedFields`, which nothing here reads.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Everything that was sent.
    pub object: Value,
    /// What kube reads of it: the resource version.
    meta: ObjectMeta,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
        }
        let version = Some(object::resource_version(&object)).filter(|version| !version.is_empty());
        let meta = ObjectMeta { resource_version: version.map(str::to_owned), ..ObjectMeta::default() };
        Ok(Raw { object, meta })
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_kept_as_it_was_sent() {
        let sent = json!({"kind": "Thing", "metadata": {"name": "a", "resourceVersion": "7", "unknown": null},
            "spec": {"share": 0.1, "none": null, "empty": {}}});
        let mut with_managers = sent.clone();
        with_managers["metadata"]["managedFields"] = json!([{"manager": "somebody"}]);
        let raw: Raw = serde_json::from_value(with_managers).unwrap();
        assert_eq!((&raw.object, raw.resource_version().as_deref()), (&sent, Some("7")));
        let bookmark: Raw = serde_json::from_str("{}").unwrap();
        assert_eq!(bookmark.resource_version(), None);
    }
}
