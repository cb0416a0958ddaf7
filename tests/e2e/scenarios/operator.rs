//! What an administrator relies on, on an API server of its own: webhooks, and the commands that look after an
//! installation. No controllers run there, so nothing is released.

use std::{process::Command, sync::Arc};

use anyhow::{Context, Result, ensure};
use kube::{
    Client, Config,
    api::{Patch, PatchParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use tidegate::{
    api::keys::{OVERRIDE_WINDOWS, OVERRIDE_WINDOWS_BY, SCRIPT_CONFIG_MAP, WORKLOAD_TYPE},
    workload::hold::PROBE,
};

use crate::rig::{
    Rig,
    controller::{BINARY, Controller, NAMESPACE, documents},
    install,
    kruise::grant_for,
    objects::Objects,
    pki::CONTROLLER,
    poll::{SOON, until},
    spare::Spare,
};

const PORT: u16 = 16447;
const HEALTH: &str = "127.0.0.1:18087";
const WEBHOOKS: &str = "127.0.0.1:19878";
const ROLLOUT: &str = "rollouts.kruise.io/v1beta1";

pub async fn operator(rig: Arc<Rig>) -> Result<()> {
    let spare = rig.empty("operator", PORT).await?;
    let objects = &spare.objects;
    install::roles(objects).await?;
    objects.namespace("shop").await?;
    migrated(&rig, &spare).await?;
    for object in documents(&["webhooks", "--no-hold", "--url", &format!("https://{WEBHOOKS}")])? {
        objects.apply(&object).await?;
    }
    let args = ["--webhook-addr", WEBHOOKS, "--webhook-host", "127.0.0.1"];
    let controller = Controller::of_spare(&rig, "operator", HEALTH, &args).await?;
    authority(&rig, &spare).await?;
    approvers(&rig, &spare).await?;
    doctor(&rig, &spare).await?;
    scripts(&rig, &spare).await?;
    controller.stop().await?;
    Ok(())
}

/// With rights in one namespace the controller works on the Rollouts there, asks for nothing else, and is asked nothing else.
pub async fn some_namespaces(rig: Arc<Rig>) -> Result<()> {
    const HEALTH: &str = "127.0.0.1:18089";
    const WEBHOOKS: &str = "127.0.0.1:19880";
    let spare = rig.empty("places", 16450).await?;
    let objects = &spare.objects;
    objects.apply_crds(&documents(&["crd"])?).await?;
    for namespace in [NAMESPACE, "shop", "other"] {
        objects.namespace(namespace).await?;
    }
    let url = format!("https://{WEBHOOKS}");
    let of_shop = ["--namespaces", "shop"];
    for object in documents(&[&["rbac"][..], &of_shop].concat())? {
        objects.apply(&object).await?;
    }
    for object in documents(&[&["webhooks", "--no-hold", "--url", &url][..], &of_shop].concat())? {
        objects.apply(&object).await?;
    }
    let args = [&["--webhook-addr", WEBHOOKS, "--webhook-host", "127.0.0.1", "--hold", "auto"][..], &of_shop].concat();
    let controller = Controller::of_spare(&rig, "places", HEALTH, &args).await?;
    let labels = json!({"app": "web"});
    for namespace in ["other", "shop"] {
        let mut workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}});
        objects.apply(&workload).await?;
        workload = rollout("web", "web", json!([]));
        workload["metadata"]["namespace"] = json!(namespace);
        objects.apply(&workload).await?;
    }
    let label = async |namespace: &str| -> Result<Value> {
        let workload = objects.get("apps/v1", "Deployment", namespace, "web").await?;
        Ok(workload["metadata"]["labels"][WORKLOAD_TYPE].clone())
    };
    until("the workload of the namespace is managed", SOON, async || {
        ensure!(label("shop").await? == "deployment", "not yet");
        Ok(())
    })
    .await?;
    ensure!(label("other").await?.is_null(), "that of another namespace as well");
    let other = objects.get(ROLLOUT, "Rollout", "other", "web").await?;
    ensure!(other["status"].is_null() && other["metadata"]["finalizers"].is_null(), "touched: {other}");
    // Nothing was there that holds: the controller has put it in place, and tried it.
    until("the policies hold", SOON, async || {
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"changed": "yes"}}}}});
        let api = objects.api("apps/v1", "Deployment", "shop");
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let answer = serde_json::to_value(api.patch("web", &params, &Patch::Merge(patch)).await?)?;
        ensure!(answer["spec"]["paused"] == true, "not held");
        ensure!(objects.get("apps/v1", "Deployment", NAMESPACE, PROBE).await.is_err(), "the probe is still there");
        Ok(())
    })
    .await?;
    let wrong = |namespace: &str| {
        let mut second = rollout("second", "web", json!([]));
        second["metadata"]["namespace"] = json!(namespace);
        second
    };
    until("the webhooks are asked about the namespace", SOON, async || {
        ensure!(objects.apply(&wrong("shop")).await.is_err(), "two Rollouts for one workload");
        Ok(())
    })
    .await?;
    objects.apply(&wrong("other")).await.context("nobody is asked about other namespaces")?;
    controller.stop().await?;
    Ok(())
}

/// A command of the administrator's, and whether it succeeded.
fn command(rig: &Rig, args: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("timeout");
    command.arg("60").arg(BINARY).args(args).env("KUBECONFIG", rig.dir.join("operator-admin.kubeconfig"));
    let output = command.output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

/// Objects of the time when v1alpha1 was stored are stored as v1beta1, once, and unchanged.
async fn migrated(rig: &Rig, spare: &Spare) -> Result<()> {
    const NAME: &str = "rollouts.rollouts.kruise.io";
    let crds = documents(&["crd"])?;
    let mut old = crds.clone();
    let rollouts = old.iter_mut().find(|crd| crd["metadata"]["name"] == NAME).context("no definition of Rollouts")?;
    for version in rollouts["spec"]["versions"].as_array_mut().context("no versions")? {
        version["storage"] = json!(version["name"] == "v1alpha1");
    }
    spare.objects.apply_crds(&old).await?;
    let written = until("a Rollout is stored as v1alpha1", SOON, async || {
        spare.objects.apply(&rollout("old", "old", json!([]))).await
    })
    .await?;
    spare.objects.apply_crds(&crds).await?;
    let stored = async || -> Result<Value> {
        let crd = spare.objects.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", NAME).await?;
        Ok(crd["status"]["storedVersions"].clone())
    };
    until("both versions may be stored", SOON, async || {
        ensure!(stored().await? == json!(["v1alpha1", "v1beta1"]), "{}", stored().await?);
        Ok(())
    })
    .await?;
    let version = async || -> Result<Value> {
        Ok(spare.objects.get(ROLLOUT, "Rollout", "shop", "old").await?["metadata"]["resourceVersion"].clone())
    };
    let (_, says) = command(rig, &["migrate"])?;
    ensure!(says.contains("1 objects may be stored as v1alpha1"), "{says}");
    ensure!(version().await? == written["metadata"]["resourceVersion"], "a dry run has written");
    // The server writes the other version from a moment after the definition was changed.
    until("it is stored anew", SOON, async || {
        let (is_done, says) = command(rig, &["migrate", "--apply"])?;
        ensure!(is_done, "{says}");
        ensure!(version().await? != written["metadata"]["resourceVersion"], "as it was: {says}");
        Ok(())
    })
    .await?;
    ensure!(stored().await? == json!(["v1beta1"]), "{}", stored().await?);
    let now = spare.objects.get(ROLLOUT, "Rollout", "shop", "old").await?;
    ensure!(now["spec"] == written["spec"], "changed: {}", now["spec"]);
    let (_, says) = command(rig, &["migrate", "--apply"])?;
    ensure!(
        says.contains("all objects are stored as v1beta1") && version().await? == now["metadata"]["resourceVersion"],
        "{says}"
    );
    spare.objects.kill(ROLLOUT, "Rollout", "shop", "old").await
}

/// What is sound and what is missing here, as a person reads it.
async fn doctor(rig: &Rig, spare: &Spare) -> Result<()> {
    let look = || command(rig, &["doctor", "--controller-namespace", NAMESPACE, "--controller-user", CONTROLLER]);
    let mesh =
        json!([{"service": "web", "networkRefs": [{"apiVersion": "example.io/v1", "kind": "Mesh", "name": "web"}]}]);
    spare.objects.apply(&rollout("sick", "sick", mesh)).await?;
    let (is_sound, says) = look()?;
    ensure!(!is_sound, "nothing is wrong: {says}");
    for line in [
        "ok    API server: v1.",
        "ok    definition rollouts.rollouts.kruise.io: as this version has it",
        "FAIL  hold of changed workloads: nothing holds them",
        "ok    webhook that validates: configured",
        "ok    webhook that names approvers: configured",
        "ok    webhooks answer: ",
        "ok    serving certificate: good for ",
        "FAIL  example.io/Mesh (Rollout shop/sick): the API server does not serve this kind",
        "FAIL  example.io/Mesh (Rollout shop/sick): the controller may not get, list, watch, patch it",
        "FAIL  example.io/Mesh (Rollout shop/sick): there is no script for this kind",
        "ok    apps/Deployment (Rollout shop/sick): served, with the rights that it needs",
    ] {
        ensure!(says.contains(line), "{line:?} is not said:\n{says}");
    }
    for policy in documents(&["policy"])? {
        spare.objects.apply(&policy).await?;
    }
    spare.objects.kill(ROLLOUT, "Rollout", "shop", "sick").await?;
    until("it is mended", SOON, async || {
        let (_, says) = look()?;
        ensure!(says.contains("ok    hold of changed workloads: by ") && !says.contains("example.io"), "{says}");
        // One replica without a Lease.
        let wrong: Vec<&str> = says.lines().filter(|l| l.starts_with("FAIL")).collect();
        ensure!(wrong.len() == 1 && wrong[0].contains("leader: nobody leads"), "{says}");
        Ok(())
    })
    .await
}

/// What an author of scripts and a person who brings one in a namespace read here.
async fn scripts(rig: &Rig, spare: &Spare) -> Result<()> {
    const KEY: &str = "lua.traffic.routing.Mesh.example.io";
    let objects = &spare.objects;
    let definition = |group: &str, kind: &str, plural: &str| {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")}, "spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}]}})
    };
    let definitions = [
        definition("networking.istio.io", "VirtualService", "virtualservices"),
        definition("networking.istio.io", "Gateway", "gateways"),
        definition("example.io", "Mesh", "meshes"),
        definition("example.io", "Hop", "hops"),
    ];
    objects.apply_crds(&definitions).await?;
    let config_map = |namespace: &str, text: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SCRIPT_CONFIG_MAP, "namespace": namespace},
            "data": {KEY: text}})
    };
    let routed =
        json!([{"service": "web", "networkRefs": [{"apiVersion": "example.io/v1", "kind": "Mesh", "name": "web"}]}]);
    objects.apply(&rollout("meshed", "meshed", routed)).await?;
    let doctor = |more: &[&str]| {
        let look = ["doctor", "--controller-namespace", NAMESPACE, "--controller-user", CONTROLLER];
        command(rig, &[&look[..], more].concat()).map(|(_, says)| says)
    };
    let said = |says: &str, subject: &str, line: &str| {
        let found = says.lines().any(|said| said.contains(subject) && said.contains(line));
        ensure!(found, "{line:?} of {subject} is not said:\n{says}");
        Ok(())
    };
    let mesh = "example.io/Mesh (Rollout shop/meshed)";
    // A namespace's own counts only where the controller reads it, and may.
    objects.apply(&config_map("shop", "return return")).await?;
    said(&doctor(&[])?, mesh, "there is no script for this kind")?;
    let says = doctor(&["--namespace-scripts"])?;
    said(&says, mesh, "its script does not work: ConfigMap shop/kruise-rollout-configuration, ")?;
    said(
        &says,
        "ConfigMap (scripts of namespace shop)",
        "may not get, list, watch it in namespace shop: apply `tidegate rbac --namespace-scripts`",
    )?;
    grant_for(objects, "--namespace-scripts").await?;
    objects.apply(&config_map("shop", "return obj.data")).await?;
    until("the rights are in force", SOON, async || {
        let says = doctor(&["--namespace-scripts"])?;
        ensure!(!says.contains("scripts of namespace"), "{says}");
        ensure!(!says.contains("there is no script") && !says.contains("its script does not work"), "{says}");
        Ok(())
    })
    .await?;
    // The administrator's is what authors are told of.
    objects.apply(&config_map(NAMESPACE, "return obj.data")).await?;
    let (is_good, says) = command(rig, &["lua", "list", "--cluster", "--controller-namespace", NAMESPACE])?;
    ensure!(is_good, "{says}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = |object: &str| words(says.lines().find(|line| line.starts_with(object)).unwrap_or_default());
    ensure!(row("OBJECT") == words("OBJECT VERSIONS ACCEPTANCE IN CLUSTER FEATURES"), "{says}");
    ensure!(row("networking.istio.io/VirtualService")[2..4] == ["A4", "v1"], "{says}");
    ensure!(row("kuma.io/MeshHTTPRoute")[2..4] == ["A4", "-"], "{says}");
    ensure!(row("example.io/Mesh")[1..] == words("v1 (script of the ConfigMap)"), "{says}");
    ensure!(says.ends_with("no script: example.io/Hop, networking.istio.io/Gateway\n"), "{says}");
    let (_, json) = command(rig, &["lua", "list", "--cluster", "--controller-namespace", NAMESPACE, "-o", "json"])?;
    let rows: Vec<Value> = serde_json::from_str(&json)?;
    ensure!(rows.contains(&json!({"configMap": "example.io/Mesh", "served": ["v1"]})), "{json}");
    objects.kill("v1", "ConfigMap", NAMESPACE, SCRIPT_CONFIG_MAP).await?;
    objects.kill("v1", "ConfigMap", "shop", SCRIPT_CONFIG_MAP).await?;
    objects.kill(ROLLOUT, "Rollout", "shop", "meshed").await
}

fn rollout(name: &str, workload: &str, routings: Value) -> Value {
    json!({"apiVersion": ROLLOUT, "kind": "Rollout", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
                 "strategy": {"canary": {"steps": [{"replicas": "20%"}, {"replicas": "100%"}], "trafficRoutings": routings}}}})
}

/// Somebody else's identity, with what RBAC gives it.
async fn user(rig: &Rig, name: &str) -> Result<Objects> {
    let kubeconfig = Kubeconfig::read_from(rig.dir.join("operator-admin.kubeconfig"))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.auth_info.impersonate = Some(name.to_owned());
    Ok(Objects::new(Client::try_from(config)?))
}

/// `rules` for a user in the namespace.
async fn grant(objects: &Objects, user: &str, rules: Value) -> Result<()> {
    let (version, metadata) = ("rbac.authorization.k8s.io/v1", json!({"name": user, "namespace": "shop"}));
    objects.apply(&json!({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules})).await?;
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user});
    let binding = json!({"apiVersion": version, "kind": "RoleBinding", "metadata": metadata, "roleRef": role, "subjects": [subject]});
    objects.apply(&binding).await.map(drop)
}

/// Two users may write Rollouts; only one of them may patch what a Rollout names.
async fn authority(rig: &Rig, spare: &Spare) -> Result<()> {
    let rollouts = json!({"apiGroups": ["rollouts.kruise.io"], "resources": ["rollouts", "trafficroutings"],
        "verbs": ["get", "create", "patch", "delete"]});
    let patches = json!({"apiGroups": ["apps", "", "networking.istio.io"],
        "resources": ["deployments", "services", "virtualservices"], "verbs": ["patch"]});
    grant(&spare.objects, "author", json!([rollouts])).await?;
    grant(&spare.objects, "owner", json!([rollouts, patches])).await?;
    let (author, owner) = (user(rig, "author").await?, user(rig, "owner").await?);
    let network = json!([{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "web"}]);
    let routings = json!([{"service": "web", "networkRefs": network}]);
    let web = rollout("web", "web", routings.clone());
    let refused = async |answer: Result<Value>, parts: &[&str]| -> Result<()> {
        let text = format!("{:#}", answer.err().context("it is let through")?);
        for part in parts {
            ensure!(text.contains(part), "{part:?} is not said in: {text}");
        }
        Ok(())
    };
    // The right to write Rollouts takes a moment to be known.
    until("the owner of the workload may release it", SOON, async || owner.apply(&web).await).await?;
    let parts = ["vrollout.kb.io", "user \"author\" may not patch deployments.apps \"api\" in namespace \"shop\""];
    let other = rollout("api", "api", json!([]));
    refused(author.apply(&other).await, &parts).await?;
    until("the author may write rollouts at all", SOON, async || {
        let label = json!({"metadata": {"labels": {"team": "web"}, "finalizers": ["tidegate.test/kept"]}});
        author.merge(ROLLOUT, "Rollout", "shop", "web", label).await.context("labels and finalizers")
    })
    .await?;
    let more = json!({"spec": {"strategy": {"canary": {"steps": [{"replicas": "50%"}, {"replicas": "100%"}]}}}});
    let parts =
        ["deployments.apps \"web\"", "nor patch services \"web\"", "virtualservices.networking.istio.io \"web\""];
    refused(author.merge(ROLLOUT, "Rollout", "shop", "web", more.clone()).await, &parts).await?;
    owner.merge(ROLLOUT, "Rollout", "shop", "web", more).await.context("the owner changes steps")?;

    let routing = json!({"apiVersion": "rollouts.kruise.io/v1alpha1", "kind": "TrafficRouting",
        "metadata": {"name": "shared", "namespace": "shop"}, "spec": {"objectRef": routings}});
    refused(author.apply(&routing).await, &["vtrafficrouting.kb.io", "TrafficRouting shop/shared", "services \"web\""])
        .await?;
    owner.apply(&routing).await.context("the owner shares a route")?;
    owner.apply(&other).await.context("the owner's other workload")?;

    // Whoever may delete a Rollout may.
    let free = json!({"metadata": {"finalizers": []}});
    author.merge(ROLLOUT, "Rollout", "shop", "web", free).await?;
    author.kill(ROLLOUT, "Rollout", "shop", "web").await.context("deletion")?;
    author.kill(ROLLOUT, "Rollout", "shop", "api").await?;
    author.kill("rollouts.kruise.io/v1alpha1", "TrafficRouting", "shop", "shared").await
}

/// The API server's own name of whoever approves stands in the status, in either version, whatever he writes there himself.
async fn approvers(rig: &Rig, spare: &Spare) -> Result<()> {
    let status = json!({"apiGroups": ["rollouts.kruise.io"], "resources": ["rollouts/status"], "verbs": ["patch"]});
    grant(&spare.objects, "approver", json!([status])).await?;
    let approver = user(rig, "approver").await?;
    // The controller leaves alone what is not for it to release.
    let mut web = rollout("said", "said", json!([]));
    web["spec"]["disabled"] = json!(true);
    spare.objects.apply(&web).await?;
    let patch = async |who: &Objects, version: &str, sub: Value| -> Result<Value> {
        let api = who.api(&format!("rollouts.kruise.io/{version}"), "Rollout", "shop");
        let patch = Patch::Merge(json!({"status": {"canaryStatus": sub}}));
        let stored = api.patch_status("said", &PatchParams::default(), &patch).await?;
        Ok(serde_json::to_value(stored)?["status"]["canaryStatus"].clone())
    };
    let waiting = json!({"currentStepIndex": 1, "nextStepIndex": 2, "currentStepState": "StepPaused", "podTemplateHash": "b",
        "finalisingStep": "", "canaryRevision": "b", "canaryReplicas": 1, "canaryReadyReplicas": 1});
    let api = spare.objects.api(ROLLOUT, "Rollout", "shop");
    let whole = json!({"status": {"phase": "Disabled", "currentStepIndex": 1, "currentStepState": "StepPaused", "canaryStatus": waiting}});
    until("the rollout waits", SOON, async || {
        Ok(api.patch_status("said", &PatchParams::default(), &Patch::Merge(whole.clone())).await?)
    })
    .await?;
    let by = |deed: &str, to: Value| {
        let mut word = json!({"step": 1, "deed": deed, "by": "approver"});
        if !to.is_null() {
            word["to"] = to;
        }
        word
    };
    let lie =
        json!({"currentStepState": "StepReady", "saidBy": {"step": 1, "deed": "Approved", "by": "somebody else"}});
    let said = until("the approver may approve, and is named", SOON, async || {
        let said = patch(&approver, "v1beta1", lie.clone()).await?["saidBy"].clone();
        ensure!(said == by("Approved", Value::Null), "{said}");
        Ok(said)
    })
    .await?;
    let again = patch(&approver, "v1beta1", json!({"saidBy": {"by": "somebody else"}})).await?;
    ensure!(again["saidBy"] == said, "changed afterwards: {again}");
    patch(&spare.objects, "v1beta1", json!({"currentStepState": "StepPaused", "saidBy": null})).await?;
    let jumped = patch(&approver, "v1alpha1", json!({"nextStepIndex": 1})).await?;
    ensure!(jumped["saidBy"] == by("Jumped", json!(1)), "{jumped}");
    // Whoever passes over change windows is named as well.
    let rollouts = json!({"apiGroups": ["rollouts.kruise.io"], "resources": ["rollouts"], "verbs": ["patch"]});
    grant(&spare.objects, "overrider", json!([rollouts])).await?;
    let overrider = user(rig, "overrider").await?;
    let lie = json!({"metadata": {"annotations": {OVERRIDE_WINDOWS: "INC-1", OVERRIDE_WINDOWS_BY: "somebody else"}}});
    for version in ["v1beta1", "v1alpha1"] {
        let api_version = format!("rollouts.kruise.io/{version}");
        let stored = until("the overrider may write, and is named", SOON, async || {
            overrider.merge(&api_version, "Rollout", "shop", "said", lie.clone()).await
        })
        .await?;
        ensure!(stored["metadata"]["annotations"][OVERRIDE_WINDOWS_BY] == "overrider", "{}", stored["metadata"]);
    }
    let taken_back = json!({"metadata": {"annotations": {OVERRIDE_WINDOWS: null}}});
    let stored = overrider.merge(ROLLOUT, "Rollout", "shop", "said", taken_back).await?;
    ensure!(stored["metadata"]["annotations"][OVERRIDE_WINDOWS_BY].is_null(), "{}", stored["metadata"]);
    spare.objects.kill(ROLLOUT, "Rollout", "shop", "said").await
}
