//! Any object of any kind, as JSON.

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::poll::{SOON, until};

#[derive(Clone)]
pub struct Objects {
    pub client: Client,
}

/// `apps/v1`, `Deployment` as kube wants it. Plurals are English ones; all kinds used here follow the rule.
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Objects {
    pub fn new(client: Client) -> Objects {
        Objects { client }
    }

    /// The API of a kind; `namespace` is empty for kinds that have none.
    pub fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(api_version, kind);
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    fn api_of(&self, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let (Some(version), Some(kind), Some(name)) =
            (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]))
        else {
            bail!("not a Kubernetes object: {object}");
        };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        Ok((self.api(&version, &kind, namespace), name))
    }

    /// Server-side apply as `e2e`.
    pub async fn apply(&self, object: &Value) -> Result<Value> {
        let (api, name) = self.api_of(object)?;
        let params = PatchParams {
            field_validation: Some(kube::api::ValidationDirective::Strict),
            ..PatchParams::apply("e2e").force()
        };
        let applied = api
            .patch(&name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("cannot apply {} {name}", object["kind"]))?;
        Ok(serde_json::to_value(applied)?)
    }

    /// Applies CRDs and waits until they are served.
    pub async fn apply_crds(&self, crds: &[Value]) -> Result<()> {
        for crd in crds {
            self.apply(crd).await?;
        }
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().context("a CRD without a name")?;
            until(&format!("CRD {name} is Established"), SOON, async || {
                let crd = self.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name).await?;
                let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
                ensure!(conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"), "not yet");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    pub async fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        Ok(serde_json::to_value(self.api(api_version, kind, namespace).get(name).await?)?)
    }

    pub async fn list(&self, api_version: &str, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let list = self.api(api_version, kind, namespace).list(&ListParams::default().labels(labels)).await?;
        Ok(list.items.into_iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
    }

    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await.map(drop)
    }

    /// A JSON merge patch, as `kubectl patch --type merge` sends it.
    pub async fn merge(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value> {
        let api = self.api(api_version, kind, namespace);
        Ok(serde_json::to_value(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)?)
    }

    /// Takes an object away without a grace period.
    pub async fn kill(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::background() };
        self.api(api_version, kind, namespace).delete(name, &params).await?;
        Ok(())
    }
}
