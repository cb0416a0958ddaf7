//! Scripts written for gopher-lua give the same here. The table says where they do not.

use serde::Deserialize;
use serde_json::json;

use crate::run;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    /// An expression list, or a chunk that calls `show`.
    lua: String,
    /// The values joined with ` | `, as `tostring` writes them; `error: <part>` for an error.
    shows: String,
}

#[test]
fn probes() {
    let text = include_str!("../../testcases/lua/compat.yaml");
    let probes: Vec<Probe> = tidegate::yaml::from_str(text).unwrap();
    let mut wrong = Vec::new();
    for probe in &probes {
        let body = if probe.lua.contains("show(") { probe.lua.clone() } else { format!("show({})", probe.lua) };
        let source = format!(
            "local out = {{}} local function show(...) for i = 1, select('#', ...) do \
             out[#out + 1] = tostring((select(i, ...))) end end {body}\nreturn {{shown = table.concat(out, ' | ')}}"
        );
        let got = match run(&source, &json!({"list": [1, 2, 3], "map": {"a": 1}})) {
            Ok(outcome) => outcome.value["shown"].as_str().unwrap().to_owned(),
            Err(e) => format!("error: {e}"),
        };
        let right = match probe.shows.strip_prefix("error: ") {
            Some(part) => got.starts_with("error: ") && got.contains(part),
            None => got == probe.shows,
        };
        if !right {
            wrong.push(format!("{}\n  want {}\n  got  {got}", probe.lua, probe.shows));
        }
    }
    assert!(wrong.is_empty(), "{} of {} probes:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
}
