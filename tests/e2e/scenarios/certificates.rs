//! The webhooks' certificates at the moment at which a new CA signs for the first time, on a real API server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::api::{Patch, PatchParams};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tidegate::{
    api::keys::WORKLOAD_TYPE,
    cli::webhooks::{SECRET, SERVICE},
    webhook::{
        MUTATING,
        certificates::{self, CA_LIFE, Certificates, SETTLE},
    },
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::rig::{
    Rig,
    controller::{Controller, NAMESPACE, documents},
    install,
    poll::{SOON, until},
    spare::Spare,
};

/// Health and webhooks of each replica. The API server knows of the first one.
const REPLICAS: [(&str, &str); 2] = [("127.0.0.1:18093", "127.0.0.1:19884"), ("127.0.0.1:18094", "127.0.0.1:19885")];
/// From the start until the certificate is due.
const DUE: SignedDuration = SignedDuration::from_secs(25);

/// What the Secret holds after eight months of renewals: the CA has had its successor beside it for almost ten minutes.
fn aged(now: Timestamp) -> Result<Certificates> {
    let names = [format!("{SERVICE}.{NAMESPACE}.svc"), "127.0.0.1".to_owned()];
    let joined = now - SETTLE + DUE;
    let begun = joined - CA_LIFE * 2 / 3;
    let mut pair = certificates::renew(None, &names, begun)?.context("nothing is made")?;
    let days = SignedDuration::from_hours(5 * 24);
    for moment in (1..49).map(|times| begun + days * times).chain([joined]) {
        if let Some(renewed) = certificates::renew(Some(&pair), &names, moment)? {
            pair = renewed;
        }
    }
    ensure!(pair.ca.matches("BEGIN CERTIFICATE").count() == 2, "no CA has joined");
    ensure!(certificates::renew(Some(&pair), &names, now)?.is_none(), "something is due already");
    Ok(pair)
}

/// A handshake with what the API server trusts; the certificate that is served.
async fn served(address: &str, ca: &[u8]) -> Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        roots.add(authority?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1")?, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(chain.first().context("no certificate")?.to_vec())
}

/// What the API server trusts.
async fn bundle(spare: &Spare) -> Result<Vec<u8>> {
    let api = "admissionregistration.k8s.io/v1";
    let configuration = spare.objects.get(api, "MutatingWebhookConfiguration", "", MUTATING).await?;
    let bundle: ByteString = serde_json::from_value(configuration["webhooks"][0]["clientConfig"]["caBundle"].clone())?;
    Ok(bundle.0)
}

async fn held(spare: &Spare, tries: usize) -> Result<()> {
    let image = json!([{"name": "main", "image": format!("main:{}", tries + 2)}]);
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": image}}}}));
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let answer = spare.objects.api("apps/v1", "Deployment", "shop").patch("web", &params, &patch).await?;
    ensure!(answer.data["spec"]["paused"] == true, "let through: {}", answer.data["spec"]);
    Ok(())
}

pub async fn certificates_change_unnoticed(rig: Arc<Rig>) -> Result<()> {
    let spare = rig.empty("certificates", 16455).await?;
    let objects = &spare.objects;
    objects.apply_crds(&documents(&["crd"])?).await?;
    install::roles(objects).await?;
    objects.namespace("shop").await?;
    let app = json!({"app": "web"});
    let labels = json!({WORKLOAD_TYPE: "deployment"});
    objects
        .apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "labels": labels},
            "spec": {"selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                     "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}}))
        .await?;
    for object in documents(&["webhooks", "--url", &format!("https://{}", REPLICAS[0].1)])? {
        objects.apply(&object).await?;
    }
    let Certificates { ca, ca_key, cert, key } = aged(Timestamp::now())?;
    let data = json!({"ca.crt": ca, "ca.key": ca_key, "tls.crt": cert, "tls.key": key});
    let meta = json!({"name": SECRET, "namespace": NAMESPACE});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "stringData": data});
    objects.apply(&secret).await?;
    let mut controllers = Vec::new();
    for (i, (health, webhooks)) in REPLICAS.into_iter().enumerate() {
        let args = ["--webhook-addr", webhooks, "--webhook-host", "127.0.0.1", "--leader-elect"];
        controllers
            .push(Controller::of_spare_named(&rig, &spare.name, &format!("certificates-{i}"), health, &args).await?);
    }
    until("the webhook holds", SOON, async || held(&spare, 0).await).await?;
    let before = served(REPLICAS[0].1, &bundle(&spare).await?).await?;

    let (begin, mut tries, mut changed) = (Instant::now(), 0, None);
    // Until each replica has served the new one for a while.
    while changed.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(3)) {
        ensure!(begin.elapsed() < SOON, "after {:?} the certificate is the same", begin.elapsed());
        held(&spare, tries).await.with_context(|| format!("after {:?}", begin.elapsed()))?;
        let trusted = bundle(&spare).await?;
        let mut new = 0;
        for (_, address) in REPLICAS {
            let now =
                served(address, &trusted).await.with_context(|| format!("{address} after {:?}", begin.elapsed()))?;
            new += usize::from(now != before);
        }
        if new == REPLICAS.len() {
            changed = changed.or_else(|| Some(Instant::now()));
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let end = |text: &str| {
        let line = text.lines().find(|line| line.contains("certificate=\"serving\"") && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).context("no metric of the certificate's end")
    };
    for controller in controllers {
        let days = (end(&controller.metrics().await?)? - Timestamp::now().as_second() as f64) / 86_400.0;
        ensure!((89.0..91.0).contains(&days), "it ends in {days} days");
        controller.stop().await?;
    }
    let stored = objects.get("v1", "Secret", NAMESPACE, SECRET).await?;
    ensure!(stored["data"]["tls.crt"] != Value::Null, "no certificate");
    eprintln!(
        "e2e: certificates_change_unnoticed: {tries} changes held, a new certificate after {:.0} s",
        begin.elapsed().as_secs_f64() - 3.0
    );
    Ok(())
}
