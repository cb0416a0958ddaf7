//! What is looked for in a script.

use std::path::Path;

use full_moon::tokenizer::Position;
use serde::Serialize;

use super::{flow::Flow, host::Host, schema::Schemas, walk::Walk};
use crate::lua::{Caps, Engine, Script, testcase::ACCEPTED};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It does not run, or not as it is meant.
    Error,
    /// It may be meant.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    /// From 1.
    pub line: usize,
    /// From 1, in characters; absent where not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    pub level: Level,
    pub rule: &'static str,
    pub message: String,
}

/// Everything found in a script, in the order of its lines.
pub(super) fn check(engine: &Engine, host: &Host, schemas: &Schemas, script: &Script) -> Vec<Finding> {
    let host = &host.seen_by(script);
    let mut found: Vec<Finding> = Vec::new();
    if let Err(message) = Caps::parse(&script.source) {
        found.push(Finding { line: 1, column: None, level: Level::Error, rule: "header", message });
    }
    let refused = engine.check(script).err();
    match (full_moon::parse(&script.source), refused) {
        (Ok(ast), None) => {
            walk(&Walk::of(&ast), host, &mut found);
            let reads_status = Path::new(&script.name).file_name().is_some_and(|name| name == ACCEPTED);
            let mistakes = Flow::mistakes(&ast, schemas.of(script), reads_status);
            found.extend(mistakes.into_iter().map(|mistake| {
                let ((line, column), message) = (mistake.at, mistake.message);
                Finding { line, column: Some(column), level: Level::Warning, rule: mistake.rule, message }
            }));
        }
        (parsed, Some(refused)) => {
            let line = refused.line.map_or(1, |line| line as usize);
            let places = parsed.err().into_iter().flatten().map(|e| e.range().0);
            let column = places.filter(|at| at.line() == line).map(Position::character).min();
            found.push(Finding { line, column, level: Level::Error, rule: "syntax", message: refused.message });
        }
        (Err(errors), None) => {
            // The engine takes some of what only gopher-lua takes, such as a statement that is a mere semicolon.
            let at = errors.first().map(|e| e.range().0);
            let message = "it runs, but cannot be looked into from here on".to_owned();
            let (line, column) = at.map_or((1, None), |at| (at.line(), Some(at.character())));
            found.push(Finding { line, column, level: Level::Warning, rule: "unreadable", message });
        }
    }
    found.retain(|finding| !is_allowed(&script.source, finding));
    found.sort();
    found
}

fn walk(walk: &Walk, host: &Host, found: &mut Vec<Finding>) {
    let mut add = |at: Position, level, rule, message| {
        found.push(Finding { line: at.line(), column: Some(at.character()), level, rule, message });
    };
    let writes = &walk.scopes.writes;
    for used in &walk.scopes.reads {
        let name = &used.name;
        if writes.contains_key(name) {
            continue;
        }
        if !host.has(name) {
            add(used.at, Level::Error, "undefined-global", format!("scripts have no `{name}`, and this one sets none"));
        } else if let (Some(field), Some(fields)) = (&used.field, host.fields(name))
            && !fields.contains(field)
            && !writes.contains_key(&format!("{name}.{field}"))
        {
            add(used.at, Level::Error, "undefined-field", format!("`{name}` has no `{field}`"));
        }
    }
    for (name, at) in writes {
        let root = name.split('.').next().unwrap_or(name);
        if root != name.as_str() {
            // The input is there to be changed; and so is what the script itself made.
            if root != "obj" && host.fields(root).is_some() && !writes.contains_key(root) {
                add(*at, Level::Warning, "changed-global", format!("`{name}` of the host is set"));
            }
        } else if host.has(name) {
            add(*at, Level::Warning, "changed-global", format!("`{name}` of the host is set: use another name"));
        } else {
            add(*at, Level::Warning, "leaked-global", format!("`{name}` is a global: write `local` before it"));
        }
    }
    for growth in &walk.growths {
        let is_sorted = walk.sorted.iter().any(|(place, at)| *place == growth.place && at.bytes() > growth.at.bytes());
        if !is_sorted {
            let what = if growth.is_text { "text" } else { "list" };
            let message = format!(
                "`{}` grows in the order of `pairs`, which says nothing: sort the keys first, or the {what} afterwards",
                growth.place.1
            );
            add(growth.at, Level::Warning, "pairs-order", message);
        }
    }
}

/// Whether a comment `-- lint: allow RULE` is on the line or on the one before.
fn is_allowed(source: &str, finding: &Finding) -> bool {
    let first = finding.line.saturating_sub(2);
    let lines = source.lines().skip(first).take(finding.line - first);
    let said = lines.filter_map(|line| line.split_once("-- lint: allow ")).map(|(_, rest)| rest);
    said.flat_map(|rest| rest.split_whitespace().next()).any(|rule| rule.trim_end_matches(':') == finding.rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::{Library, Origin};

    fn findings(source: &str) -> Vec<String> {
        let engine = Engine::new(1);
        let host = Host::of(&engine).unwrap();
        let schemas = Schemas::read(Path::new("testcases/schemas")).unwrap();
        let script = Script::new("lua-scripts/projectcontour.io/HTTPProxy/trafficRouting.lua", source, Origin::BuiltIn);
        let found = check(&engine, &host, &schemas, &script);
        let place = |f: &Finding| f.column.map_or_else(|| f.line.to_string(), |c| format!("{}:{c}", f.line));
        found.iter().map(|f| format!("{} {}", place(f), f.rule)).collect()
    }

    #[test]
    fn each_rule_with_its_place() {
        let table: [(&str, &[&str]); 31] = [
            ("local a = 1\nlocal b = = 2", &["2:9 syntax"]),
            ("if a then", &["1:10 syntax"]),
            ("return os.time()", &["1:8 undefined-global"]),
            ("local x = y\nlocal y = x", &["1:11 undefined-global"]),
            ("local x = x", &["1:11 undefined-global"]),
            ("for i = 1, i do end", &["1:12 undefined-global"]),
            ("for k in pairs(k) do end", &["1:16 undefined-global"]),
            ("repeat local done = true until done", &[]),
            ("do local a = 1 end return a", &["1:27 undefined-global"]),
            ("return function(a, ...) return a, ... end", &[]),
            ("local function f() return f end", &[]),
            ("local f = function() return f end", &["1:29 undefined-global"]),
            ("function f() return f() end", &["1:10 leaked-global"]),
            ("x = 1\nx = x + 1", &["1:1 leaked-global"]),
            ("table = {}", &["1:1 changed-global"]),
            ("function table.copy(t) return t end\nreturn table.copy(obj)", &["1:10 changed-global"]),
            ("return table.move", &["1:8 undefined-field"]),
            ("return obj.weigth", &["1:8 undefined-field"]),
            ("return obj['weigth']", &["1:8 undefined-field"]),
            ("obj.data.spec.anything = 1 return obj.data", &[]),
            ("local table = { own = 1 } return table.own", &[]),
            ("local l = {} for k in pairs(obj) do l[#l + 1] = k end", &["1:37 pairs-order"]),
            ("local l = {} for k in next, obj do table.insert(l, k) end", &["1:36 pairs-order"]),
            ("local l = {} for k in pairs(obj) do table.insert(l, k) end table.sort(l)", &[]),
            (
                "local insert, p = table.insert, pairs local l = {} for k in p(obj) do insert(l, k) end",
                &["1:71 pairs-order"],
            ),
            ("local s = '' for k in pairs(obj) do s = s .. ',' .. k end", &["1:37 pairs-order"]),
            ("local s = '' for k in pairs(obj) do s ..= k end", &["1:37 pairs-order"]),
            ("for k, v in pairs(obj) do local l = {} for _, w in ipairs(v) do l[#l + 1] = w end end", &[]),
            ("local l = {} for _, v in ipairs(obj) do l[#l + 1] = v end", &[]),
            ("local l = {}\nfor k in pairs(obj) do\n  -- lint: allow pairs-order: a set\n  l[#l + 1] = k\nend", &[]),
            ("-- caps: nonsense; accept: A1\n-- versions: v1\nreturn obj.data", &["1 header"]),
        ];
        for (source, expected) in table {
            assert_eq!(findings(source), expected, "{source}");
        }
    }

    #[test]
    fn values_are_followed_to_the_schema_and_to_the_step() {
        let table: [(&str, &[&str]); 28] = [
            ("return obj.data.spec.rotes", &["1:22 unknown-field"]),
            ("return obj.data.spec['rotes']", &["1:22 unknown-field"]),
            ("local spec = obj.data.spec\nreturn spec.routes[1].servces", &["2:23 unknown-field"]),
            (
                "local spec = obj.data.spec\nfor _, r in ipairs(spec.routes or {}) do\n  r.servces = 1\nend",
                &["3:5 unknown-field"],
            ),
            ("for _, s in ipairs(obj.data.spec.routes[1].services) do s.wieght = 1 end", &["1:59 unknown-field"]),
            ("local function f(s) s.wieght = 1 end\nf(obj.data.spec.routes[1].services[1])", &["1:23 unknown-field"]),
            ("local function f() return obj.data.spec.routes[1] end\nreturn f().servces", &["2:12 unknown-field"]),
            ("local r = tidegate.copy(obj.data.spec.routes[1])\nr.servces = {}", &["2:3 unknown-field"]),
            ("table.insert(obj.data.spec.routes, { servces = {} })", &["1:38 unknown-field"]),
            ("local l = obj.data.spec.routes\nl[#l + 1] = { services = { { wieght = 1 } } }", &["2:30 unknown-field"]),
            ("local new = { servces = {} }\ntable.insert(obj.data.spec.routes, new)", &["1:15 unknown-field"]),
            ("obj.data.spec.routes[1].services[1] = { name = 'a', port = 1, wieght = 2 }", &["1:63 unknown-field"]),
            ("return { spec = { rotes = {} }, labels = {} }", &["1:19 unknown-field"]),
            // What a part keeps as it is may be anything, and so may what is not known.
            ("return obj.data.spec.virtualhost.anything", &[]),
            ("return obj.data.metadata.anything, obj.data.labels.anything", &[]),
            ("local function f(s) s.wieght = 1 end\nf(obj.data.spec.routes[1])\nf({})", &[]),
            ("local s = obj.data.spec\nif s.routes then s = { rotes = 1 } end\nreturn s.rotes", &[]),
            ("local spec = obj.data.spec\nspec.routes = spec.routes or {}\nspec.routes[1].services = {}", &[]),
            ("obj.matches[1].headers = nil", &["1:1 shared-input"]),
            ("for _, m in ipairs(obj.matches) do m.path = nil end", &["1:36 shared-input"]),
            ("for _, m in ipairs(tidegate.matches()) do table.remove(m.headers, 1) end", &["1:56 shared-input"]),
            ("local insert = table.insert\ninsert(obj.requestHeaderModifier.set, {})", &["2:8 shared-input"]),
            ("local m = tidegate.copy(obj.matches[1])\nm.headers = nil", &[]),
            ("obj.matches = nil", &[]),
            ("local rule = {}\nrule.headers = obj.matches[1].headers", &[]),
            ("local l = obj.data.spec.routes\nfor _, r in ipairs(l) do table.insert(l, r) end", &["2:42 shared-input"]),
            ("local l = obj.data.spec.routes\ntable.insert(l, tidegate.copy(l[1]))", &[]),
            ("local l, o = obj.data.spec.routes, {}\nfor _, r in ipairs(l) do table.insert(o, r) end", &[]),
        ];
        for (source, expected) in table {
            assert_eq!(findings(source), expected, "{source}");
        }
    }

    #[test]
    fn built_in_scripts_are_clean() {
        let engine = Engine::new(1);
        let host = Host::of(&engine).unwrap();
        let schemas = Schemas::read(Path::new("testcases/schemas")).unwrap();
        for script in Library::list().iter().chain(&Library::shared()) {
            assert_eq!(check(&engine, &host, &schemas, script), [], "{}", script.name);
        }
    }
}
