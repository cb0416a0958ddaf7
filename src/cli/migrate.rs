//! `tidegate migrate`: stores every object in the version that is written now, and then says in the definitions that no
//! older one is stored. Without `--apply` it only counts.

use std::process::ExitCode;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::json;

use super::client::{self, KubeArgs, explain};
use crate::api::{crd, object};

/// Arguments of `tidegate migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Store the objects and change the definitions; without it only say what is to be done
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Objects that are read at a time.
const PAGE: u32 = 200;
/// Tries for an object that others write at the same moment.
const TRIES: usize = 5;

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, _) = client::connect(&args.kube).await?;
        for definition in crd::all()? {
            println!("{}", migrate(&client, object::name(&definition), args.apply).await?);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Migrates the objects of one definition, and says what was done.
///
/// # Errors
/// An object that the API server refuses to store, or no answer. What was done by then stays; asked again it goes on.
pub async fn migrate(client: &Client, name: &str, apply: bool) -> anyhow::Result<String> {
    let said = |e: kube::Error| anyhow::anyhow!("{name}: {}", explain(&e));
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let Some(definition) = definitions.get_opt(name).await.map_err(said)? else {
        return Ok(format!("{name}: not installed"));
    };
    let spec = &definition.spec;
    let written = spec.versions.iter().find(|v| v.storage).map(|v| v.name.clone()).unwrap_or_default();
    let stored = definition.status.as_ref().and_then(|s| s.stored_versions.clone()).unwrap_or_default();
    let older: Vec<&String> = stored.iter().filter(|version| **version != written).collect();
    if older.is_empty() {
        return Ok(format!("{name}: all objects are stored as {written}"));
    }
    let gvk = GroupVersionKind::gvk(&spec.group, &written, &spec.names.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &spec.names.plural);
    let all = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let (mut count, mut page) = (0_usize, ListParams::default().limit(PAGE));
    loop {
        let list = all.list(&page).await.map_err(said)?;
        for item in list.items {
            count += 1;
            if apply {
                let namespace = item.metadata.namespace.clone().unwrap_or_default();
                let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
                store(&api, item).await.map_err(said)?;
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => break,
        }
    }
    let older = older.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", ");
    if !apply {
        return Ok(format!("{name}: {count} objects may be stored as {older}; --apply stores them as {written}"));
    }
    // Only of the definition that was read: a version that became the written one since then has objects of its own.
    let version = definition.metadata.resource_version.unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": version}, "status": {"storedVersions": [written]}});
    definitions.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(said)?;
    Ok(format!("{name}: {count} objects are stored as {written}, none as {older} any more"))
}

/// Stores an object as it is. The API server writes it anew only where its stored form is another.
async fn store(api: &Api<DynamicObject>, mut item: DynamicObject) -> kube::Result<()> {
    let name = item.metadata.name.clone().unwrap_or_default();
    let mut tries = 0;
    loop {
        match api.replace(&name, &PostParams::default(), &item).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
            Err(error) => return Err(error),
        }
        tries += 1;
        let Some(newer) = api.get_opt(&name).await? else { return Ok(()) };
        item = newer;
    }
}
