//! `tidegate lua list`.

use std::{path::Path, process::ExitCode};

use serde_json::json;

use super::{
    print,
    served::Served,
    sources::{SCRIPTS, lua_files},
};
use crate::cli::client::{self, KubeArgs};
use crate::lua::{Caps, Feature, Library, Origin, Script};

/// Arguments of `tidegate lua list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// Ask the cluster too: which versions it serves of each kind, which scripts its ConfigMap has, and which other kinds of the
    /// same groups have none.
    #[arg(long)]
    cluster: bool,
    /// Namespace of the controller, whose ConfigMap is read.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "tidegate", requires = "cluster")]
    controller_namespace: String,
    #[command(flatten)]
    kube: KubeArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table.
    #[default]
    Text,
    /// A JSON list.
    Json,
    /// The table of docs/gateways/features.md.
    Markdown,
}

/// Runs the command.
///
/// # Errors
/// When a built-in script has no valid header, or the output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let scripts = Library::list().into_iter().map(with_caps).collect::<anyhow::Result<Vec<_>>>()?;
    let served = args.cluster.then(|| served(args)).transpose()?;
    let text = match args.output {
        Output::Text => table(&scripts, &own(&scripts), served.as_ref()),
        Output::Markdown => markdown(&scripts),
        Output::Json => {
            let rows = scripts.iter().map(|(script, caps)| {
                let mut row = json!({"script": script.name, "hash": script.hash(), "versions": caps.versions,
                    "features": caps.features, "accept": caps.accept, "grace": caps.grace});
                if let (Some(map), Some(served)) = (row.as_object_mut(), &served) {
                    map.insert("served".to_owned(), json!(served.versions(&target(&script.name))));
                }
                row
            });
            let of_config_map = served.iter().flat_map(|served| {
                served.scripts.iter().map(|of| json!({"configMap": of, "served": served.versions(of)}))
            });
            serde_json::to_string_pretty(&rows.chain(of_config_map).collect::<Vec<_>>())? + "\n"
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn with_caps(script: Script) -> anyhow::Result<(Script, Caps)> {
    match Caps::parse(&script.source) {
        Ok(Some(caps)) => Ok((script, caps)),
        Ok(None) => anyhow::bail!("{}: no header", script.name),
        Err(e) => anyhow::bail!("{}: {e}", script.name),
    }
}

/// Scripts of the working directory for what nothing built in is for, with their headers as far as they have one.
fn own(built_in: &[(Script, Caps)]) -> Vec<(Script, Option<Caps>)> {
    let is_known = |name: &str| built_in.iter().any(|(script, _)| script.name == name);
    let files = lua_files(&[SCRIPTS.into()]).unwrap_or_default();
    let names = files.iter().filter_map(|file| Some((file, file.strip_prefix(SCRIPTS).ok()?.to_str()?)));
    let routing = names.filter(|(_, name)| name.ends_with("/trafficRouting.lua") || name.starts_with("ingress/"));
    routing
        .filter(|(_, name)| !is_known(name))
        .filter_map(|(file, name)| {
            let text = std::fs::read_to_string(file).ok()?;
            let caps = Caps::parse(&text).ok().flatten();
            Some((Script::new(name, text, Origin::File(Path::new(file).to_owned())), caps))
        })
        .collect()
}

fn served(args: &Args) -> anyhow::Result<Served> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, _) = client::connect(&args.kube).await?;
        Served::read(&client, &args.controller_namespace).await
    })
}

fn table(scripts: &[(Script, Caps)], own: &[(Script, Option<Caps>)], served: Option<&Served>) -> String {
    let in_cluster = |target: &str| match served.map(|served| served.versions(target)) {
        None => String::new(),
        Some([]) => "-".to_owned(),
        Some(versions) => versions.join(","),
    };
    let row = |script: &Script, caps: Option<&Caps>, origin: &str| {
        let target = target(&script.name);
        let there = in_cluster(&target);
        let Some(caps) = caps else {
            return [target, String::new(), String::new(), there, format!("no header{origin}")];
        };
        let features: Vec<&str> = caps.features.iter().copied().map(Feature::name).collect();
        [target, caps.versions.join(","), format!("{:?}", caps.accept), there, features.join(" ") + origin]
    };
    let of_script = |(script, caps): &(Script, Caps)| row(script, Some(caps), "");
    let of_folder = |(script, caps): &(Script, Option<Caps>)| row(script, caps.as_ref(), " (of lua-scripts)");
    let of_config_map = |target: &String| {
        let there = in_cluster(target);
        [target.clone(), String::new(), String::new(), there, "(script of the ConfigMap)".to_owned()]
    };
    let head = ["OBJECT", "VERSIONS", "ACCEPTANCE", "IN CLUSTER", "FEATURES"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head)
        .chain(scripts.iter().map(of_script))
        .chain(own.iter().map(of_folder))
        .chain(served.iter().flat_map(|served| &served.scripts).map(of_config_map))
        .collect();
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let [a, b, c, d] = [width(0), width(1), width(2), width(3)];
    let line = |[v, w, x, y, z]: &[String; 5]| match served {
        None => format!("{v:a$}  {w:b$}  {x:c$}  {z}\n"),
        Some(_) => format!("{v:a$}  {w:b$}  {x:c$}  {y:d$}  {z}\n"),
    };
    let mut text: String = rows.iter().map(line).collect();
    let built_in: Vec<String> = scripts.iter().map(|(script, _)| target(&script.name)).collect();
    let without = served.map(|served| served.without_script(&built_in)).unwrap_or_default();
    if !without.is_empty() {
        text += &format!("no script: {}\n", without.join(", "));
    }
    text
}

/// A column for each feature that some script has and another has not; kinds of routes in one.
fn markdown(scripts: &[(Script, Caps)]) -> String {
    const ROUTES: [Feature; 5] = [Feature::Http, Feature::Grpc, Feature::Tcp, Feature::Tls, Feature::Udp];
    let columns: Vec<Feature> = Feature::ALL.into_iter().filter(|f| !ROUTES.contains(f)).collect();
    let head = columns.iter().map(|f| f.name()).collect::<Vec<_>>().join(" | ");
    let mut text =
        format!("| Object | {head} | routes | versions | taken? |\n|---|{}", "---|".repeat(columns.len() + 3));
    for (script, caps) in scripts {
        let can = columns.iter().map(|f| if caps.features.contains(f) { "✓" } else { "" });
        let routes = ROUTES.iter().filter(|f| caps.features.contains(f)).map(|f| f.name());
        text += &format!(
            "\n| {} | {} | {} | {} | {:?}{} |",
            target(&script.name),
            can.collect::<Vec<_>>().join(" | "),
            routes.collect::<Vec<_>>().join(", "),
            caps.versions.join(", "),
            caps.accept,
            caps.grace.map_or(String::new(), |seconds| format!(", {seconds} s"))
        );
    }
    text + "\n"
}

/// `<group>/<Kind>`, or the class of an Ingress.
fn target(name: &str) -> String {
    match name.strip_prefix("ingress/").and_then(|n| n.strip_suffix(".lua")) {
        Some(class) => format!("Ingress of class {class}"),
        None => name.trim_end_matches("/trafficRouting.lua").to_owned(),
    }
}
