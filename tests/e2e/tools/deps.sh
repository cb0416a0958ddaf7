#!/usr/bin/env bash
# Installs the system packages that the end-to-end rig needs on a Debian machine that has Rust and Go. Does nothing when
# all of them are there.
set -euo pipefail

declare -A package=([ip]=iproute2 [unshare]=util-linux [flock]=util-linux [python3]=python3 [c++]=g++)
missing=()
for tool in "${!package[@]}"; do
  command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
command -v go >/dev/null || { echo "Go is missing. Remedy: install Go 1.26 or newer from https://go.dev/dl" >&2; exit 1; }

[ ${#missing[@]} -eq 0 ] && exit 0
command -v apt-get >/dev/null || { echo "missing: ${missing[*]}. Remedy: install them; there is no apt-get here." >&2; exit 1; }
sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "missing: ${missing[*]}. Remedy: run this as root." >&2; exit 1; }
  sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
