#!/usr/bin/env bash
# Builds the program for each platform and makes one image of all. What a platform needs to be built for is installed.
#
#   image.sh OUT PLATFORM...        image.sh target/image amd64 arm64
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1
shift

target=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
binaries=()
for platform in "$@"; do
  case $platform in
  amd64) machine=x86_64 package=g++-x86-64-linux-gnu ;;
  arm64) machine=aarch64 package=g++-aarch64-linux-gnu ;;
  *) echo "hack/image.sh: there is no image for $platform. Remedy: name amd64 or arm64." >&2 && exit 1 ;;
  esac
  triple=$machine-unknown-linux-gnu
  if [ "$triple" = "$host" ]; then
    "${CARGO:-cargo}" build --release --locked --bin tidegate
    binaries+=(--binary "$target/release/tidegate")
    continue
  fi
  # Luau and the cryptography are C++ and C.
  command -v "$machine-linux-gnu-g++" >/dev/null || hack/install.sh "$package"
  # Without rustup whoever installed the compiler has installed the target too.
  ! command -v rustup >/dev/null || rustup target add "$triple"
  name=${triple//-/_}
  env "CARGO_TARGET_${name^^}_LINKER=$machine-linux-gnu-gcc" "CC_$name=$machine-linux-gnu-gcc" \
    "CXX_$name=$machine-linux-gnu-g++" "AR_$name=$machine-linux-gnu-ar" \
    "${CARGO:-cargo}" build --release --locked --bin tidegate --target "$triple"
  binaries+=(--binary "$target/$triple/release/tidegate")
done
hack/image.py "${binaries[@]}" --out "$out"
