//! Files that are made from the code are what the code makes. `BLESS=1 cargo test --test generated` writes them anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{fs, path::Path};

use tidegate::cli::{crd, generated::File, policy, rbac, webhooks};

/// Compares a folder's generated files with what is kept, and makes sure that no stale one is left.
fn compare(dir: &str, files: &[File], is_generated: impl Fn(&str) -> bool) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(&dir).unwrap();
        for file in files {
            fs::write(dir.join(&file.name), &file.text).unwrap();
        }
    }
    for file in files {
        let kept = fs::read_to_string(dir.join(&file.name)).unwrap_or_default();
        assert!(
            kept == file.text,
            "{} is not what the code makes of it; run `make bless`:\n{}",
            file.name,
            similar::TextDiff::from_lines(&kept, &file.text).unified_diff().header("kept", "made")
        );
    }
    let mut stale: Vec<String> =
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    stale.retain(|name| is_generated(name) && !files.iter().any(|f| f.name == *name));
    assert!(stale.is_empty(), "nothing makes {stale:?} in {}", dir.display());
}

#[test]
fn crds() {
    let files = crd::files().unwrap();
    compare("crds", &files, |_| true);
    // A template of the chart reads them, so that an upgrade reaches them and an uninstall does not.
    compare("charts/tidegate/files/crds", &files, |_| true);
}

/// `kubectl apply` keeps what was applied in an annotation, and annotations have 256 KiB at most. Below that, so that the
/// next field does not have to be the one that is in nobody's room.
#[test]
fn a_definition_can_be_applied_from_a_client() {
    const MOST: usize = 230_000;
    for definition in tidegate::api::crd::all().unwrap() {
        let (name, size) = (tidegate::api::crd::file_name(&definition), definition.to_string().len());
        eprintln!("{name}: {size} bytes as JSON");
        assert!(size < MOST, "{name} has {size} bytes as JSON, more than {MOST}: shorten what it says");
    }
}

#[test]
fn chart() {
    let mut files = webhooks::chart_files().unwrap();
    files.push(policy::chart_file().unwrap());
    files.extend(rbac::chart_files().unwrap());
    compare("charts/tidegate/templates", &files, |_| false);
}
