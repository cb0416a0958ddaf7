//! `tidegate doctor`: looks whether an installation is sound, and says what would mend it. It stores nothing.

pub mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams},
    discovery,
};
use serde_json::{Value, json};

use self::judge::{Definition, Facts, Leader, Level, Read, Used, Webhooks, judge};
use super::{
    client::{self, KubeArgs, explain, list_all},
    policy, rbac, webhooks,
};
use crate::{
    api::{
        crd,
        keys::{CONTROL_INFO, LEASE, SCRIPT_CONFIG_MAP},
        object::{self, text},
    },
    lua::Library,
    webhook::{
        APPROVERS, MUTATING, VALIDATING,
        authority::{Target, targets},
        certificates,
    },
};

/// Arguments of `tidegate doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that the controller runs in
    #[arg(long, value_name = "NAME", default_value = "tidegate")]
    controller_namespace: String,
    /// Who the controller is to the API server [default: its ServiceAccount there]
    #[arg(long, value_name = "USER")]
    controller_user: Option<String>,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command. Exit code 1: something does not work.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, _) = client::connect(&args.kube).await?;
        let user = args.controller_user.clone();
        let user =
            user.unwrap_or_else(|| format!("system:serviceaccount:{}:{}", args.controller_namespace, rbac::NAME));
        let facts = Look { client, namespace: args.controller_namespace, user }.facts().await;
        let findings = judge(&facts);
        let text: String = findings.iter().map(|f| format!("{f}\n")).collect();
        print!("{text}");
        let worst = findings.iter().map(|f| f.level).max();
        Ok(if worst == Some(Level::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

struct Look {
    client: Client,
    namespace: String,
    /// Who the controller is.
    user: String,
}

fn read<T>(answer: kube::Result<T>) -> Read<T> {
    answer.map_err(|error| explain(&error))
}

impl Look {
    async fn facts(&self) -> Facts {
        let used = self.used().await;
        Facts {
            now: Timestamp::now(),
            server: read(self.client.apiserver_version().await.map(|v| v.git_version)),
            definitions: self.definitions().await,
            policies: self.policies().await,
            holding: self.webhooks("MutatingWebhookConfiguration", MUTATING).await,
            validating: self.webhooks("ValidatingWebhookConfiguration", VALIDATING).await,
            approvers: self.webhooks("MutatingWebhookConfiguration", APPROVERS).await,
            answer: self.answer().await,
            certificate: self.certificate().await,
            leaders: self.leaders().await,
            originals: self.originals().await,
            begun: self.begun().await,
            used,
        }
    }

    /// All objects of a kind; none where it is not served.
    async fn list(&self, api_version: &str, kind: &str) -> Read<Vec<Value>> {
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

    async fn policies(&self) -> Read<(usize, usize)> {
        let wanted = policy::all();
        let mut there = 0;
        for kind in ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"] {
            let found = self.list("admissionregistration.k8s.io/v1", kind).await?;
            let is_there = |policy: &&Value| found.iter().any(|f| object::name(f) == object::name(policy));
            there += wanted.iter().filter(|w| text(w, &["kind"]) == kind).filter(is_there).count();
        }
        Ok((there, wanted.len()))
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
        let found = self.list("apps/v1", "Deployment").await?;
        let is_begun = |d: &&Value| object::annotation(d, CONTROL_INFO).is_some();
        Ok(found.iter().filter(is_begun).map(|d| format!("{}/{}", object::namespace(d), object::name(d))).collect())
    }

    /// What Rollouts and TrafficRoutings name, by kind.
    async fn used(&self) -> Read<Vec<Used>> {
        let mut by_kind: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let mut classes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (api_version, kind) in
            [("rollouts.kruise.io/v1beta1", "Rollout"), ("rollouts.kruise.io/v1alpha1", "TrafficRouting")]
        {
            for object in self.list(api_version, kind).await? {
                let by = format!("{kind} {}/{}", object::namespace(&object), object::name(&object));
                for Target { api_version, kind, .. } in targets(&object) {
                    by_kind.entry((api_version, kind)).or_default().insert(by.clone());
                }
                for class in classes_of(&object) {
                    classes.entry(class).or_default().insert(by.clone());
                }
            }
        }
        let scripts =
            Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace).get_opt(SCRIPT_CONFIG_MAP).await;
        let scripts = scripts.ok().flatten().and_then(|map| map.data).unwrap_or_default();
        let whose = |builtin: bool, key: &str| {
            let own = scripts.contains_key(key).then_some("administrator's");
            own.or(builtin.then_some("built-in"))
        };
        let mut used = Vec::new();
        for ((api_version, kind), by) in by_kind {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            let gvk = GroupVersionKind::gvk(group, version, &kind);
            let found = discovery::pinned_kind(&self.client, &gvk).await.ok();
            let plural = found
                .as_ref()
                .map_or_else(|| ApiResource::from_gvk(&gvk).plural, |(resource, _)| resource.plural.clone());
            let is_plain = ["", "apps", "apps.kruise.io", "networking.k8s.io", "rollouts.kruise.io"].contains(&group);
            let script =
                (!is_plain).then(|| whose(Library::builtin(group, &kind).is_some(), &Library::key(group, &kind)));
            used.push(Used {
                kind: if group.is_empty() { kind.clone() } else { format!("{group}/{kind}") },
                by: by.first().cloned().unwrap_or_default(),
                is_served: found.is_some(),
                lacking: self.lacking(group, &plural).await,
                script,
            });
        }
        for (class, by) in classes {
            let key = format!("lua.traffic.routing.ingress.{class}");
            used.push(Used {
                kind: format!("ingress class {class}"),
                by: by.first().cloned().unwrap_or_default(),
                is_served: true,
                lacking: Ok(Vec::new()),
                script: Some(whose(Library::ingress(&class).is_some(), &key)),
            });
        }
        Ok(used)
    }

    /// What the controller may not do with a kind.
    async fn lacking(&self, group: &str, plural: &str) -> Read<Vec<String>> {
        let mut lacking = Vec::new();
        for verb in ["get", "list", "watch", "patch"] {
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(plural.to_owned()),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            };
            let spec = SubjectAccessReviewSpec {
                user: Some(self.user.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            };
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let api = Api::<SubjectAccessReview>::all(self.client.clone());
            let answer = read(api.create(&PostParams::default(), &review).await)?;
            if !answer.status.is_some_and(|s| s.allowed) {
                lacking.push(verb.to_owned());
            }
        }
        Ok(lacking)
    }
}

/// Classes of the Ingresses that an object names.
fn classes_of(object: &Value) -> BTreeSet<String> {
    let lists =
        ["/spec/strategy/canary/trafficRoutings", "/spec/strategy/blueGreen/trafficRoutings", "/spec/objectRef"];
    let routings = lists.into_iter().filter_map(|pointer| object.pointer(pointer)?.as_array()).flatten();
    let class = |ingress: &Value| {
        let class = text(ingress, &["classType"]);
        if class.is_empty() { "nginx".to_owned() } else { class.to_owned() }
    };
    routings.filter_map(|routing| routing.get("ingress")).map(class).collect()
}
