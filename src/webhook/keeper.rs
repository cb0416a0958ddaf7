//! Keeps the certificate that is served: makes and renews it in its Secret, serves what is there, and tells the API
//! server which CA to trust.
//!
//! Every replica does this; the Secret's version decides between two that renew at the same moment. Of the
//! configurations only `caBundle` is written, by server-side apply, so that Helm and people keep the rest.

use std::{path::Path, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    APPROVERS, CONVERT_PATH, MUTATING, Options, Source, Tls, VALIDATING, WEBHOOKS,
    certificates::{self, Certificates},
};
use crate::{
    api::GROUP,
    telemetry::{Health, Metrics},
};

/// Manager of the field `caBundle`.
const MANAGER: &str = "tidegate-webhook-ca";
/// After a failure, and between two looks at a folder: a mounted Secret is replaced without an event.
const AGAIN: Duration = Duration::from_secs(10);
/// No call is waited for longer.
const CALL: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{what}: {source}")]
    Api { what: String, source: Box<kube::Error> },
    #[error("{0}: no answer from the API server in time")]
    Timeout(String),
    #[error(transparent)]
    Certificate(#[from] certificates::Error),
    #[error("{0}")]
    File(String),
}

pub struct Keeper {
    client: Client,
    namespace: String,
    source: Source,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    tls: Tls,
    health: Health,
    metrics: Metrics,
}

impl Keeper {
    pub fn new(client: Client, options: &Options, tls: Tls) -> Self {
        Keeper {
            client,
            namespace: options.namespace.clone(),
            source: options.source.clone(),
            clock: options.clock.clone(),
            tls,
            health: options.health.clone(),
            metrics: options.metrics.clone(),
        }
    }

    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            match &self.source {
                Source::Secret { name, .. } => {
                    let (changed, crd) = (Notify::new(), crd());
                    tokio::join!(
                        self.watch(Api::<Secret>::namespaced(self.client.clone(), &self.namespace), name, &changed),
                        self.watch(Api::<MutatingWebhookConfiguration>::all(self.client.clone()), MUTATING, &changed),
                        self.watch(Api::<MutatingWebhookConfiguration>::all(self.client.clone()), APPROVERS, &changed),
                        self.watch(
                            Api::<ValidatingWebhookConfiguration>::all(self.client.clone()),
                            VALIDATING,
                            &changed
                        ),
                        self.watch(Api::<CustomResourceDefinition>::all(self.client.clone()), &crd, &changed),
                        self.keep(&changed),
                    );
                }
                Source::Folder(folder) => self.read(folder).await,
            }
        })
        .await;
    }

    /// Notices when somebody changes an object.
    async fn watch<K>(&self, api: Api<K>, name: &str, changed: &Notify)
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = watcher::watcher(api, config).boxed();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => {}
                Ok(Some(_)) => changed.notify_one(),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, name, "a watch failed; opening it again");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn keep(&self, changed: &Notify) {
        loop {
            let wait = match self.pass().await {
                Ok(wait) => wait,
                Err(error) => {
                    self.complain(&error);
                    AGAIN
                }
            };
            tokio::select! {
                () = changed.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// What is wrong with the certificate hides that nothing is served; one that is served already goes on.
    fn complain(&self, error: &Error) {
        tracing::warn!(%error, "the webhooks' certificate is not looked after");
        if !self.health.holds(WEBHOOKS) {
            self.health.set(WEBHOOKS, Err(error.to_string()));
        }
    }

    /// Looks after everything once; how long until the next look if nothing changes.
    async fn pass(&self) -> Result<Duration, Error> {
        let Source::Secret { name, service, host } = &self.source else { return Ok(AGAIN) };
        let mut names: Vec<String> = vec![format!("{service}.{}.svc", self.namespace)];
        names.extend(host.clone());
        let now = (self.clock)();
        let certificates = self.secret(name, &names, now).await?;
        self.tls.set(certificates::certified_key(&certificates.cert, &certificates.key)?);
        if let Some((ca, serving)) = certificates::ends(&certificates) {
            self.metrics.certificate_ends("ca", ca.as_second());
            self.metrics.certificate_ends("serving", serving.as_second());
        }
        // First serve, then be trusted, then be ready.
        self.trust::<MutatingWebhookConfiguration>(MUTATING, &certificates.ca).await?;
        self.trust::<MutatingWebhookConfiguration>(APPROVERS, &certificates.ca).await?;
        self.trust::<ValidatingWebhookConfiguration>(VALIDATING, &certificates.ca).await?;
        self.trust_conversion(&names, &certificates.ca).await?;
        self.health.set(WEBHOOKS, Ok(()));
        Ok(certificates::next_look(&certificates, now))
    }

    /// The Secret's certificates, renewed if need be.
    async fn secret(&self, name: &str, names: &[String], now: Timestamp) -> Result<Certificates, Error> {
        let what = format!("Secret {}/{name}", self.namespace);
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        loop {
            let found = call(&what, api.get_opt(name)).await?;
            let present = found.as_ref().and_then(stored);
            let Some(renewed) = certificates::renew(present.as_ref(), names, now)? else {
                // `renew` makes new ones where there are none.
                return present.ok_or_else(|| Error::File(format!("{what} is empty")));
            };
            let mut secret = found.unwrap_or_else(|| Secret {
                metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                type_: Some("kubernetes.io/tls".to_owned()),
                ..Secret::default()
            });
            secret.data = Some(pairs(&renewed).map(|(k, v)| (k.to_owned(), ByteString(v.clone().into_bytes()))).into());
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            let written = match secret.resource_version() {
                None => call(&what, api.create(&params, &secret)).await,
                Some(_) => call(&what, api.replace(name, &params, &secret)).await,
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = name, "the webhooks' certificates were renewed");
                    return Ok(renewed);
                }
                // Another replica was faster.
                Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 409) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sets `caBundle` of each webhook of a configuration, if there is one.
    async fn trust<K>(&self, name: &str, ca: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
    {
        let what = format!("{} {name}", K::kind(&()));
        let api = Api::<K>::all(self.client.clone());
        let Some(found) = find(&what, &api, name).await? else { return Ok(()) };
        let found = serde_json::to_value(found).unwrap_or_default();
        let bundle = json!(ByteString(ca.as_bytes().to_vec()));
        let webhooks: Vec<&Value> = found.get("webhooks").and_then(Value::as_array).into_iter().flatten().collect();
        if webhooks.iter().all(|w| w.pointer("/clientConfig/caBundle") == Some(&bundle)) {
            return Ok(());
        }
        let entries = webhooks.iter().filter_map(|w| w.get("name"));
        let entries: Vec<Value> = entries.map(|n| json!({"name": n, "clientConfig": {"caBundle": bundle}})).collect();
        self.apply(&what, &api, name, json!({"webhooks": entries})).await
    }

    /// Sets `caBundle` of the conversion of Rollouts, if it is by a webhook of ours.
    async fn trust_conversion(&self, names: &[String], ca: &str) -> Result<(), Error> {
        let name = crd();
        let what = format!("CustomResourceDefinition {name}");
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let Some(found) = find(&what, &api, &name).await? else { return Ok(()) };
        let conversion = found.spec.conversion.and_then(|c| c.webhook).and_then(|w| w.client_config);
        let Some(config) = conversion else { return Ok(()) };
        let is_ours = match (&config.service, &config.url) {
            (Some(s), _) => {
                s.path.as_deref() == Some(CONVERT_PATH)
                    && names.first().is_some_and(|n| *n == format!("{}.{}.svc", s.name, s.namespace))
            }
            (None, Some(url)) => names.iter().any(|n| url.starts_with(&format!("https://{n}:"))),
            (None, None) => false,
        };
        let bundle = ByteString(ca.as_bytes().to_vec());
        if !is_ours || config.ca_bundle.as_ref() == Some(&bundle) {
            return Ok(());
        }
        let conversion =
            json!({"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": bundle}}}});
        self.apply(&what, &api, &name, json!({"spec": conversion})).await
    }

    async fn apply<K>(&self, what: &str, api: &Api<K>, name: &str, mut fields: Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        if let Some(map) = fields.as_object_mut() {
            map.insert("apiVersion".to_owned(), K::api_version(&()).into());
            map.insert("kind".to_owned(), K::kind(&()).into());
            map.insert("metadata".to_owned(), json!({"name": name}));
        }
        // By force: whatever else sets the field would turn the API server away.
        let params = PatchParams::apply(MANAGER).force();
        call(what, api.patch(name, &params, &Patch::Apply(&fields))).await?;
        tracing::info!(object = what, "the API server trusts the webhooks' certificate");
        Ok(())
    }

    /// Serves what somebody else puts into a folder.
    async fn read(&self, folder: &Path) {
        let mut served = String::new();
        loop {
            let file = |name: &str| {
                let path = folder.join(name);
                std::fs::read_to_string(&path).map_err(|e| Error::File(format!("cannot read {}: {e}", path.display())))
            };
            let load = || {
                let (cert, key) = (file("tls.crt")?, file("tls.key")?);
                if cert != served {
                    self.tls.set(certificates::certified_key(&cert, &key)?);
                }
                Ok::<String, Error>(cert)
            };
            match load() {
                Ok(cert) => {
                    if let Some(end) = certificates::end(&cert) {
                        self.metrics.certificate_ends("serving", end.as_second());
                    }
                    served = cert;
                    self.health.set(WEBHOOKS, Ok(()));
                }
                Err(error) => self.complain(&error),
            }
            sleep(AGAIN).await;
        }
    }
}

fn crd() -> String {
    format!("rollouts.{GROUP}")
}

async fn call<T>(what: &str, work: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Api { what: what.to_owned(), source: Box::new(source) }),
        Err(_) => Err(Error::Timeout(what.to_owned())),
    }
}

/// `None` also where the kind itself is not served.
async fn find<K>(what: &str, api: &Api<K>, name: &str) -> Result<Option<K>, Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    match call(what, api.get(name)).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::Api { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn pairs(certificates: &Certificates) -> [(&'static str, &String); 4] {
    let Certificates { ca, ca_key, cert, key } = certificates;
    [("ca.crt", ca), ("ca.key", ca_key), ("tls.crt", cert), ("tls.key", key)]
}

fn stored(secret: &Secret) -> Option<Certificates> {
    let data = secret.data.as_ref()?;
    let text = |name: &str| data.get(name).and_then(|v| String::from_utf8(v.0.clone()).ok()).unwrap_or_default();
    Some(Certificates { ca: text("ca.crt"), ca_key: text("ca.key"), cert: text("tls.crt"), key: text("tls.key") })
}
