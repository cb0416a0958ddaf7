//! The image of several platforms, made of programs that have a head and nothing else: what lies where, and whether each digest
//! is that of what it names. That a real one runs, read-only and without rights, is shown by the end-to-end scenario
//! `chart_life`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, clippy::disallowed_methods)]

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// An ELF header, little-endian and 64 bits, for a machine, with neither sections nor segments.
fn program(machine: u8) -> Vec<u8> {
    let mut head = vec![0; 64];
    head[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    (head[16], head[18], head[20], head[52]) = (2, machine, 1, 64);
    head
}

fn make(folder: &Path, binaries: &[&str]) -> (bool, String) {
    make_with(folder, binaries, &["--fast"])
}

fn make_with(folder: &Path, binaries: &[&str], args: &[&str]) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/image.py");
    let mut command = Command::new("python3");
    command.arg(script).args(args).arg("--ca-roots").arg(folder.join("roots.pem")).arg("--out").arg(folder.join("out"));
    for binary in binaries {
        command.arg("--binary").arg(folder.join(binary));
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn an_index_names_an_image_for_each_platform() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("roots.pem"), "roots").unwrap();
    fs::write(folder.path().join("amd64"), program(62)).unwrap();
    fs::write(folder.path().join("arm64"), program(183)).unwrap();
    fs::write(folder.path().join("other"), program(3)).unwrap();
    fs::write(folder.path().join("script"), "#!/bin/sh").unwrap();

    let (ok, said) = make(folder.path(), &["amd64", "arm64"]);
    assert!(ok && said.contains("amd64 0.0 MB compressed, arm64 0.0 MB compressed"), "{said}");
    let oci = folder.path().join("out/oci");
    let blob = |reference: &Value| -> Vec<u8> {
        let digest = reference["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let content = fs::read(oci.join("blobs/sha256").join(digest)).unwrap();
        let sum: String = Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((sum.as_str(), &reference["size"]), (digest, &content.len().into()));
        content
    };
    let json = |bytes: Vec<u8>| -> Value { serde_json::from_slice(&bytes).unwrap() };
    let top = json(fs::read(oci.join("index.json")).unwrap());
    let index = json(blob(&top["manifests"][0]));
    let platforms: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for (manifest, machine) in index["manifests"].as_array().unwrap().iter().zip([62, 183]) {
        let image = json(blob(manifest));
        let config = json(blob(&image["config"]));
        assert_eq!(config["architecture"], manifest["platform"]["architecture"]);
        assert_eq!(config["config"]["User"], "65532:65532");
        let layers = image["layers"].as_array().unwrap();
        assert_eq!(layers.len(), config["rootfs"]["diff_ids"].as_array().unwrap().len());
        let root = tempfile::tempdir().unwrap();
        for layer in layers {
            let archive = root.path().join("layer.tgz");
            fs::write(&archive, blob(layer)).unwrap();
            let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(root.path()).status().unwrap();
            assert!(unpacked.success());
        }
        assert_eq!(fs::read(root.path().join("usr/bin/tidegate")).unwrap(), program(machine));
        assert_eq!(fs::read(root.path().join("etc/ssl/certs/ca-certificates.crt")).unwrap(), b"roots");
    }

    // Of one platform there is nothing to choose from, and the same input makes the same bytes.
    assert!(make(folder.path(), &["arm64"]).0);
    let first = fs::read(folder.path().join("out/tidegate.tar")).unwrap();
    let top = json(fs::read(oci.join("index.json")).unwrap());
    assert_eq!(top["manifests"][0]["platform"]["architecture"], "arm64");
    assert!(make(folder.path(), &["arm64"]).0);
    assert!(fs::read(folder.path().join("out/tidegate.tar")).unwrap() == first);

    for (binaries, says) in [
        (&["arm64", "arm64"][..], "the same platform"),
        (&["other"], "is no program for amd64 or arm64"),
        (&["script"], "is no program for"),
        (&["gone"], "Remedy: cargo build"),
    ] {
        let (ok, said) = make(folder.path(), binaries);
        assert!(!ok && said.contains(says), "{binaries:?}: {said}");
    }
}

/// What is in it and where it comes from is told beside it, and what has grown too large is not made.
#[test]
fn what_it_is_made_of_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("roots.pem"), "roots").unwrap();
    fs::write(folder.path().join("amd64"), program(62)).unwrap();
    fs::write(folder.path().join("arm64"), program(183)).unwrap();
    let (ok, said) = make_with(folder.path(), &["amd64", "arm64"], &[]);
    assert!(ok, "{said}");
    let json = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.path().join("out").join(name)).unwrap()).unwrap()
    };
    let lock: String = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for platform in ["amd64", "arm64"] {
        let sbom = json(&format!("sbom.{platform}.cdx.json"));
        assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        assert_eq!(sbom["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
        let components = sbom["components"].as_array().unwrap();
        let has = |name: &str| components.iter().any(|c| c["name"] == *name);
        assert!(has("kube-client") && has("aws-lc-sys") && has("mlua-sys") && !has("tidegate"), "{platform}");
        // What only tests need, or another system, is not in it.
        assert!(!has("criterion") && !has("proptest") && !has("windows-sys"), "{platform}");
        for component in components {
            let text = |key: &str| component[key].as_str().unwrap().to_owned();
            assert_eq!(text("purl"), format!("pkg:cargo/{}@{}", text("name"), text("version")));
            let locked = format!("name = \"{}\"\nversion = \"{}\"\n", text("name"), text("version"));
            assert!(lock.contains(&locked), "{locked}");
        }
    }
    let provenance = json("provenance.json");
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    let index = json("oci/index.json")["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let subjects: Vec<&str> =
        provenance["subject"].as_array().unwrap().iter().map(|s| s["digest"]["sha256"].as_str().unwrap()).collect();
    // The index, and the image of each platform.
    assert_eq!(subjects.len(), 3);
    assert!(subjects.contains(&index.strip_prefix("sha256:").unwrap()), "{subjects:?} and {index}");
    assert!(subjects.iter().all(|digest| folder.path().join("out/oci/blobs/sha256").join(digest).exists()));
    let sources = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].to_string();
    let sum: String = Sha256::digest(lock.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    assert!(sources.contains("gitCommit") && sources.contains(&sum), "{sources}");

    let (ok, said) = make_with(folder.path(), &["arm64"], &["--most", "0.0001"]);
    assert!(!ok && said.contains("the image for arm64 has 0.0 MB compressed, more than 0.0001"), "{said}");
}
