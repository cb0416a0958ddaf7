//! How scores are told.

use std::fmt::Write as _;

use serde_json::json;

use super::Score;

pub(super) fn text(scores: &[Score<'_>]) -> String {
    let mut out = String::new();
    for score in scores {
        for change in &score.unnoticed {
            let what = change.text(&score.script.source);
            let _ = writeln!(out, "{}:{}:{}: {what}", score.script.name, change.line, change.column);
        }
    }
    let longest = scores.iter().map(|s| s.script.name.len()).max().unwrap_or(0).max(6);
    let _ = writeln!(out, "{:longest$}  CHANGES  NOTICED  ALLOWED   SCORE", "SCRIPT");
    let row = |out: &mut String, s: &Score<'_>, name: &str| {
        let (changes, noticed, allowed, percent) = (s.changes, s.noticed, s.allowed, s.percent());
        let _ = writeln!(out, "{name:longest$}  {changes:7}  {noticed:7}  {allowed:7}  {percent:5.1} %");
    };
    for score in scores {
        row(&mut out, score, &score.script.name);
    }
    if let [first, _, ..] = scores {
        let sum = |part: fn(&Score<'_>) -> usize| scores.iter().map(part).sum();
        let (changes, noticed, allowed) = (sum(|s| s.changes), sum(|s| s.noticed), sum(|s| s.allowed));
        let all = Score { script: first.script, changes, noticed, allowed, unnoticed: Vec::new() };
        row(&mut out, &all, "all");
    }
    out
}

pub(super) fn json(scores: &[Score<'_>]) -> String {
    let scripts = scores.iter().map(|score| {
        let unnoticed = score.unnoticed.iter().map(
            |change| json!({"line": change.line, "column": change.column, "change": change.text(&score.script.source)}),
        );
        json!({
            "script": score.script.name,
            "changes": score.changes,
            "noticed": score.noticed,
            "allowed": score.allowed,
            "percent": score.percent(),
            "unnoticed": unnoticed.collect::<Vec<_>>(),
        })
    });
    format!("{:#}\n", json!({"scripts": scripts.collect::<Vec<_>>()}))
}
