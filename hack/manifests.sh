#!/usr/bin/env bash
# Renders the chart into plain manifests, for `kubectl apply --server-side -k` and as a base for kustomize.
#
#   manifests.sh FOLDER
#
# FOLDER/policy    for Kubernetes 1.36 and later: the API server holds changed workloads
# FOLDER/webhook   for older servers: a webhook does
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:?name the folder}
helm=$(tests/e2e/tools/build.sh helm | cut -f2)
for mode in policy webhook; do
  mkdir -p "$out/$mode"
  {
    printf -- '---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: tidegate\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n'
    "$helm" template tidegate charts/tidegate --no-hooks --namespace tidegate --kube-version 1.36.0 --set hold.mode=$mode --set crds.keep=false |
      grep -vE '^ +(app.kubernetes.io/managed-by|helm.sh/chart): '
  } >"$out/$mode/tidegate.yaml"
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [tidegate.yaml]\n' >"$out/$mode/kustomization.yaml"
  echo "$out/$mode: kubectl apply --server-side -k $out/$mode"
done
