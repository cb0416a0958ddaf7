#!/usr/bin/env python3
"""Makes an OCI image of the binary without a container engine: the binary, the libraries that it is linked to, CA roots and
a user without rights. The same input makes the same bytes.

    image.py --binary target/release/tidegate --out target/image

FOLDER/oci              an OCI image layout, for skopeo, crane, podman (`podman pull oci:FOLDER/oci`) ...
FOLDER/tidegate.tar     the same as one file
FOLDER/sbom.cdx.json    what is in it (CycloneDX 1.5): crates, system packages
FOLDER/provenance.json  of what commit and by what it was made (in-toto, SLSA provenance 1)

`--rootfs FOLDER` writes the root file system alone, for a Containerfile.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
USER = 65532
CA_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def fail(message):
    sys.exit(f"hack/image.py: {message}")


def run(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        fail(f"'{command[0]}' is missing. Remedy: install it.")
    except subprocess.CalledProcessError as error:
        fail(f"{' '.join(map(str, command))} failed:\n{error.stderr}")


def libraries(binary):
    """The shared libraries of a binary and its loader, as absolute paths."""
    paths = re.findall(r"(?:=> )?(/\S+) \(0x", run("ldd", binary))
    if "not found" in run("ldd", binary):
        fail(f"{binary} needs libraries that are not here; `ldd {binary}` names them.")
    return sorted(set(paths))


def system(binary):
    """Everything but the binary: path -> content."""
    if not os.path.exists(CA_ROOTS):
        fail(f"{CA_ROOTS} is missing. Remedy: install ca-certificates.")
    files = {path: pathlib.Path(path).resolve().read_bytes() for path in [*libraries(binary), CA_ROOTS]}
    files["/etc/passwd"] = f"root:x:0:0::/:/nowhere\nnonroot:x:{USER}:{USER}::/:/nowhere\n".encode()
    files["/etc/group"] = f"root:x:0:\nnonroot:x:{USER}:\n".encode()
    files["/etc/nsswitch.conf"] = b"hosts: files dns\n"
    return files


def mode_of(path):
    is_program = "/lib" in path or path.startswith("/usr/bin/")
    return 0o755 if is_program else 0o644


def layer(files, level):
    """A gzipped tar of files, and the digest of the tar."""
    folders = {str(parent) for path in files for parent in pathlib.PurePosixPath(path).parents} - {"/"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folders | set(files)):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mtime = 0
            if path in files:
                entry.size, entry.mode = len(files[path]), mode_of(path)
                tar.addfile(entry, io.BytesIO(files[path]))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
    raw = buffer.getvalue()
    return gzip.compress(raw, compresslevel=level, mtime=0), hashlib.sha256(raw).hexdigest()


class Layout:
    """An OCI image layout."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, content, media_type, **more):
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def add_json(self, value, media_type, **more):
        return self.add(json.dumps(value, sort_keys=True).encode(), media_type, **more)


def crates():
    """The crates that are linked into the binary."""
    triple = next(l.split()[1] for l in run("rustc", "-vV").splitlines() if l.startswith("host:"))
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", triple,
                              "--manifest-path", ROOT / "Cargo.toml"))
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    seen, wait = set(), [metadata["resolve"]["root"]]
    while wait:
        crate = wait.pop()
        if crate not in seen:
            seen.add(crate)
            wait += [d["pkg"] for d in nodes[crate]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
    return sorted((p for p in metadata["packages"] if p["id"] in seen), key=lambda p: (p["name"], p["version"]))


def packages(paths):
    """The system packages that files come from, where there is a dpkg."""
    if not shutil.which("dpkg-query"):
        return []
    found = set()
    for path in paths:
        for candidate in {path, str(pathlib.Path(path).resolve()), "/usr" + path}:
            answer = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True)
            if answer.returncode == 0:
                found.add(answer.stdout.split(":")[0])
                break
    return [tuple(run("dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}", name).split()) for name in sorted(found)]


def sbom(version, files):
    components = [
        {"type": "library", "name": c["name"], "version": c["version"], "purl": f"pkg:cargo/{c['name']}@{c['version']}",
         **({"licenses": [{"expression": c["license"].replace("/", " OR ")}]} if c["license"] else {})}
        for c in crates() if c["name"] != "tidegate"
    ]
    components += [
        {"type": "library", "name": name, "version": v, "purl": f"pkg:deb/debian/{name}@{v}?arch={arch}"}
        for name, v, arch in packages(files)
    ]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "container", "name": "tidegate", "version": version}},
        "components": components,
    }


def provenance(version, commit, manifest):
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"tidegate:{version}", "digest": {"sha256": manifest["digest"].removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "hack/image.py",
                "externalParameters": {"version": version},
                "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": commit}}, {
                    "name": "Cargo.lock", "digest": {"sha256": hashlib.sha256((ROOT / "Cargo.lock").read_bytes()).hexdigest()}}],
            },
            "runDetails": {"builder": {"id": "hack/image.py", "version": {"rustc": run("rustc", "--version").strip()}}},
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the binary, linked against this machine's libraries")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the image; what is there is replaced")
    parser.add_argument("--rootfs", type=pathlib.Path, help="folder for the root file system alone")
    parser.add_argument("--fast", action="store_true", help="for tests: hardly compressed, without SBOM and provenance")
    args = parser.parse_args()
    if not os.path.isfile(args.binary):
        fail(f"there is no {args.binary}. Remedy: cargo build --release --locked")
    base, program = system(args.binary), {"/usr/bin/tidegate": pathlib.Path(args.binary).read_bytes()}

    if args.rootfs:
        for path, content in {**base, **program}.items():
            file = args.rootfs / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(mode_of(path))
    if not args.out:
        return
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    machine = os.uname().machine
    if machine not in MACHINES:
        fail(f"no name for the architecture {machine}")
    shutil.rmtree(args.out, ignore_errors=True)
    layout = Layout(args.out / "oci")
    layers, diffs = [], []
    # The libraries change seldom: a new version of Tidegate is one new layer.
    for files in (base, program):
        content, diff = layer(files, 1 if args.fast else 9)
        layers.append(layout.add(content, "application/vnd.oci.image.layer.v1.tar+gzip"))
        diffs.append(f"sha256:{diff}")
    labels = {
        "org.opencontainers.image.title": "tidegate", "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.revision": commit,
    }
    platform = {"architecture": MACHINES[machine], "os": "linux"}
    config = layout.add_json({
        **platform,
        "config": {"User": f"{USER}:{USER}", "Entrypoint": ["/usr/bin/tidegate"], "Cmd": ["controller"], "WorkingDir": "/",
                   "Env": ["PATH=/usr/bin", f"SSL_CERT_FILE={CA_ROOTS}"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [{"created_by": "hack/image.py: libraries and CA roots"}, {"created_by": "hack/image.py: tidegate"}],
    }, "application/vnd.oci.image.config.v1+json")
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = layout.add_json(
        {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers, "annotations": labels},
        media_type, platform=platform, annotations={"org.opencontainers.image.ref.name": version})
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    (layout.folder / "index.json").write_text(json.dumps(index, sort_keys=True))
    with tarfile.open(args.out / "tidegate.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(p for p in layout.folder.rglob("*") if p.is_file()):
            entry = tar.gettarinfo(path, str(path.relative_to(layout.folder)))
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            with open(path, "rb") as file:
                tar.addfile(entry, file)
    if not args.fast:
        (args.out / "sbom.cdx.json").write_text(json.dumps(sbom(version, base), indent=1))
        (args.out / "provenance.json").write_text(json.dumps(provenance(version, commit, manifest), indent=1))
    size = sum(l["size"] for l in layers)
    print(f"{args.out}: tidegate:{version} {MACHINES[machine]}, {size / 1e6:.1f} MB compressed, {manifest['digest']}")


main()
