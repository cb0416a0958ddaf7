//! What the host offers to scripts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};

use crate::lua::{Engine, Origin, Script, testcase::ACCEPTED};

/// Names the globals of a fresh VM, and what the tables among them hold.
const LIST: &str = "\
local globals = {}
for name, value in pairs(_G) do
  local fields = {}
  if type(value) == 'table' and name ~= '_G' then
    for field in pairs(value) do fields[field] = true end
  end
  globals[name] = json.object(fields)
end
return globals";

/// What editors are told of `obj`.
const TYPES: &str = include_str!("../../../../lua-scripts/tidegate.d.lua");

/// Globals, and the fields of those that are tables of known fields.
#[derive(Clone)]
pub(super) struct Host(BTreeMap<String, BTreeSet<String>>);

impl Host {
    /// Asks the engine itself.
    pub fn of(engine: &Engine) -> Result<Self, String> {
        let script = Script::new("globals", LIST, Origin::BuiltIn);
        let outcome = engine.run(&script, &json!({})).map_err(|e| e.to_string())?;
        let Value::Object(globals) = outcome.value else { return Err("the engine has no globals".to_owned()) };
        let fields = |value: &Value| value.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect();
        let mut globals: BTreeMap<String, BTreeSet<String>> =
            globals.iter().map(|(name, value)| (name.clone(), fields(value))).collect();
        globals.insert("obj".to_owned(), fields_of("tidegate.Input"));
        Ok(Self(globals))
    }

    /// What a script finds: one that reads a status is given another `obj`.
    pub fn seen_by(&self, script: &Script) -> Host {
        let mut host = self.clone();
        if Path::new(&script.name).file_name().is_some_and(|name| name == ACCEPTED) {
            host.0.insert("obj".to_owned(), fields_of("tidegate.Reported"));
        }
        host
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The fields of a global, when it is a table of known ones.
    pub fn fields(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.0.get(name).filter(|fields| !fields.is_empty())
    }
}

fn fields_of(class: &str) -> BTreeSet<String> {
    let class = TYPES.lines().skip_while(|line| line.strip_prefix("---@class ") != Some(class));
    let fields = class.skip(1).map_while(|line| line.strip_prefix("---@field "));
    fields.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_scripts_find() {
        let host = Host::of(&Engine::new(1)).unwrap();
        for name in ["obj", "tidegate", "json", "string", "print", "_G"] {
            assert!(host.has(name), "{name}");
        }
        assert!(!host.has("os") && !host.has("globals"));
        let has = |name, field| host.fields(name).is_some_and(|f| f.contains(field));
        for (name, field) in [("table", "insert"), ("tidegate", "split"), ("obj", "data"), ("obj", "canaryWeight")] {
            assert!(has(name, field), "{name}.{field}");
        }
        assert!(!has("table", "move") && !has("obj", "weigth"));
        assert_eq!(host.fields("_G"), None);
        let script = |name: &str| Script::new(name, "", Origin::BuiltIn);
        let sees =
            |name: &str, field: &str| host.seen_by(&script(name)).fields("obj").is_some_and(|f| f.contains(field));
        assert!(sees("a/accepted.lua", "status") && !sees("a/accepted.lua", "data"));
        assert!(sees("a/trafficRouting.lua", "data") && !sees("a/trafficRouting.lua", "status"));
    }
}
