//! Metrics that decide, with the real controller on the in-memory cluster: the story of `examples/metrics`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

#[test]
fn a_good_version_is_promoted_and_a_bad_one_rolled_back() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["demo", "metrics"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for says in [
        "success-rate: 3 of 4 measured, 0 failed; value 0.9991 is not below min 0.99",
        "1 of 4 measured, 1 failed; value 0.93 is below min 0.99",
        "AnalysisFailed",
        "value 0.93 is below min 0.99 (2 of 2 measurements failed, 1 forgiven); query: 1 -",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
}
