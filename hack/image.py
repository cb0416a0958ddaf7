#!/usr/bin/env python3
"""Makes an OCI image of the binary without a container engine: the binary, the libraries that it is linked to, CA roots and
a user without rights; of one binary for each platform. The same input makes the same bytes.

    image.py --binary target/release/tidegate [--binary target/aarch64-unknown-linux-gnu/release/tidegate] --out target/image

FOLDER/oci                   an OCI image layout, for skopeo, crane, podman (`podman pull oci:FOLDER/oci`) ...
FOLDER/tidegate.tar          the same as one file
FOLDER/sbom.ARCH.cdx.json    what is in it (CycloneDX 1.5): crates, system packages
FOLDER/provenance.json       of what commit and by what it was made (in-toto, SLSA provenance 1)

The libraries of a foreign binary are those of Debian's cross compilers. `--rootfs FOLDER` writes the root file system
alone, for a Containerfile.
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
# Megabytes, compressed.
MOST = 30
CA_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
# By the number that an ELF file has for its machine: name in images, name of the tools, Rust's target.
PLATFORMS = {
    62: ("amd64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu"),
    183: ("arm64", "aarch64-linux-gnu", "aarch64-unknown-linux-gnu"),
}


def fail(message):
    sys.exit(f"hack/image.py: {message}")


def run(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        fail(f"'{command[0]}' is missing. Remedy: install it.")
    except subprocess.CalledProcessError as error:
        fail(f"{' '.join(map(str, command))} failed:\n{error.stderr}")


def machine(path):
    """The machine that an ELF file is for, or None."""
    with open(path, "rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" and len(head) == 20 else None


def libraries(binary, triple):
    """The shared libraries of a binary and its loader: path in the image -> path here."""
    wanted = machine(binary)
    folders = [f"/lib/{triple}", f"/usr/lib/{triple}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    cross = f"/usr/{triple}/lib"
    found, wait = {}, [binary]
    while wait:
        file = wait.pop()
        names = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", "--wide", file))
        loader = re.findall(r"interpreter: (/[^\]]+)\]", run("readelf", "--program-headers", "--wide", file))
        # The loader first: it is looked for where the binary says, and other libraries name it without its folder.
        for name in loader + names:
            base = os.path.basename(name)
            if base in {os.path.basename(path) for path in found}:
                continue
            places = [name] if name.startswith("/") else [f"{folder}/{name}" for folder in folders]
            here = next((path for path in [*places, f"{cross}/{base}"] if os.path.isfile(path) and machine(path) == wanted), None)
            if not here:
                fail(f"{binary} needs {name}, which is not here. Remedy: install it, for a foreign platform by Debian's cross compiler.")
            inside = name if name.startswith("/") else here if here in places else f"/lib/{triple}/{base}"
            found[inside] = here
            wait.append(here)
    return found


def system(binary, triple, ca_roots):
    """Everything but the binary: path -> content, and the files here that it comes from."""
    if not os.path.exists(ca_roots):
        fail(f"{ca_roots} is missing. Remedy: install ca-certificates.")
    sources = {**libraries(binary, triple), CA_ROOTS: ca_roots}
    files = {path: pathlib.Path(here).resolve().read_bytes() for path, here in sources.items()}
    files["/etc/passwd"] = f"root:x:0:0::/:/nowhere\nnonroot:x:{USER}:{USER}::/:/nowhere\n".encode()
    files["/etc/group"] = f"root:x:0:\nnonroot:x:{USER}:\n".encode()
    files["/etc/nsswitch.conf"] = b"hosts: files dns\n"
    return files, sorted(sources.values())


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


def crates(target):
    """The crates that are linked into the binary for a target of Rust's."""
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target,
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


def sbom(version, target, sources):
    components = [
        {"type": "library", "name": c["name"], "version": c["version"], "purl": f"pkg:cargo/{c['name']}@{c['version']}",
         **({"licenses": [{"expression": c["license"].replace("/", " OR ")}]} if c["license"] else {})}
        for c in crates(target) if c["name"] != "tidegate"
    ]
    components += [
        {"type": "library", "name": name, "version": v, "purl": f"pkg:deb/debian/{name}@{v}?arch={arch}"}
        for name, v, arch in packages(sources)
    ]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "container", "name": "tidegate", "version": version}},
        "components": components,
    }


def provenance(version, commit, subjects):
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"tidegate:{version}{suffix}", "digest": {"sha256": digest.removeprefix("sha256:")}} for suffix, digest in subjects],
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


def rootfs(folder, files):
    for path, content in files.items():
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode_of(path))


def image(layout, base, program, architecture, labels, level):
    """Adds the image of one platform; returns its descriptor and its size."""
    layers, diffs = [], []
    # The libraries change seldom: a new version of Tidegate is one new layer.
    for files in (base, program):
        content, diff = layer(files, level)
        layers.append(layout.add(content, "application/vnd.oci.image.layer.v1.tar+gzip"))
        diffs.append(f"sha256:{diff}")
    platform = {"architecture": architecture, "os": "linux"}
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
        media_type, platform=platform)
    return manifest, sum(l["size"] for l in layers)


def index_of(layout, manifests, version):
    """Writes what a client looks at first: the image itself, or an index of one image a platform."""
    media_type = "application/vnd.oci.image.index.v1+json"
    top = manifests[0] if len(manifests) == 1 else layout.add_json(
        {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}, media_type)
    named = {**top, "annotations": {"org.opencontainers.image.ref.name": version}}
    index = {"schemaVersion": 2, "mediaType": media_type, "manifests": [named]}
    (layout.folder / "index.json").write_text(json.dumps(index, sort_keys=True))
    return top["digest"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, action="append", help="a binary; again for another platform")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the image; what is there is replaced")
    parser.add_argument("--rootfs", type=pathlib.Path, help="folder for the root file system alone, of the first binary")
    parser.add_argument("--ca-roots", default=CA_ROOTS, help="authorities that the image trusts [default: the system's]")
    parser.add_argument("--most", type=float, default=MOST, metavar="MB", help=f"compressed size of each platform's image that is refused beyond [default: {MOST}]")
    parser.add_argument("--fast", action="store_true", help="for tests: hardly compressed, without SBOM and provenance")
    args = parser.parse_args()
    parts = []
    for binary in args.binary:
        if not os.path.isfile(binary):
            fail(f"there is no {binary}. Remedy: cargo build --release --locked")
        if machine(binary) not in PLATFORMS:
            fail(f"{binary} is no program for {' or '.join(name for name, _, _ in PLATFORMS.values())}")
        architecture, triple, target = PLATFORMS[machine(binary)]
        base, sources = system(binary, triple, args.ca_roots)
        parts.append((architecture, target, base, {"/usr/bin/tidegate": pathlib.Path(binary).read_bytes()}, sources))
    if len({architecture for architecture, *_ in parts}) != len(parts):
        fail("two binaries are for the same platform")
    if args.rootfs:
        rootfs(args.rootfs, {**parts[0][2], **parts[0][3]})
    if not args.out:
        return
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    labels = {
        "org.opencontainers.image.title": "tidegate", "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.revision": commit,
    }
    shutil.rmtree(args.out, ignore_errors=True)
    layout = Layout(args.out / "oci")
    manifests, told = [], []
    for architecture, target, base, program, sources in parts:
        manifest, size = image(layout, base, program, architecture, labels, 1 if args.fast else 9)
        if not args.fast and size > args.most * 1e6:
            fail(f"the image for {architecture} has {size / 1e6:.1f} MB compressed, more than {args.most:g}. Remedy: look at what has grown: libraries, or the program.")
        manifests.append(manifest)
        told.append(f"{architecture} {size / 1e6:.1f} MB compressed")
        if not args.fast:
            (args.out / f"sbom.{architecture}.cdx.json").write_text(json.dumps(sbom(version, target, sources), indent=1))
    digest = index_of(layout, manifests, version)
    if not args.fast:
        subjects = {("", digest), *((f" {m['platform']['architecture']}", m["digest"]) for m in manifests if m["digest"] != digest)}
        (args.out / "provenance.json").write_text(json.dumps(provenance(version, commit, sorted(subjects)), indent=1))
    with tarfile.open(args.out / "tidegate.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(p for p in layout.folder.rglob("*") if p.is_file()):
            entry = tar.gettarinfo(path, str(path.relative_to(layout.folder)))
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            with open(path, "rb") as file:
                tar.addfile(entry, file)
    print(f"{args.out}: tidegate:{version}, {', '.join(told)}, {digest}")


main()
