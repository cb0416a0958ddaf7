//! `tidegate lua list`.

use std::process::ExitCode;

use serde_json::json;

use super::print;
use crate::lua::{Caps, Feature, Library, Script};

/// Arguments of `tidegate lua list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print them.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
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
    let text = match args.output {
        Output::Text => table(&scripts),
        Output::Markdown => markdown(&scripts),
        Output::Json => {
            let rows = scripts.iter().map(|(script, caps)| {
                json!({"script": script.name, "hash": script.hash(), "versions": caps.versions,
                    "features": caps.features, "accept": caps.accept})
            });
            serde_json::to_string_pretty(&rows.collect::<Vec<_>>())? + "\n"
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

fn table(scripts: &[(Script, Caps)]) -> String {
    let rows = scripts.iter().map(|(script, caps)| {
        let features: Vec<&str> = caps.features.iter().copied().map(Feature::name).collect();
        [target(&script.name), caps.versions.join(","), format!("{:?}", caps.accept), features.join(" ")]
    });
    let head = ["OBJECT", "VERSIONS", "ACCEPTANCE", "FEATURES"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let [a, b, c] = [width(0), width(1), width(2)];
    rows.iter().map(|[w, x, y, z]| format!("{w:a$}  {x:b$}  {y:c$}  {z}\n")).collect()
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
            "\n| {} | {} | {} | {} | {:?} |",
            target(&script.name),
            can.collect::<Vec<_>>().join(" | "),
            routes.collect::<Vec<_>>().join(", "),
            caps.versions.join(", "),
            caps.accept
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
