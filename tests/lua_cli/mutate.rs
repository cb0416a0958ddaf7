//! `tidegate lua mutate`.

use serde_json::{Value, json};

use crate::{CASE, COUNT, Place, SCRIPT, SEVEN, SIX, case};

const MUTATED: &str = "\
local data = obj.data
if obj.canaryWeight > 0 then
  data.spec.size = data.spec.size + obj.canaryWeight
end
return data
";

#[test]
fn mutate_lists_what_no_case_notices() {
    let place = Place::new(&[(SCRIPT, MUTATED), (CASE, &case(SIX))]);
    let (code, out, err) = place.run(&["mutate"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let expected = "\
lua-scripts/g.io/Thing/trafficRouting.lua:2:21: `>` → `>=`
lua-scripts/g.io/Thing/trafficRouting.lua:2:23: `0` → `1`
SCRIPT                                     CHANGES  NOTICED  ALLOWED   SCORE
lua-scripts/g.io/Thing/trafficRouting.lua       13       11        0   84.6 %
";
    assert_eq!(out, expected);
    assert_eq!(place.run(&["mutate", "--jobs", "1"]).1, expected, "the same whatever runs beside it");

    let (code, _, err) = place.run(&["mutate", "--least", "90"]);
    assert_eq!((code, err.as_str()), (1, "error: lua-scripts/g.io/Thing/trafficRouting.lua: 84.6 % is below 90 %\n"));
    let (code, out, _) = place.run(&["mutate", SCRIPT, "--least", "84", "-o", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["scripts"][0]["noticed"]), (0, &json!(11)));
    assert_eq!(report["scripts"][0]["unnoticed"][1], json!({"line": 2, "column": 23, "change": "`0` → `1`"}));
}

#[test]
fn mutate_takes_excuses_with_a_reason() {
    const ALLOW: &str = "lua-scripts/mutate-allow.yaml";
    let entry = |change: &str, reason: &str| {
        format!(
            "- script: g.io/Thing/trafficRouting.lua\n  line: if obj.canaryWeight > 0 then\n  change: '{change}'\n  reason: '{reason}'\n"
        )
    };
    let place = Place::new(&[(SCRIPT, MUTATED), (CASE, &case(SIX)), (ALLOW, &entry("`>` → `>=`", "adding 0"))]);
    let (code, out, err) = place.run(&["mutate", "--least", "90"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(!out.contains(":2:21:") && out.contains(":2:23:"), "{out}");
    assert!(out.contains("     13       11        1   91.7 %\n"), "{out}");

    place.write(ALLOW, &entry("`>` → `<=`", "out of date"));
    let (code, _, err) = place.run(&["mutate"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("change `>` → `<=`: there is no such change, or a case notices it; remove the entry"),
        "{err}"
    );
    place.write(ALLOW, &entry("`>` → `>=`", " "));
    let (code, _, err) = place.run(&["mutate"]);
    assert_eq!(code, 2);
    assert!(err.contains("the reason is empty"), "{err}");
}

#[test]
fn mutate_changes_the_prelude() {
    let place = Place::new(&[
        (SCRIPT, "if tidegate.is_empty({}) then error('empty') end\nreturn obj.data\n"),
        (CASE, &case("{apiVersion: g.io/v1, kind: Thing, spec: {keep: [], size: 1}}")),
        ("lua-scripts/prelude/object.lua", "error('broken')\n"),
    ]);
    let (code, _, err) = place.run(&["mutate", "lua-scripts/prelude/object.lua"]);
    assert_eq!(code, 1);
    assert!(err.contains("fail without any change") && err.contains(CASE), "{err}");
    place.write(
        "lua-scripts/prelude/object.lua",
        "local tidegate = ...\nfunction tidegate.is_empty(t) return t == nil or #t == 1 end\nfunction tidegate.unused() return 1 end\n",
    );
    let (code, out, err) = place.run(&["mutate", "lua-scripts/prelude/object.lua"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("object.lua:3:35: `1` → `2`\n") && !out.contains("`==`"), "{out}");
}

#[test]
fn mutate_needs_passing_cases() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SEVEN))]);
    let (code, out, err) = place.run(&["mutate"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("these cases fail without any change") && err.contains(CASE), "{err}");
    let place = Place::new(&[(SCRIPT, COUNT), ("testcases/none", "")]);
    let (code, _, err) = place.run(&["mutate"]);
    assert_eq!(code, 2);
    assert!(err.contains("no case in testcases is of lua-scripts/g.io/Thing/trafficRouting.lua"), "{err}");
}
