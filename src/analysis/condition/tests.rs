use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn several(values: &[f64]) -> Answer {
    Answer::Several { count: values.len(), values: values.to_vec() }
}

#[test]
fn holds_or_does_not() {
    let (yes, no, unclear) = (Finding::Passed, Finding::Failed, Finding::Inconclusive);
    for (text, answer, wanted) in [
        ("value < 0.01", Answer::Value(0.005), yes),
        ("value < 0.01", Answer::Value(0.01), no),
        ("value < 0.01 || value == 1.0", Answer::Value(1.0), yes),
        // A whole number is a number.
        ("value >= 1 && value < 3", Answer::Value(2.5), yes),
        ("value == 'good' || value.startsWith('fair')", Answer::Text("fairly".into()), yes),
        ("value == 'good'", Answer::Text("bad".into()), no),
        ("value == 'good'", Answer::Value(1.0), no),
        ("value > 0.5", Answer::Text("bad".into()), unclear),
        ("values.all(v, v < 0.5)", several(&[0.1, 0.2]), yes),
        ("values.all(v, v < 0.5)", several(&[0.1, f64::NAN, 0.7]), no),
        ("values.filter(v, v > 0.5).size() <= 1", several(&[0.1, 0.6]), yes),
        ("size(values) >= 3", several(&[0.1, 0.2]), no),
        ("values[5] < 1.0", several(&[0.1, 0.2]), unclear),
        ("values.exists(v, v > 0.0) ? value < 1.0 : true", Answer::Value(0.5), yes),
        ("values.all(v, v < 0.5)", Answer::Value(0.1), yes),
    ] {
        let found = Condition::parse(text).unwrap().assess(&answer).unwrap();
        assert_eq!(found.0, wanted, "{text} of {answer:?}: {}", found.1);
    }
    let one = Condition::parse("value < 1.0").unwrap();
    for other in [several(&[1.0, 2.0]), Answer::Empty, Answer::Value(f64::NAN), Answer::Value(f64::INFINITY)] {
        assert_eq!(one.assess(&other), None, "{other:?}");
    }
    let all = Condition::parse("values.all(v, v < 1.0)").unwrap();
    assert_eq!(all.assess(&Answer::Several { count: 101, values: vec![0.0; 100] }), None, "not all are known");
    assert_eq!(all.assess(&several(&[f64::NAN, f64::NAN])), None, "nothing was counted");
    let said = all.assess(&several(&[0.0, 0.1, 0.2, 0.3, 0.4, 9.5])).unwrap().1;
    assert_eq!(said, "values 0, 0.1, 0.2, 0.3, 0.4, … (6 in all): values.all(v, v < 1.0) does not hold");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, says) in [
        ("value <", "`value <` is no condition at character 8: "),
        ("value < 0.5 &&\n  vlue > 1.0", "at character 18: vlue is not known; there are value and values"),
        ("value + 1.0", "it is a float instead of true or false"),
        ("value > 'a' && value > 1.0 && false", ""),
        ("values.all(v, values.all(w, w < v))", "a loop within a loop"),
        ("value.x", "no fields"),
        ("{1: 2} == {}", "no map"),
        ("matches(value, '.*')", "there is no function matches"),
        ("value > true", "overload"),
        ("", "is no condition"),
        ("true ? 1 : 2", "instead of true or false"),
    ] {
        match Condition::parse(text) {
            Err(why) => assert!(why.contains(says), "{text}: {why}"),
            Ok(_) => assert!(says.is_empty(), "{text} is taken"),
        }
    }
}

/// The worst that fits: the stack of a small thread must do, and so must a moment.
#[test]
fn is_bounded() {
    let worst = [
        format!("value{} > 0.0", " + 1".repeat(200)),
        format!("value{} > 0.0", " + 1".repeat(90)),
        format!("{}true", "!".repeat(300)),
        format!("{}true", "!".repeat(99)),
        format!("{}value > 0.0{}", "(".repeat(200), ")".repeat(200)),
        format!("{}true{}", "(".repeat(DEEPEST), ")".repeat(DEEPEST)),
        "true ? ".repeat(60),
        format!("{}true", "true ? true : ".repeat(33)),
        format!("{}true{}", "true ? true : ".repeat(MOST_CHOICES), ""),
        format!("{}true{}", "(true ? true : ".repeat(MOST_CHOICES), ")".repeat(MOST_CHOICES)),
        format!("{}values.all(v, -(v + 0.1) < 0.5 || !(v > 0.5)){}", "(!".repeat(DEEPEST - 3), ")".repeat(DEEPEST - 3)),
        format!("true{}", " && true".repeat(48)),
        format!("values.all(v, true{})", " && v < 0.9".repeat(30)),
        format!("values.map(v, [{}]).size() > 0", "v,".repeat(80)),
        "a".repeat(512),
        "'".repeat(99),
    ];
    let values: Vec<f64> = vec![0.5; SERIES];
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(move || {
            for text in worst {
                let begun = Instant::now();
                if let Ok(condition) = Condition::parse(&text) {
                    condition.assess(&Answer::Several { count: SERIES, values: values.clone() });
                    condition.assess(&Answer::Value(0.5));
                }
                // Milliseconds; the bound is for a busy machine.
                assert!(begun.elapsed().as_secs() < 10, "{text}: {:?}", begun.elapsed());
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn reads_anything(text in r#"(value|values|v|all|map|\(|\)|\[|\]|\.|,|<|>|==|&&|\|\||!|-|\+|/|%|\?|:|0|1\.5|9223372036854775807|'|"|\\|[a-z]| |ü){0,16}"#) {
        if let Ok(condition) = Condition::parse(&text) {
            condition.assess(&Answer::Value(0.0));
            condition.assess(&Answer::Text("a".into()));
            condition.assess(&Answer::Several { count: 2, values: vec![0.0, -1.0] });
        }
    }
}
