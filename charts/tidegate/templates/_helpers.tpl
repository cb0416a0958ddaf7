{{- define "tidegate.selector" -}}
app.kubernetes.io/name: tidegate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tidegate.labels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidegate.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default "tidegate" }}
{{- end }}

{{- /* Who has the controller's rights. */ -}}
{{- define "tidegate.subject" -}}
- kind: ServiceAccount
  name: {{ include "tidegate.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "tidegate.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end }}

{{- /* What is to hold changed workloads: policy or webhook. */ -}}
{{- define "tidegate.hold" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- if or (eq .Values.hold.mode "policy") (and (eq .Values.hold.mode "auto") $served) -}}
policy
{{- else if not .Values.webhooks.enabled -}}
{{- fail "nothing would hold changed workloads: this API server has no MutatingAdmissionPolicy (Kubernetes 1.36 and later do), so webhooks.enabled must be true" -}}
{{- else -}}
webhook
{{- end -}}
{{- end }}

{{- /* Not empty when the policies are to be there. While they still hold, the controller takes them away. */ -}}
{{- define "tidegate.holdByPolicy" -}}
{{- if eq (include "tidegate.hold" .) "policy" -}}
true
{{- else if lookup "admissionregistration.k8s.io/v1" "MutatingAdmissionPolicy" "" "tidegate-hold-deployments" -}}
true
{{- end -}}
{{- end }}

{{- /* Not empty when our webhooks that hold are to be there. While they still hold, the controller takes them away: the
policies need some seconds to act. OpenKruise's, of the same name, have no match conditions. */ -}}
{{- define "tidegate.holdByWebhook" -}}
{{- if eq (include "tidegate.hold" .) "webhook" -}}
true
{{- else if .Values.webhooks.enabled -}}
{{- $there := lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" "kruise-rollout-mutating-webhook-configuration" -}}
{{- if $there -}}{{- with (index $there.webhooks 0).matchConditions -}}true{{- end -}}{{- end -}}
{{- end -}}
{{- end }}

{{- define "tidegate.webhooks" -}}
{{- if .Values.webhooks.enabled }}true{{ end -}}
{{- end }}

{{- /* Where the API server finds a webhook: (list . path). */ -}}
{{- define "tidegate.clientConfig" -}}
{{- $top := index . 0 -}}
{{- $path := index . 1 -}}
{{- with $top.Values.webhooks.url -}}
url: {{ printf "%s%s" (trimSuffix "/" .) $path | quote }}
{{- else -}}
service:
  name: tidegate-webhooks
  namespace: {{ $top.Release.Namespace }}
  path: {{ $path }}
  port: {{ $top.Values.service.port }}
{{- end -}}
{{- end }}

{{- /* Of which namespaces the API server asks a webhook. */ -}}
{{- define "tidegate.namespaceSelector" -}}
{{- with .Values.namespaces -}}
namespaceSelector:
  matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ toJson . }}
{{- end -}}
{{- end }}

{{- /* What the two webhook configurations have in common. The controller sets caBundle. */ -}}
{{- define "tidegate.metadata" -}}
labels:
  {{- include "tidegate.labels" . | nindent 2 }}
{{- if .Values.webhooks.certManager.enabled }}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/tidegate-webhooks
{{- end }}
{{- end }}

{{- /* What restricted Pod Security asks for. */ -}}
{{- define "tidegate.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "tidegate.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
