//! `tidegate lua init`: from one object to a script that splits its weights, and cases that pass.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use super::{print, read_documents, usage};
use crate::{
    lua::{Engine, Origin, Script},
    traffic::{Names, Original, Strategy, output, script_input},
    yaml,
};

const HELP: &str = "\
Looks through the object's spec for lists of backends: entries with a number called weight, percent or share, or those that name the
Service given by --service. Writes lua-scripts/<group>/<Kind>/trafficRouting.lua, which splits every such list, and
testcases/<group>/<Kind>/weight.yaml with what it makes of the object. Read both: what is expected is what the script does.

Exit codes: 0 written; 2 wrong command line, an object without such a list, or a file that is there already.";

/// Arguments of `tidegate lua init`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// An object of the kind, YAML or JSON; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The Service that is released. Default: the first that a weighted list names.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Where `lua-scripts` and `testcases` are.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    to: PathBuf,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
}

/// Keys of weights, the likeliest first.
const WEIGHTS: [&str; 3] = ["weight", "percent", "share"];
/// Keys of Services' names, the likeliest first.
const SERVICES: [&str; 6] = ["service", "serviceName", "backendName", "host", "name", "target"];

/// A step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Key(String),
    /// Every entry of a list.
    Each,
}

/// Lists of backends that are read in one way.
#[derive(Debug, PartialEq, Eq)]
struct Backends {
    /// Where they are under `spec`.
    lists: Vec<Vec<Part>>,
    /// Keys that lead from an entry to the Service's name.
    name: Vec<String>,
    /// Key of an entry's weight, and whether any has one.
    weight: String,
    has_weights: bool,
    service: String,
}

/// Runs the command.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match write(args) {
        Ok(text) => {
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(message) => Ok(usage(&message)),
    }
}

fn write(args: &Args) -> Result<String, String> {
    let place = args.from.display();
    let mut documents = read_documents(&args.from)?;
    let object = match documents.len() {
        1 => documents.remove(0),
        n => return Err(format!("{place}: has {n} objects; give one")),
    };
    let original = Original::from_object(&object).map_err(|e| format!("{place}: {e}"))?;
    if original.group().is_empty() {
        return Err(format!("{place}: apiVersion {} has no group", original.api_version));
    }
    let backends = find(&original.spec, args.service.as_deref()).map_err(|e| format!("{place}: {e}"))?;
    let text = script(&original, &backends);
    let folder = Path::new(original.group()).join(&original.kind);
    let to = if args.to == Path::new(".") { Path::new("") } else { args.to.as_path() };
    let script_file = to.join("lua-scripts").join(&folder).join("trafficRouting.lua");
    let case_file = to.join("testcases").join(&folder).join("weight.yaml");
    let case = case(&original, &object, &backends, &text)?;
    for file in [&script_file, &case_file] {
        if file.exists() && !args.force {
            return Err(format!("{} is there already; --force writes over it", file.display()));
        }
    }
    for (file, text) in [(&script_file, &text), (&case_file, &case)] {
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(file, text)).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let lists: Vec<String> = backends.lists.iter().map(|list| shown(list)).collect();
    Ok(format!(
        "Service {} in {}, by {}{}\nwrote {}\nwrote {}\n",
        backends.service,
        lists.join(", "),
        backends.name.join("."),
        if backends.has_weights { format!(", share in {}", backends.weight) } else { String::new() },
        script_file.display(),
        case_file.display()
    ))
}

/// Finds the lists of backends. All are read as the first one is.
fn find(spec: &Value, service: Option<&str>) -> Result<Backends, String> {
    let mut found: Option<Backends> = None;
    walk(spec, &mut Vec::new(), &mut |path, entries| {
        let weight = WEIGHTS.iter().find(|key| entries.iter().any(|e| e.get(**key).is_some_and(Value::is_number)));
        let named = entries.iter().find_map(|entry| {
            let names = names_in(entry);
            match (service, &found) {
                (Some(service), _) => names.into_iter().find(|(_, name)| is_name_of(name, service)),
                (None, Some(known)) => {
                    names.into_iter().find(|(path, name)| *path == known.name && is_name_of(name, &known.service))
                }
                (None, None) => weight.and(names.into_iter().next()),
            }
        });
        let Some((name, value)) = named else { return };
        match &mut found {
            None => {
                found = Some(Backends {
                    lists: vec![path.to_vec()],
                    name,
                    weight: weight.map_or("weight", |w| w).to_owned(),
                    has_weights: weight.is_some(),
                    service: service.unwrap_or_else(|| first_label(&value)).to_owned(),
                });
            }
            Some(known) if known.name == name => {
                if !known.lists.iter().any(|list| list == path) {
                    known.lists.push(path.to_vec());
                }
                known.has_weights |= weight.is_some_and(|w| *w == known.weight);
            }
            Some(_) => {}
        }
    });
    found.ok_or_else(|| match service {
        Some(service) => format!("no list in spec has an entry that names Service {service}"),
        None => format!("no list in spec has entries with {}; name the Service by --service", WEIGHTS.join(", ")),
    })
}

/// Tells of every list of objects.
fn walk(value: &Value, path: &mut Vec<Part>, tell: &mut impl FnMut(&[Part], &[Value])) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                path.push(Part::Key(key.clone()));
                walk(value, path, tell);
                path.pop();
            }
        }
        Value::Array(entries) => {
            if entries.iter().any(Value::is_object) {
                tell(path, entries);
            }
            path.push(Part::Each);
            entries.iter().for_each(|entry| walk(entry, path, tell));
            path.pop();
        }
        _ => {}
    }
}

/// Texts that may be a Service's name, each with the keys that lead to it, the likeliest first.
fn names_in(entry: &Value) -> Vec<(Vec<String>, String)> {
    fn collect(value: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
        let Some(map) = value.as_object() else { return };
        for (key, value) in map {
            path.push(key.clone());
            match value.as_str() {
                Some(text) => found.push((path.clone(), text.to_owned())),
                None => collect(value, path, found),
            }
            path.pop();
        }
    }
    let rank = |path: &[String]| {
        let key = path.last().map(String::as_str).unwrap_or_default();
        (SERVICES.iter().position(|s| *s == key).unwrap_or(SERVICES.len()), path.len())
    };
    let mut found = Vec::new();
    collect(entry, &mut Vec::new(), &mut found);
    found.retain(|(path, _)| rank(path).0 < SERVICES.len());
    found.sort_by_key(|(path, _)| rank(path));
    found
}

/// Alone, or as the first label of a host.
fn is_name_of(text: &str, service: &str) -> bool {
    text.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

fn shown(list: &[Part]) -> String {
    list.iter().fold("spec".to_owned(), |text, part| match part {
        Part::Key(key) => format!("{text}.{key}"),
        Part::Each => text + "[]",
    })
}

fn quoted(keys: &[String]) -> String {
    keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", ")
}

fn script(original: &Original, backends: &Backends) -> String {
    let version = original.api_version.rsplit('/').next().unwrap_or_default();
    let kind = &original.kind;
    let (last, parents) = backends.name.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
    let field = if backends.weight == "weight" { String::new() } else { format!("  field = {:?},\n", backends.weight) };
    let zero = if backends.has_weights { "" } else { "  zero = \"even\",\n" };
    let holder = if parents.is_empty() { "entry".to_owned() } else { format!("at(entry, {})", quoted(parents)) };
    let mut loops = String::new();
    for list in &backends.lists {
        loops.push_str(&loop_over(list, "spec", 0));
    }
    format!(
        r#"-- {kind} of {group}.
-- caps: weight,several; accept: A6
-- versions: {version}
--
-- Shifts weights. Matches and header changes are refused; nothing tells whether the gateway took a change.

local spec = obj.data.spec

local function at(value, ...)
  for _, key in ipairs({{ ... }}) do
    value = type(value) == "table" and value[key] or nil
  end
  return value
end

local function names(entry, service)
  return tidegate.names_service(at(entry, {name}) or "", service)
end

local BACKEND = {{
  is_stable = function(entry) return names(entry, obj.stableService) end,
  is_canary = function(entry) return names(entry, obj.canaryService) end,
  canary = function(entry)
    local twin = tidegate.copy(entry)
    local suffix = tidegate.host_suffix(at(entry, {name}), obj.stableService)
    {twin}[{last:?}] = obj.canaryService .. suffix
    return twin
  end,
{field}{zero}  -- A lone backend gets everything, whatever its number.
  lone = true,
}}

local function apply(weight)
  local lists = {{}}
  local function add(entries)
    if entries then lists[#lists + 1] = {{ entries = entries }} end
  end
{loops}  tidegate.split_lists(lists, weight, BACKEND, "list of backends")
end

tidegate.step("{kind}", {{
  weight = apply,
  -- What the gateway cannot express, and what to do instead.
  refuses = {{ matches = "give the step a share", requestHeaderModifier = "" }},
}})
return obj.data
"#,
        group = original.group(),
        name = quoted(&backends.name),
        twin = holder.replace("entry", "twin"),
    )
}

/// Loops that hand a list's entries to `add`.
fn loop_over(list: &[Part], from: &str, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let keys: Vec<String> = list
        .iter()
        .map_while(|part| match part {
            Part::Key(key) => Some(key.clone()),
            Part::Each => None,
        })
        .collect();
    let here = if keys.is_empty() { from.to_owned() } else { format!("at({from}, {})", quoted(&keys)) };
    let rest = list.get(keys.len() + 1..).unwrap_or_default();
    let mut text = String::new();
    if list.len() == keys.len() {
        let _ = writeln!(text, "{indent}add({here})");
    } else {
        let item = format!("item{}", if depth == 0 { String::new() } else { (depth + 1).to_string() });
        let _ = writeln!(text, "{indent}for _, {item} in ipairs({here} or {{}}) do");
        text.push_str(&loop_over(rest, &item, depth + 1));
        let _ = writeln!(text, "{indent}end");
    }
    text
}

/// A case with what the script makes of the object in some steps.
fn case(original: &Original, object: &Value, backends: &Backends, text: &str) -> Result<String, String> {
    const SHARES: [u32; 3] = [20, 50, 100];
    let engine = Engine::new(1);
    let script = Script::new("trafficRouting.lua", text, Origin::BuiltIn);
    let names = Names {
        stable_service: backends.service.clone(),
        canary_service: format!("{}-canary", backends.service),
        namespace: None,
    };
    let mut expected = Vec::new();
    for weight in SHARES {
        let strategy = Strategy { weight: Some(weight), ..Strategy::default() };
        let outcome = engine.run(&script, &script_input(original, &names, None, &strategy));
        let outcome = outcome.map_err(|e| format!("no script could be made of this object: {}", e.message))?;
        let parts = output(outcome.value).map_err(|e| e.to_string())?;
        let mut result = object.clone();
        if let Some(map) = result.as_object_mut() {
            map.insert("spec".to_owned(), parts.spec);
            map.remove("status");
        }
        expected.push(result);
    }
    let refused = ["matches; give the step a share", "requestHeaderModifier"];
    expected.extend(refused.map(|field| json!({"error": format!("{} cannot express {field}", original.kind)})));
    let mut steps: Vec<Value> = SHARES.iter().map(|w| json!({"traffic": format!("{w}%"), "replicas": 1})).collect();
    steps.push(json!({"replicas": 1, "matches": [{"headers": [{"name": "x-canary", "value": "1"}]}]}));
    let modifier = json!({"set": [{"name": "x-version", "value": "next"}]});
    steps.push(json!({"traffic": "50%", "replicas": 1, "requestHeaderModifier": modifier}));
    let reference = json!({"apiVersion": original.api_version, "kind": original.kind, "name": original.name});
    let rollout = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "demo"}, "spec": {
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": backends.service},
        "strategy": {"canary": {"steps": steps,
            "trafficRoutings": [{"service": backends.service, "networkRefs": [reference]}]}}}});
    let mut original = object.clone();
    if let Some(map) = original.as_object_mut() {
        map.remove("status");
    }
    let parts = [("rollout", rollout), ("original", original), ("expected", Value::Array(expected))];
    let texts = parts
        .into_iter()
        .map(|(key, value)| yaml::to_string(&Map::from_iter([(key.to_owned(), value)])).map_err(|e| e.to_string()));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_lists_wherever_they_are() {
        let found = |spec: Value, service: Option<&str>| {
            find(&spec, service).map(|b| {
                let lists: Vec<String> = b.lists.iter().map(|l| shown(l)).collect();
                (lists.join(" "), b.name.join("."), b.weight, b.service)
            })
        };
        let told = |a: &str, b: &str, c: &str, d: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned()));
        let http = json!({"hosts": [{"name": "a"}], "http": [{"match": [{"name": "x"}], "route": [{"destination": {"host": "app.shop"}, "weight": 5}]}],
            "tcp": [{"route": [{"destination": {"host": "app.shop"}, "weight": 1}]}]});
        assert_eq!(
            found(http.clone(), None),
            told("spec.http[].route spec.tcp[].route", "destination.host", "weight", "app")
        );
        assert_eq!(
            found(http, Some("app")),
            told("spec.http[].route spec.tcp[].route", "destination.host", "weight", "app")
        );
        let bare = json!({"rules": [{"to": [{"name": "app"}]}]});
        assert_eq!(found(bare.clone(), Some("app")), told("spec.rules[].to", "name", "weight", "app"));
        assert!(found(bare.clone(), None).unwrap_err().contains("name the Service by --service"));
        assert!(found(bare, Some("web")).unwrap_err().contains("names Service web"));
        let percent = json!({"backends": [{"serviceName": "a", "percent": 100}]});
        assert_eq!(found(percent, None), told("spec.backends", "serviceName", "percent", "a"));
    }
}
