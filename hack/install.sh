#!/usr/bin/env bash
# Installs Debian packages, as root or by sudo.
#
#   install.sh PACKAGE...
set -euo pipefail

command -v apt-get >/dev/null || { echo "missing: $*. Remedy: install them; there is no apt-get here." >&2; exit 1; }
sudo=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "missing: $*. Remedy: run 'apt-get install $*' as root." >&2; exit 1; }
  sudo=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@"
