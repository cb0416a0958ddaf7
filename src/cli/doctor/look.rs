//! What is found of an installation.

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::facts::{Definition, Facts, Leader, Policies, Read, Rival, Webhooks};
use crate::{
    api::{
        crd,
        keys::{CONTROL_INFO, LEASE},
        object::{self, text},
    },
    cli::{
        client::{explain, list_all},
        policy, webhooks,
    },
    webhook::{APPROVERS, MUTATING, VALIDATING, certificates},
    workload,
};

/// Whoever looks.
pub(super) struct Look {
    pub client: Client,
    /// Of the controller.
    pub namespace: String,
    /// Who the controller is.
    pub user: String,
    /// Namespaces that the controller watches; empty for all.
    pub namespaces: Vec<String>,
    /// Namespaces bring scripts of their own.
    pub namespace_scripts: bool,
}

pub(super) fn read<T>(answer: kube::Result<T>) -> Read<T> {
    answer.map_err(|error| explain(&error))
}

impl Look {
    /// Whether the controller works on what is in a namespace.
    pub(super) fn watches(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|watched| watched == namespace)
    }

    /// Everything that is judged.
    pub async fn facts(mut self) -> Facts {
        let namespaces = self.watched().await;
        self.namespace_scripts |= self.deployments().await.is_ok_and(|found| found.iter().any(brings_scripts));
        self.namespaces = namespaces.clone().unwrap_or_default();
        let used = self.used().await;
        Facts {
            now: Timestamp::now(),
            server: read(self.client.apiserver_version().await.map(|v| v.git_version)),
            definitions: self.definitions().await,
            policies: self.policies().await,
            controllers: self.controllers().await,
            conversion: self.conversion().await,
            rivals: self.rivals().await,
            holding: self.webhooks("MutatingWebhookConfiguration", MUTATING).await,
            validating: self.webhooks("ValidatingWebhookConfiguration", VALIDATING).await,
            approvers: self.webhooks("MutatingWebhookConfiguration", APPROVERS).await,
            answer: self.answer().await,
            certificate: self.certificate().await,
            leaders: self.leaders().await,
            originals: self.originals().await,
            begun: self.begun().await,
            unwatched: self.unwatched().await,
            namespaces,
            used,
        }
    }

    /// Deployments of the chart's in the controller's namespace.
    async fn deployments(&self) -> Read<Vec<Deployment>> {
        let named = ListParams::default().labels("app.kubernetes.io/name=tidegate");
        let found = read(Api::<Deployment>::namespaced(self.client.clone(), &self.namespace).list(&named).await)?;
        Ok(found.items)
    }

    /// The namespaces that the Deployment's arguments name; none where it watches all, or is run by other means.
    async fn watched(&self) -> Read<Vec<String>> {
        let watched: Vec<String> = self.deployments().await?.iter().flat_map(namespaces).collect();
        Ok(watched)
    }

    /// Objects of ours that the controller does not work on.
    async fn unwatched(&self) -> Read<Vec<String>> {
        let mut unwatched = Vec::new();
        if self.namespaces.is_empty() {
            return Ok(unwatched);
        }
        for (api_version, kind) in
            [("rollouts.kruise.io/v1beta1", "Rollout"), ("rollouts.kruise.io/v1alpha1", "TrafficRouting")]
        {
            let elsewhere = self.list(api_version, kind).await?;
            let elsewhere = elsewhere.iter().filter(|object| !self.watches(object::namespace(object)));
            unwatched.extend(elsewhere.map(|o| format!("{kind} {}/{}", object::namespace(o), object::name(o))));
        }
        Ok(unwatched)
    }

    /// All objects of a kind; none where it is not served.
    pub(super) async fn list(&self, api_version: &str, kind: &str) -> Read<Vec<Value>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        read(list_all(&self.client, &resource).await)
    }

    async fn definitions(&self) -> Read<Vec<Definition>> {
        let wanted = crd::all().map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        for wanted in wanted {
            let name = object::name(&wanted).to_owned();
            let there = read(Api::<CustomResourceDefinition>::all(self.client.clone()).get_opt(&name).await)?;
            let Some(there) = there else {
                found.push(Definition { name, ..Definition::default() });
                continue;
            };
            let conditions = there.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            let stored = there.status.as_ref().and_then(|s| s.stored_versions.clone()).unwrap_or_default();
            let written = there.spec.versions.iter().find(|v| v.storage).map(|v| v.name.clone()).unwrap_or_default();
            // Both by way of the same type, which drops what a server adds or leaves out.
            let ours = serde_json::from_value::<CustomResourceDefinition>(wanted).map(|ours| ours.spec.versions);
            let schemas = |versions: Vec<_>| -> Vec<Value> {
                let version = |v| {
                    serde_json::to_value::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion>(v)
                };
                versions.into_iter().filter_map(|v| version(v).ok()?.get("schema").map(object::without_nulls)).collect()
            };
            found.push(Definition {
                name,
                is_established: conditions.iter().any(|c| c.type_ == "Established" && c.status == "True"),
                is_current: ours.is_ok_and(|ours| schemas(ours) == schemas(there.spec.versions)),
                older: stored.into_iter().filter(|version| *version != written).collect(),
            });
        }
        Ok(found)
    }

    async fn policies(&self) -> Read<Policies> {
        let wanted = policy::all();
        let mut policies = Policies { wanted: wanted.len(), ..Policies::default() };
        for kind in ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"] {
            let found = self.list("admissionregistration.k8s.io/v1", kind).await?;
            for wanted in wanted.iter().filter(|w| text(w, &["kind"]) == kind) {
                let Some(there) = found.iter().find(|f| object::name(f) == object::name(wanted)) else { continue };
                policies.there += 1;
                if !stands_in(wanted.get("spec"), there.get("spec")) {
                    policies.other.push(object::name(wanted).to_owned());
                }
            }
        }
        Ok(policies)
    }

    /// Versions that the chart says of its Deployments.
    async fn controllers(&self) -> Read<Vec<String>> {
        let version = |d: Deployment| d.metadata.labels?.remove("app.kubernetes.io/version");
        let mut versions: Vec<String> = self.deployments().await?.into_iter().filter_map(version).collect();
        versions.sort();
        versions.dedup();
        Ok(versions)
    }

    /// Reads the old version where a webhook makes it.
    async fn conversion(&self) -> Option<Read<()>> {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let definition = api.get_opt("rollouts.rollouts.kruise.io").await.ok()??;
        definition.spec.conversion.filter(|conversion| conversion.strategy == "Webhook")?;
        let old = ApiResource::from_gvk(&GroupVersionKind::gvk("rollouts.kruise.io", "v1alpha1", "Rollout"));
        let rollouts = Api::<DynamicObject>::all_with(self.client.clone(), &old);
        Some(read(rollouts.list(&ListParams::default().limit(1)).await).map(drop))
    }

    /// Objects of Argo Rollouts and Flagger that name what Rollouts name.
    async fn rivals(&self) -> Read<Vec<Rival>> {
        let ours = self.list("rollouts.kruise.io/v1beta1", "Rollout").await?;
        let mut rivals = Vec::new();
        for (api_version, kind, field, whose) in [
            ("argoproj.io/v1alpha1", "Rollout", "workloadRef", "Argo Rollouts"),
            ("flagger.app/v1beta1", "Canary", "targetRef", "Flagger"),
        ] {
            // Most clusters do not have it, and whoever may not look has none that he could mend.
            for theirs in self.list(api_version, kind).await.unwrap_or_default() {
                rivals.extend(ours.iter().filter_map(|rollout| rival(rollout, &theirs, field, whose)));
            }
        }
        Ok(rivals)
    }

    async fn webhooks(&self, kind: &str, name: &str) -> Read<Webhooks> {
        let found = self.list("admissionregistration.k8s.io/v1", kind).await?;
        let Some(found) = found.iter().find(|f| object::name(f) == name) else { return Ok(Webhooks::default()) };
        let webhooks = found.get("webhooks").and_then(Value::as_array).into_iter().flatten();
        let untrusted = webhooks.filter(|w| text(w, &["clientConfig", "caBundle"]).is_empty());
        Ok(Webhooks { is_there: true, untrusted: untrusted.map(|w| text(w, &["name"]).to_owned()).collect() })
    }

    /// Nothing is stored: the object is refused, and it is a dry run at that.
    async fn answer(&self) -> Read<()> {
        let wrong = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
            "metadata": {"name": "tidegate-doctor", "annotations": {"rollouts.kruise.io/rolling-style": "doctor"}},
            "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "tidegate-doctor"},
                "strategy": {"canary": {"steps": [{"replicas": 1}]}}}});
        let wrong: DynamicObject = serde_json::from_value(wrong).map_err(|e| e.to_string())?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rollouts.kruise.io", "v1beta1", "Rollout"));
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match api.create(&params, &wrong).await {
            Err(kube::Error::Api(status)) if status.message.contains("choose canary") => Ok(()),
            Err(error) => Err(explain(&error)),
            Ok(_) => Err("a Rollout that has to be refused would be stored".to_owned()),
        }
    }

    async fn certificate(&self) -> Read<Option<Timestamp>> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let secret = read(api.get_opt(webhooks::SECRET).await)?;
        let cert = secret.and_then(|s| s.data?.remove("tls.crt")).and_then(|c| String::from_utf8(c.0).ok());
        Ok(cert.and_then(|cert| certificates::end(&cert)))
    }

    async fn leaders(&self) -> Read<Vec<Leader>> {
        let named = ListParams::default().fields(&format!("metadata.name={LEASE}"));
        let leases = read(Api::<Lease>::all(self.client.clone()).list(&named).await)?;
        let leader = |lease: Lease| {
            let spec = lease.spec?;
            let renewed = spec.renew_time.map(|at| Timestamp::now().duration_since(at.0).as_secs());
            Some(Leader {
                namespace: lease.metadata.namespace.unwrap_or_default(),
                holder: spec.holder_identity.unwrap_or_default(),
                age: renewed.unwrap_or(i64::MAX),
                lasts: spec.lease_duration_seconds.unwrap_or_default().into(),
            })
        };
        Ok(leases.items.into_iter().filter_map(leader).collect())
    }

    async fn originals(&self) -> Read<Vec<String>> {
        let named = ListParams::default().labels("control-plane=kruise-rollout-controller-manager");
        let found = read(Api::<Deployment>::all(self.client.clone()).list(&named).await)?;
        let wants = |d: &Deployment| d.spec.as_ref().is_some_and(|s| s.replicas != Some(0));
        let name = |d: Deployment| {
            format!("Deployment {}/{}", d.metadata.namespace.unwrap_or_default(), d.metadata.name.unwrap_or_default())
        };
        Ok(found.items.into_iter().filter(wants).map(name).collect())
    }

    async fn begun(&self) -> Read<Vec<String>> {
        let mut begun = Vec::new();
        for kind in workload::KINDS {
            let Some(rule) = kind.holds.first() else { continue };
            let found = self.list(&format!("{}/{}", rule.group, rule.version), kind.kind).await?;
            let is_begun = |object: &&Value| object::annotation(object, CONTROL_INFO).is_some();
            let name = |o: &Value| format!("{} {}/{}", kind.kind, object::namespace(o), object::name(o));
            begun.extend(found.iter().filter(is_begun).map(name));
        }
        Ok(begun)
    }
}

fn arguments(deployment: &Deployment) -> impl Iterator<Item = &String> {
    let containers = deployment.spec.iter().flat_map(|spec| &spec.template.spec).flat_map(|pod| &pod.containers);
    containers.flat_map(|container| container.args.iter().flatten())
}

/// Whether a container has `--namespace-scripts`.
fn brings_scripts(deployment: &Deployment) -> bool {
    arguments(deployment)
        .any(|argument| ["--namespace-scripts", "--namespace-scripts=true"].contains(&argument.as_str()))
}

/// What `--namespaces` of a container says.
fn namespaces(deployment: &Deployment) -> Vec<String> {
    let lists = arguments(deployment).filter_map(|argument| argument.strip_prefix("--namespaces="));
    lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Everything that is wanted stands in what is there. A server adds defaults, and leaves out what is empty.
fn stands_in(wanted: Option<&Value>, there: Option<&Value>) -> bool {
    match (wanted, there) {
        (Some(Value::Object(wanted)), there) => {
            wanted.iter().all(|(key, value)| stands_in(Some(value), there.and_then(|there| there.get(key))))
        }
        (Some(Value::Array(wanted)), None) => wanted.is_empty(),
        (Some(Value::Array(wanted)), Some(Value::Array(there))) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(a, b)| stands_in(Some(a), Some(b)))
        }
        (None | Some(Value::Null), _) => true,
        (wanted, there) => wanted == there,
    }
}

/// An object of another controller that names the same workload as a Rollout.
fn rival(rollout: &Value, theirs: &Value, field: &str, whose: &str) -> Option<Rival> {
    let at = |pointer: &str| rollout.pointer(pointer);
    let reference = at("/spec/workloadRef").or_else(|| at("/spec/objectRef/workloadRef"))?;
    let (kind, name) = (text(reference, &["kind"]), text(reference, &["name"]));
    let named = theirs.pointer(&format!("/spec/{field}"))?;
    let namespace = object::namespace(rollout);
    let is_same =
        (namespace, kind, name) == (object::namespace(theirs), text(named, &["kind"]), text(named, &["name"]));
    is_same.then(|| Rival {
        who: format!("{} {namespace}/{} of {whose}", text(theirs, &["kind"]), object::name(theirs)),
        workload: format!("{kind} {namespace}/{name}"),
        by: format!("Rollout {namespace}/{}", object::name(rollout)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_a_server_are_no_difference() {
        let ours = json!({"rules": [{"expression": "a"}], "labels": {}, "none": null, "list": []});
        let same = json!({"rules": [{"expression": "a", "reason": "Invalid"}], "failurePolicy": "Fail"});
        assert!(stands_in(Some(&ours), Some(&same)));
        for other in [
            json!({"rules": [{"expression": "b"}]}),
            json!({"rules": []}),
            json!({"rules": [{"expression": "a"}, {"expression": "b"}]}),
            json!({}),
        ] {
            assert!(!stands_in(Some(&ours), Some(&other)), "{other}");
        }
        assert!(policy::all().iter().all(|policy| stands_in(policy.get("spec"), policy.get("spec"))));
    }

    #[test]
    fn who_names_the_same_workload_is_a_rival() {
        let rollout = json!({"kind": "Rollout", "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
        let canary = |namespace: &str, name: &str| {
            json!({"kind": "Canary", "metadata": {"namespace": namespace, "name": "c"},
                "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}}})
        };
        let found = rival(&rollout, &canary("shop", "web"), "targetRef", "Flagger").unwrap();
        assert_eq!((found.who.as_str(), found.workload.as_str()), ("Canary shop/c of Flagger", "Deployment shop/web"));
        assert_eq!(rival(&rollout, &canary("shop", "other"), "targetRef", "Flagger"), None);
        assert_eq!(rival(&rollout, &canary("other", "web"), "targetRef", "Flagger"), None);
    }
}
