//! Objects and steps that nobody writes by hand, through every built-in script: a right answer or a clear error, within the
//! budgets.

use serde_json::{Value, json};
use tidegate::{
    api::v1beta1::{HeaderMatch, HttpRouteMatch},
    lua::{
        Engine, ErrorKind, Library, Outcome, ScriptError,
        testcase::{AnyCase, Case, ScriptSource, discover},
    },
    traffic::{Original, Strategy},
};

use crate::engine;

/// A case of every kind and of every class of Ingresses, with its script.
fn subjects() -> Vec<(Case, tidegate::lua::Script)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let scripts = ScriptSource::under(root);
    let mut found: Vec<(Case, tidegate::lua::Script)> = Vec::new();
    for target in Library::list().iter().map(|script| script.name.trim_end_matches(".lua").to_owned()) {
        let target = target.trim_end_matches("/trafficRouting");
        let folder = root.join("testcases").join(target);
        let cases = discover(&[folder], false).unwrap().cases;
        let case = cases.iter().filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("weight"));
        let case = case.chain(&cases).find_map(|path| match AnyCase::read(path).unwrap() {
            AnyCase::Route(case) => Some(case),
            AnyCase::Status(_) => None,
        });
        let case = *case.unwrap();
        let script = scripts.script(&case).unwrap();
        found.push((case, script));
    }
    assert!(found.len() >= 26, "{}", found.len());
    found
}

fn run(
    engine: &Engine,
    case: &Case,
    script: &tidegate::lua::Script,
    change: impl Fn(&mut Original),
    step: &Strategy,
) -> Result<Outcome, ScriptError> {
    let mut original = case.original.clone();
    change(&mut original);
    engine.run(script, &case.plan.input(&original, script, step))
}

fn weight() -> Strategy {
    Strategy { weight: Some(20), ..Strategy::default() }
}

/// One line that names the object or the limit, and not the engine's inside.
fn is_clear(error: &ScriptError) -> bool {
    matches!(error.kind, ErrorKind::Runtime | ErrorKind::Input | ErrorKind::Output)
        && error.message.len() <= 4096
        && error.to_string().lines().count() == 1
        && !error.message.contains("attempt to")
}

fn header(i: usize) -> HeaderMatch {
    HeaderMatch { name: format!("x-{i}"), value: "1".to_owned(), ..HeaderMatch::default() }
}

#[test]
fn ten_thousand_headers_in_a_match() {
    let engine = engine(|_| ());
    let one = HttpRouteMatch { headers: (0..10_000).map(header).collect(), ..HttpRouteMatch::default() };
    let many = (0..10_000).map(|i| HttpRouteMatch { headers: vec![header(i)], ..HttpRouteMatch::default() }).collect();
    for matches in [vec![one], many] {
        let step = Strategy { matches, ..Strategy::default() };
        for (case, script) in subjects() {
            match run(&engine, &case, &script, |_| (), &step) {
                // A class's script returns annotations.
                Ok(outcome) => assert!(outcome.value.is_object(), "{}", script.name),
                Err(error) => assert!(is_clear(&error), "{}: {:?}: {error}", script.name, error.kind),
            }
        }
    }
}

#[test]
fn an_object_of_five_megabytes() {
    let engine = engine(|_| ());
    for (case, script) in subjects() {
        let huge = |original: &mut Original| original.spec["note"] = json!("x".repeat(5 << 20));
        let error = run(&engine, &case, &script, huge, &weight()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Input, "{}: {error}", script.name);
        assert!(is_clear(&error), "{}: {error}", script.name);
    }
}

#[test]
fn nesting_of_two_hundred() {
    let engine = engine(|_| ());
    for (case, script) in subjects() {
        let deep = |original: &mut Original| original.spec["note"] = (0..200).fold(json!(1), |inner, _| json!([inner]));
        let error = run(&engine, &case, &script, deep, &weight()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Input, "{}: {error}", script.name);
        assert!(is_clear(&error), "{}: {error}", script.name);
    }
}

/// Keys that paths or code could take for something else, and texts that are not ASCII, come back as they were.
#[test]
fn strange_keys_and_texts_stay() {
    let engine = engine(|_| ());
    let strange = json!({"a.b/c": 1, "": [], "0": {}, "~1": null, "obj": "x", "\u{0}": "\u{10ffff}", "é\u{301}": "\u{fffd}\n\u{1}"});
    for (case, script) in subjects() {
        let with = |original: &mut Original| {
            original.spec["note"] = strange.clone();
            original.annotations.insert("example.com/a.b".to_owned(), "\u{2028}é".to_owned());
        };
        let plain = run(&engine, &case, &script, |_| (), &weight());
        let outcome = run(&engine, &case, &script, with, &weight());
        let (Ok(_), Ok(outcome)) = (&plain, &outcome) else {
            assert_eq!(plain.is_ok(), outcome.is_ok(), "{}", script.name);
            continue;
        };
        let annotations = if case.plan.makes_canary_ingress(&case.original, &script) {
            &outcome.value
        } else {
            assert_eq!(outcome.value["spec"]["note"], strange, "{}", script.name);
            &outcome.value["annotations"]
        };
        assert_eq!(annotations["example.com/a.b"], Value::from("\u{2028}é"), "{}", script.name);
    }
}

/// JSON has no invalid UTF-8; a script can make some.
#[test]
fn invalid_utf_8_is_refused_by_place() {
    for (source, place) in [
        ("obj.data.spec = { hosts = { ('é'):sub(1, 1) } } return obj.data", "spec.hosts[0]"),
        ("obj.data.spec = { ['\\255'] = 1 } return obj.data", "spec"),
        ("obj.data.annotations = { a = '\\192\\128' } return obj.data", "annotations"),
    ] {
        let error = crate::run(source, &json!({"data": {"spec": {}}})).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Output, "{error}");
        assert!(error.message.contains("UTF-8") && error.message.contains(place), "{error}");
    }
}
