#!/usr/bin/env python3
"""Runs the image of each platform as a pod would: its layers unpacked, mounted read-only, as the image's user without rights.
A foreign platform's program runs by QEMU's user mode. Needs root, or user namespaces.

    image-test.py target/image
"""

import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# By the name in images: the machine's own name, QEMU's program for it.
MACHINES = {"amd64": ("x86_64", "qemu-x86_64-static"), "arm64": ("aarch64", "qemu-aarch64-static")}
# Command, a part of the line that it has to say, and what of all that it says is the same on every platform. The folder is
# the repository's, mounted read-only.
COMMANDS = [
    (["--version"], "tidegate ", r".*"),
    (["lua", "test", "/testcases"], " cases passed; ", r"\d+ cases passed; \d+ steps"),
    (["simulate", "--runs", "10", "--seed", "0"], "10 releases", r"digest \w+"),
    (["demo"], "writes: ", r"(?s).*"),
]
# Seconds for one command; QEMU is some twenty times slower.
LIMIT = 900
# Mounts the root file system read-only and becomes the program in it.
RUN = """
mount --bind "$0" "$0" && mount --bind "$1" "$0/testcases" && mount -o remount,bind,ro "$0" && exec chroot "$2" "$0" "${@:3}"
"""


def fail(message):
    sys.exit(f"hack/image-test.py: {message}")


def blob(layout, reference):
    algorithm, digest = reference["digest"].split(":")
    content = (layout / "blobs" / algorithm / digest).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest or len(content) != reference["size"]:
        fail(f"{reference['digest']} is not what its name says")
    return content


def images(layout):
    """The image of each platform."""
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    document = json.loads(blob(layout, top))
    for manifest in document.get("manifests", [top]):
        image = json.loads(blob(layout, manifest))
        yield image, json.loads(blob(layout, image["config"]))


def unpack(layout, image, root):
    for layer in image["layers"]:
        with tempfile.TemporaryFile() as file:
            file.write(blob(layout, layer))
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as archive:
                archive.extractall(root, filter="fully_trusted")


def has_users():
    """Whether there is another user to become: not where only one is mapped."""
    maps = pathlib.Path("/proc/self/uid_map").read_text().splitlines()
    return os.geteuid() == 0 and any(int(line.split()[2]) > 65532 for line in maps)


def run(image, config, root, version, said):
    architecture = config["architecture"]
    machine, emulator = MACHINES[architecture]
    entry = list(config["config"]["Entrypoint"])
    by = "by itself"
    if machine != platform.machine():
        path = shutil.which(emulator)
        if not path:
            fail(f"'{emulator}' is missing, so the image for {architecture} cannot be run. Remedy: apt-get install qemu-user-static")
        shutil.copy(path, root / "emulator")
        entry, by = ["/emulator", *entry], "by QEMU"
    (root / "testcases").mkdir()
    user = f"--userspec={config['config']['User']}" if has_users() else "--groups="
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    environment = dict(pair.split("=", 1) for pair in config["config"]["Env"])
    for command, part, alike in COMMANDS:
        begin = time.monotonic()
        answer = subprocess.run(
            [*unshare, "--", "bash", "-c", RUN, str(root), str(ROOT / "testcases"), user, *entry, *command],
            capture_output=True, text=True, timeout=LIMIT, env={**environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        text = answer.stdout + answer.stderr
        line = next((line.strip() for line in reversed(text.splitlines()) if part in line), None)
        name = f"tidegate {' '.join(command)}"
        if answer.returncode or not line or (command == ["--version"] and line != f"tidegate {version}"):
            fail(f"{architecture}: {name}: exit code {answer.returncode}\n{text[-2000:]}")
        same = re.search(alike, text)
        if not same or said.setdefault(name, same[0]) != same[0]:
            fail(f"{architecture}: {name} says something else than on another platform:\n{text}")
        print(f"{architecture} {by}: {name}: {time.monotonic() - begin:.1f} s: {line}", flush=True)
    size = sum(layer["size"] for layer in image["layers"]) / 1e6
    who = config["config"]["User"] if has_users() else "this machine's only mapped user, NOT the image's"
    print(f"{architecture}: {size:.1f} MB compressed, read-only, as {who}", flush=True)


def main():
    if len(sys.argv) != 2:
        fail("name the folder that `make image` wrote")
    layout = pathlib.Path(sys.argv[1]) / "oci"
    if not layout.is_dir():
        fail(f"there is no {layout}. Remedy: make image")
    said = {}
    for image, config in images(layout):
        with tempfile.TemporaryDirectory(dir=layout.parent) as root:
            # Others than the owner have to be able to read it.
            os.chmod(root, 0o755)
            unpack(layout, image, root)
            run(image, config, pathlib.Path(root), config["config"]["Labels"]["org.opencontainers.image.version"], said)


main()
