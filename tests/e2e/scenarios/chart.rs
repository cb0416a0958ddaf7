//! The chart, by the real Helm: what it renders, and its life on a real API server.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::{api::keys::WORKLOAD_TYPE, workload::hold::PROBE};

use crate::rig::{
    Rig,
    controller::{Controller, NAMESPACE, output},
    helm::{chart, helm, uninstalled},
    image::Image,
    poll::{SOON, until},
    spare::Spare,
};

/// Each file of `tests/chart` names values; beside it lies what they render. `BLESS=1` writes that anew.
pub async fn chart_renders(rig: Arc<Rig>) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart");
    helm(&rig, &["lint", "--strict", &chart()])?;
    let mut cases = 0;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let Some(name) = name.strip_suffix(".yaml").filter(|n| !n.ends_with(".golden")) else { continue };
        let case: Value = tidegate::yaml::from_str(&fs::read_to_string(&path)?)?;
        let values = rig.dir.join(format!("values-{name}.yaml"));
        fs::write(&values, case["values"].to_string())?;
        let chart = chart();
        let mut args = vec!["template", "tidegate", &chart, "--namespace", NAMESPACE, "--kube-version", "1.36.0"];
        let values = values.display().to_string();
        args.extend(["--values", &values]);
        let versions = case["apiVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        versions.for_each(|version| args.extend(["--api-versions", version]));
        let rendered = by_hand(&helm(&rig, &args)?);
        let golden = folder.join(format!("{name}.golden.yaml"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &rendered)?;
        }
        let kept = fs::read_to_string(&golden).unwrap_or_default();
        ensure!(
            kept == rendered,
            "{name} renders something else; `make bless-chart` if it is meant:\n{}",
            similar::TextDiff::from_lines(&kept, &rendered).unified_diff().header("kept", "rendered")
        );
        cases += 1;
    }
    ensure!(cases >= 3, "only {cases} cases");
    // What is misspelled or impossible is refused before anything is installed.
    for (wrong, part) in [
        ("replicas=3", "replicas"),
        ("webhooks.url=http://plain", "webhooks"),
        ("hold.mode=always", "mode"),
        ("webhooks.enabled=false,hold.mode=webhook", "nothing would hold changed workloads"),
    ] {
        let answer = helm(&rig, &["template", "tidegate", &chart(), "--set", wrong]);
        let error = answer.err().with_context(|| format!("{wrong} is rendered"))?.to_string();
        ensure!(error.contains(part), "{wrong}: {error}");
    }
    Ok(())
}

/// What is rendered from templates that the code makes has tests of its own: only that it is there.
fn by_hand(rendered: &str) -> String {
    const MADE: [&str; 6] = [
        "clusterrole.yaml",
        "clusterrole-jobs.yaml",
        "policy.yaml",
        "webhooks.yaml",
        "webhooks-approvers.yaml",
        "webhooks-hold.yaml",
    ];
    let documents = rendered.split("---\n").filter(|d| !d.trim().is_empty());
    let mut kept: Vec<String> = Vec::new();
    for document in documents {
        let source = document.lines().next().unwrap_or_default();
        if !MADE.iter().any(|file| source.ends_with(&format!("/{file}"))) {
            kept.push(document.trim_end().to_owned());
            continue;
        }
        let kind = document.lines().find(|l| l.starts_with("kind: ")).unwrap_or_default();
        let made = format!("{source}\n{kind} (made by the code)");
        // One or many: a workload kind more brings a policy more.
        if !kept.contains(&made) {
            kept.push(made);
        }
    }
    kept.iter().map(|d| format!("---\n{d}\n")).collect()
}

const HEALTH: &str = "127.0.0.1:18085";
const WEBHOOKS: u16 = 19876;
const MUTATING: (&str, &str, &str) = (
    "admissionregistration.k8s.io/v1",
    "MutatingWebhookConfiguration",
    "kruise-rollout-mutating-webhook-configuration",
);
const ROLLOUT: &str = "rollouts.kruise.io/v1beta1";

fn deployment(name: &str, labels: Value) -> Value {
    let app = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                 "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}})
}

fn rollout(name: &str, steps: Value) -> Value {
    json!({"apiVersion": ROLLOUT, "kind": "Rollout", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                 "strategy": {"canary": {"steps": steps}}}})
}

/// The answer to a dry run of a new image.
async fn changed(spare: &Spare, name: &str) -> Result<Value, kube::Error> {
    let api = spare.objects.api("apps/v1", "Deployment", "shop");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let answer = api.patch(name, &params, &Patch::Strategic(patch)).await?;
    Ok(serde_json::to_value(answer).unwrap_or_default())
}

/// Tries a change again and again; returns when it was let through.
async fn never_free(spare: &Spare, name: &str) -> anyhow::Error {
    loop {
        match changed(spare, name).await {
            Ok(answer) if answer["spec"]["paused"] == true => {}
            // No replica runs.
            Err(error) if error.to_string().contains("mdeployment.kb.io") => {}
            other => return anyhow::anyhow!("a change was let through: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Install, upgrade, roll back, uninstall. The Deployment's pods cannot run here: its image with its own arguments is run
/// as a process of this machine, read-only and without rights, which the API server reaches by `webhooks.url`.
pub async fn chart_life(rig: Arc<Rig>) -> Result<()> {
    let spare = rig.spare().await?;
    let image = Image::make(&rig, "image")?;
    let version = output(&mut image.command(&["--version"])?)?;
    ensure!(version.trim() == concat!("tidegate ", env!("CARGO_PKG_VERSION")), "the image says {version}");
    image.identity("controller-token", &rig.cluster.pki.file("ca.crt"), NAMESPACE)?;
    let url = format!("webhooks.url=https://127.0.0.1:{WEBHOOKS}");
    let values = [
        &url,
        "hold.mode=webhook",
        "webhooks.conversion=true",
        &format!("rollout.webhook.port={WEBHOOKS}"),
        "rollout.healthBindPort=18085",
        "log.format=human",
    ]
    .join(",");
    let release = |verb: &'static str, more: &[&str]| {
        let chart = chart();
        let mut args = vec![verb, "tidegate", &chart, "--namespace", NAMESPACE, "--set", &values];
        args.extend(more);
        helm(&rig, &args)
    };
    let notes = release("install", &["--create-namespace"])?;
    ensure!(notes.contains("kubectl -n tidegate rollout status deployment/tidegate"), "no next command: {notes}");
    let installed = spare.objects.get("apps/v1", "Deployment", NAMESPACE, "tidegate").await?;
    let controller = Controller::of_deployment(&rig, &image, HEALTH, &spare, &installed).await?;
    unprivileged(&controller)?;
    spare.objects.namespace("shop").await?;
    spare.objects.apply(&deployment("web", json!({WORKLOAD_TYPE: "deployment"}))).await?;
    spare.objects.apply(&deployment("plain", json!({}))).await?;

    admission(&spare).await?;
    ca_bundle_is_ours_alone(&spare).await?;

    let revisions = async || -> Result<(Value, Value)> {
        let web = spare.objects.get(ROLLOUT, "Rollout", "shop", "web").await?;
        let config = spare.objects.get(MUTATING.0, MUTATING.1, "", MUTATING.2).await?;
        Ok((web["metadata"]["uid"].clone(), config["webhooks"][0]["clientConfig"].clone()))
    };
    let before = revisions().await?;
    // In the middle of a release: held, and not let go by what happens to the controller.
    spare.objects.apply(&deployment("midway", json!({WORKLOAD_TYPE: "deployment"}))).await?;
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"changed": "yes"}}}}});
    spare.objects.merge("apps/v1", "Deployment", "shop", "midway", change).await?;
    let stands = async || -> Result<Value> {
        let midway = spare.objects.get("apps/v1", "Deployment", "shop", "midway").await?;
        ensure!(midway["spec"]["paused"] == true, "not held: {}", midway["spec"]);
        Ok(json!([midway["spec"], midway["metadata"]["annotations"], midway["metadata"]["labels"]]))
    };
    let stood = stands().await?;
    release("upgrade", &["--set", "replicaCount=3"])?;
    let replicas = async || -> Result<Value> {
        Ok(spare.objects.get("apps/v1", "Deployment", NAMESPACE, "tidegate").await?["spec"]["replicas"].clone())
    };
    ensure!(replicas().await? == 3 && revisions().await? == before, "the upgrade took more than it was asked for");
    helm(&rig, &["rollback", "tidegate", "1", "--namespace", NAMESPACE])?;
    ensure!(replicas().await? == 2 && revisions().await? == before, "the rollback took more than it was asked for");
    ensure!(stands().await? == stood, "a release has moved: {stood}, now {}", stands().await?);

    controller.kill()?;
    nobody_else_waits_for_us(&spare).await?;
    // Back again: the same Secret, so nothing has to be learnt anew.
    let again = Controller::of_deployment(&rig, &image, HEALTH, &spare, &installed).await?;
    changed(&spare, "web").await.context("held again")?;
    let took = again.stop().await?;
    ensure!(took < Duration::from_secs(10), "stopping took {took:?}");

    // The server is upgraded: from now on it may hold by itself. What is tried meanwhile is held, or refused, at every moment.
    let handed_over = async {
        release("upgrade", &["--set", "hold.mode=auto,hold.settle=5s"])?;
        spare.objects.get(MUTATING.0, MUTATING.1, "", MUTATING.2).await.context("the webhook went at once")?;
        let deployment = spare.objects.get("apps/v1", "Deployment", NAMESPACE, "tidegate").await?;
        let controller = Controller::of_deployment(&rig, &image, HEALTH, &spare, &deployment).await?;
        until("the webhook has gone", SOON, async || {
            let there = spare.objects.get(MUTATING.0, MUTATING.1, "", MUTATING.2).await;
            ensure!(there.is_err(), "it is still there");
            Ok(())
        })
        .await?;
        ensure!(changed(&spare, "web").await?["spec"]["paused"] == true, "the policy does not hold");
        until("the probe has gone", SOON, async || {
            ensure!(spare.objects.get("apps/v1", "Deployment", NAMESPACE, PROBE).await.is_err(), "it is still there");
            Ok(())
        })
        .await?;
        controller.stop().await?;
        // It needs nobody, and the next upgrade finds it so.
        release("upgrade", &["--set", "hold.mode=auto"])?;
        ensure!(spare.objects.get(MUTATING.0, MUTATING.1, "", MUTATING.2).await.is_err(), "the webhook is back");
        Ok(())
    };
    tokio::select! {
        biased;
        gap = never_free(&spare, "web") => return Err(gap),
        done = handed_over => done?,
    }

    // The webhooks' process is away, and is not needed for a look.
    spare.objects.apply(&deployment("held", json!({WORKLOAD_TYPE: "deployment"}))).await?;
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"changed": "yes"}}}}});
    let held = spare.objects.merge("apps/v1", "Deployment", "shop", "held", change).await?;
    ensure!(held["spec"]["paused"] == true, "not held: {}", held["spec"]);
    let (answer, said) = uninstalled(&rig, &spare, &image, async || Ok(())).await?;
    let error = answer.err().context("uninstalled while a workload is held")?.to_string();
    ensure!(error.contains("tidegate-uninstall") && error.contains("Failed"), "{error}");
    ensure!(
        said.contains("deployments.apps shop/held is held") && said.contains("tidegate uninstall --on-release finish"),
        "the hook says: {said}"
    );
    spare.objects.get("apps/v1", "Deployment", NAMESPACE, "tidegate").await.context("taken away all the same")?;
    ensure!(said.contains("deployments.apps shop/midway is held"), "the hook says: {said}");
    ensure!(stands().await? == stood, "a release has moved: {stood}, now {}", stands().await?);
    spare.objects.kill("apps/v1", "Deployment", "shop", "held").await?;
    spare.objects.kill("apps/v1", "Deployment", "shop", "midway").await?;

    let (answer, said) = uninstalled(&rig, &spare, &image, async || Ok(())).await?;
    answer.with_context(|| format!("nothing is held any more; the hook says: {said}"))?;
    ensure!(said.contains("the controller may go"), "the hook says: {said}");
    ensure!(revisions().await.is_err(), "a configuration is left behind");
    let kept = spare.objects.get(ROLLOUT, "Rollout", "shop", "web").await.context("the Rollout is gone")?;
    ensure!(kept["metadata"]["uid"] == before.0, "another Rollout");
    until("nothing is held any more", SOON, async || {
        ensure!(changed(&spare, "web").await?["spec"]["paused"] != true, "still held");
        Ok(())
    })
    .await
}

/// What the API server asks is answered.
async fn admission(spare: &Spare) -> Result<()> {
    until("the webhook holds", SOON, async || {
        let held = changed(spare, "web").await?;
        ensure!(held["spec"]["paused"] == true, "not held: {}", held["spec"]);
        Ok(())
    })
    .await?;
    ensure!(changed(spare, "plain").await?["spec"]["paused"] != true, "without our label nothing is held");

    let full = json!([{"replicas": "20%"}, {"replicas": "100%"}]);
    spare.objects.apply(&rollout("web", full.clone())).await?;
    let refused = spare.objects.apply(&rollout("second", full)).await.err().context("two Rollouts for one workload")?;
    let text = format!("{refused:#}");
    ensure!(
        text.contains("vrollout.kb.io")
            && text.contains("spec.workloadRef")
            && text.contains("Rollout \"web\" is for this"),
        "{text}"
    );
    until("v1alpha1 says it in its own words", SOON, async || {
        let old = spare.objects.get("rollouts.kruise.io/v1alpha1", "Rollout", "shop", "web").await?;
        ensure!(old["spec"]["objectRef"]["workloadRef"]["name"] == "web", "spec: {}", old["spec"]);
        ensure!(
            old["metadata"]["annotations"]["rollouts.kruise.io/rolling-style"] == "partition",
            "{}",
            old["metadata"]
        );
        Ok(())
    })
    .await
}

/// D-55: of the configurations the controller owns `caBundle` and nothing else, and nobody else owns that.
async fn ca_bundle_is_ours_alone(spare: &Spare) -> Result<()> {
    let validating = ("ValidatingWebhookConfiguration", "kruise-rollout-validating-webhook-configuration");
    let crd = ("CustomResourceDefinition", "rollouts.rollouts.kruise.io");
    for (api_version, kind, name) in
        [MUTATING, (MUTATING.0, validating.0, validating.1), ("apiextensions.k8s.io/v1", crd.0, crd.1)]
    {
        let object = spare.objects.get(api_version, kind, "", name).await?;
        let managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let owners: Vec<String> = managers
            .iter()
            .filter(|m| m["fieldsV1"].to_string().contains("f:caBundle"))
            .map(|m| m["manager"].to_string())
            .collect();
        ensure!(owners == ["\"tidegate-webhook-ca\""], "{kind}: caBundle is owned by {owners:?}");
        let ours = managers.iter().find(|m| m["manager"] == "tidegate-webhook-ca").context("no manager")?;
        let fields = ours["fieldsV1"].to_string();
        ensure!(
            !fields.contains("f:rules") && !fields.contains("f:service") && !fields.contains("f:versions"),
            "{fields}"
        );
    }
    Ok(())
}

/// D-19: while no replica runs, only what would have been held, and new Rollouts, have to wait.
async fn nobody_else_waits_for_us(spare: &Spare) -> Result<()> {
    changed(spare, "plain").await.context("a Deployment that is none of our business")?;
    let quick = |patch: Value| spare.objects.merge("apps/v1", "Deployment", "shop", "web", patch);
    quick(json!({"spec": {"replicas": 2}})).await.context("scaling")?;
    quick(json!({"metadata": {"annotations": {"note": "x"}}})).await.context("an annotation")?;
    let error = changed(spare, "web").await.err().context("a change was let through unheld")?;
    ensure!(error.to_string().contains("mdeployment.kb.io"), "{error}");
    let finalizer = json!({"metadata": {"labels": {"team": "web"}, "finalizers": []}});
    spare
        .objects
        .merge(ROLLOUT, "Rollout", "shop", "web", finalizer)
        .await
        .context("labels and finalizers of a Rollout")?;
    Ok(())
}

/// The process has the image's user, nothing to become another, and sees nothing of this machine that it could write.
fn unprivileged(controller: &Controller) -> Result<()> {
    let status = controller.proc("status")?;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    if field("Uid:").starts_with('0') {
        // Without further users (see `Image::command`) it is root of a namespace that has nothing else.
        eprintln!("e2e: chart_life: this machine maps one user only; the image was NOT run as 65532");
    } else {
        ensure!(field("Uid:").split_whitespace().all(|id| id == "65532"), "user {}", field("Uid:"));
        ensure!(field("Gid:").split_whitespace().all(|id| id == "65532"), "group {}", field("Gid:"));
        ensure!(field("CapEff:").chars().all(|c| c == '0'), "capabilities {}", field("CapEff:"));
    }
    let mounts = controller.proc("mountinfo")?;
    let root = mounts.lines().find(|l| l.split_whitespace().nth(4) == Some("/")).context("no root in mountinfo")?;
    let options = root.split_whitespace().nth(5).unwrap_or_default();
    ensure!(options.split(',').any(|o| o == "ro"), "the root file system can be written: {root}");
    Ok(())
}
