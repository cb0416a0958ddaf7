//! What authors of scripts use beside tests: `lint`, `coverage`, `list`, `init`.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{CASE, COUNT, Place, SCRIPT, SIX, case};

#[test]
fn lint_tells_line_column_and_rule() {
    let place = Place::new(&[(SCRIPT, "total = obj.weigth\nfor k in pairs(obj) do print(os) end\nreturn obj.data\n")]);
    place.write("lua-scripts/types.d.lua", "obj = {}");
    let (code, out, err) = place.run(&["lint"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let expected = "\
lua-scripts/g.io/Thing/trafficRouting.lua:1:1: warning: `total` is a global: write `local` before it [leaked-global]
lua-scripts/g.io/Thing/trafficRouting.lua:1:9: error: `obj` has no `weigth` [undefined-field]
lua-scripts/g.io/Thing/trafficRouting.lua:2:30: error: scripts have no `os`, and this one sets none [undefined-global]
1 script: 2 errors, 1 warning
";
    assert_eq!(out, expected);
    let (_, out, _) = place.run(&["lint", "-o", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["errors"], &report["findings"][1]["column"]), (&json!(2), &json!(9)));
    assert_eq!(report["findings"][0]["level"], "warning");

    place.write(SCRIPT, "total = 1\nreturn obj.data\n");
    assert_eq!(place.run(&["lint", SCRIPT]).0, 0);
    assert_eq!(place.run(&["lint", SCRIPT, "--strict"]).0, 1);
    place.write(SCRIPT, "return obj.data end\n");
    let (code, out, _) = place.run(&["lint"]);
    assert_eq!(code, 1);
    assert!(out.contains("trafficRouting.lua:1:17: error: ") && out.contains("[syntax]"), "{out}");
    assert_eq!(place.run(&["lint", "none"]).0, 2);
}

#[test]
fn coverage_tells_what_no_case_runs() {
    let script = format!("if obj.canaryWeight > 90 then\n  error('too much')\nend\n{COUNT}");
    let place = Place::new(&[(SCRIPT, &script), (CASE, &case(SIX))]);
    let (code, out, _) = place.run(&["test", "--coverage"]);
    let tail = "lua-scripts/g.io/Thing/trafficRouting.lua: 3 of 4 lines (75.0 %), 1 of 2 branches (50.0 %)\n  \
                never run: line 2\n  never true: 1:4\n";
    assert!(code == 0 && out.ends_with(tail), "{code}\n{out}");
    let (_, out, _) = place.run(&["test", "--coverage", "-o", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["coverage"][0]["neverTrue"], json!(["1:4"]));
    let (code, _, err) = place.run(&["test", "--coverage", "-o", "junit"]);
    assert!(code == 2 && err.contains("text or JSON"), "{err}");
}

#[test]
fn list_prints_scripts_and_features() {
    let place = Place::new(&[]);
    let (code, out, err) = place.run(&["list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("OBJECT ") && !out.contains("prelude"), "{out}");
    let row = out.lines().find(|l| l.starts_with("networking.istio.io/VirtualService ")).unwrap();
    assert!(row.contains(" v1,v1beta1,v1alpha3 ") && row.contains(" A4 ") && row.contains(" weight header "), "{row}");
    let own = Place::new(&[
        (SCRIPT, "-- Things.\n-- caps: weight; accept: A6\n-- versions: v1\nreturn obj.data\n"),
        ("lua-scripts/ingress/mine.lua", "return {}\n"),
        ("lua-scripts/ingress/nginx.lua", "return {}\n"),
    ]);
    let (_, out_of_own, _) = own.run(&["list"]);
    let rows: Vec<&str> = out_of_own.lines().filter(|l| l.ends_with("(of lua-scripts)")).collect();
    assert_eq!(rows.len(), 2, "{out_of_own}");
    assert!(rows[0].starts_with("g.io/Thing ") && rows[0].contains(" A6 ") && rows[0].contains(" weight "), "{rows:?}");
    assert!(rows[1].starts_with("Ingress of class mine ") && rows[1].contains("no header"), "{rows:?}");
    let (code, out, _) = place.run(&["list", "-o", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    let row = rows.iter().find(|r| r["script"] == "networking.istio.io/DestinationRule/trafficRouting.lua").unwrap();
    assert_eq!((code, &row["accept"], row["hash"].as_str().unwrap().len()), (0, &json!("A4"), 64));
    assert!(row["features"].as_array().unwrap().contains(&json!("subset")), "{row}");
}

/// docs/gateways/features.md has the table of the scripts' headers. `BLESS=1` writes it.
#[test]
fn the_features_are_those_of_the_headers() {
    let (code, table, _) = Place::new(&[]).run(&["list", "-o", "markdown"]);
    assert_eq!(code, 0);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gateways/features.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find("| Object |").unwrap();
    let end = begin + text[begin..].find("\n\n").map_or(text[begin..].len(), |at| at + 1);
    let made = format!("{}{table}{}", &text[..begin], &text[end..]);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(text == made || std::env::var_os("BLESS").is_some(), "run BLESS=1 cargo test --test lua_cli:\n{table}");
}

/// Plays a section of docs/scripts.md to the letter: files that it names are written, commands of tidegate are run in order,
/// and print what it says.
#[test]
fn the_first_script_is_written_as_the_page_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scripts.md")).unwrap();
    let section = page.split("\n## ").find(|s| s.starts_with("Write your own in ten minutes")).unwrap();
    let place = Place::new(&[]);
    let (mut before, mut commands) = ("", 0);
    for (i, part) in section.split("```").enumerate() {
        if i % 2 == 0 {
            before = part;
            continue;
        }
        let (kind, text) = part.split_once('\n').unwrap();
        let named = before.trim_end().lines().last().unwrap_or_default();
        match kind {
            "yaml" => {
                let file = named.split('`').nth(1).unwrap();
                place.write(file, text);
            }
            "console" => {
                for command in text.split("$ ").filter(|c| c.starts_with("tidegate lua ")) {
                    let (line, expected) = command.split_once('\n').unwrap();
                    let args: Vec<&str> = line.split_whitespace().skip(2).collect();
                    let (code, out, err) = place.run(&args);
                    let known = |text: &str| {
                        let words = text.lines().map(|l| l.split(" in ").next().unwrap_or_default().to_owned());
                        words.collect::<Vec<_>>().join("\n")
                    };
                    let (found, wanted) = if line.contains(" init ") {
                        (out.clone(), expected.to_owned())
                    } else {
                        (known(&out), known(expected))
                    };
                    assert_eq!(found.trim_end(), wanted.trim_end(), "{line}\n{err}");
                    assert_eq!(code, 0, "{line}\n{err}");
                    commands += 1;
                }
            }
            // What is shown of a file that a command has written.
            "lua" => {
                let file = named.split('`').nth(1).unwrap();
                let written = fs::read_to_string(place.0.path().join(file)).unwrap();
                assert!(written.contains(text), "{file}:\n{written}");
            }
            other => panic!("a block of {other}"),
        }
    }
    assert_eq!(commands, 5);
}

#[test]
fn init_writes_over_nothing() {
    let object = "apiVersion: mesh.example.com/v1\nkind: Route\nmetadata: {name: r}\nspec:\n  to: [{host: app.shop.svc, percent: 30}, {host: web, percent: 70}]\n";
    let place = Place::new(&[
        ("r.yaml", object),
        ("bare.yaml", &object.replace(", percent: 30", "").replace(", percent: 70", "")),
    ]);
    let (code, out, err) = place.run(&["init", "--from", "r.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("Service app in spec.to, by host, share in percent\n"), "{out}");
    assert_eq!(place.run(&["test"]).0, 0);
    let case = fs::read_to_string(place.0.path().join("testcases/mesh.example.com/Route/weight.yaml")).unwrap();
    assert!(case.contains("host: app-canary.shop.svc"), "{case}");
    let (code, _, err) = place.run(&["init", "--from", "r.yaml"]);
    assert!(code == 2 && err.contains("is there already; --force"), "{err}");
    let (code, _, err) = place.run(&["init", "--from", "bare.yaml", "--force"]);
    assert!(code == 2 && err.contains("name the Service by --service"), "{err}");
    assert_eq!(place.run(&["init", "--from", "bare.yaml", "--force", "--service", "app"]).0, 0);
    assert_eq!(place.run(&["test"]).0, 0);
}
