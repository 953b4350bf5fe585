{{/*
The names are fixed: a cluster has one pod network, and Helm refuses a second release that would bring the same
objects.
*/}}
{{- define "podwire.name" -}}
podwire
{{- end }}

{{- define "podwire.labels" -}}
app.kubernetes.io/name: {{ include "podwire.name" . }}
{{- end }}

{{- define "podwire.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
The options of the agent, and of its check-up. What it takes by itself is left out. Numbers go through int: Helm reads them as floating point, and would
write 1e+07.
*/}}
{{- define "podwire.options" -}}
- --sysctl-dir=/host/proc/sys
- --cni-bin-dir={{ .Values.cni.binDir }}
- --cni-conf-dir={{ .Values.cni.confDir }}
- --listen={{ include "podwire.listen" . }}
{{- if ne .Values.encapsulation "auto" }}
- --encapsulation={{ .Values.encapsulation }}
{{- end }}
{{- if ne (int .Values.vxlan.port) 8472 }}
- --vxlan-port={{ int .Values.vxlan.port }}
{{- end }}
{{- if ne (int .Values.vxlan.vni) 20567 }}
- --vxlan-vni={{ int .Values.vxlan.vni }}
{{- end }}
{{- with int .Values.mtu }}
- --mtu={{ . }}
{{- end }}
{{- if ne .Values.bigTcp "auto" }}
- --big-tcp={{ .Values.bigTcp }}
{{- end }}
{{- range .Values.uplinks }}
- {{ printf "--uplink=%s" . | quote }}
{{- end }}
{{- range .Values.clusterCIDRs }}
- --cluster-cidr={{ . }}
{{- end }}
{{- if ne .Values.logLevel "info" }}
- {{ printf "--log-level=%s" .Values.logLevel | quote }}
{{- end }}
{{- if not .Values.expedite }}
- --expedite=false
{{- end }}
{{- end }}

{{/* What agent and check-up have in common: both are in the same place and do the same kind of work. */}}
{{- define "podwire.image-and-rights" -}}
image: {{ include "podwire.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add:
      - BPF
      - PERFMON
      - NET_ADMIN
{{- end }}

{{- define "podwire.mounts" -}}
- name: bpffs
  mountPath: /sys/fs/bpf
- name: sysctls
  mountPath: /host/proc/sys/net
- name: plugins # the plugin is put there; portmap is asked which versions it knows
  mountPath: {{ .Values.cni.binDir }}
- name: configurations # the network configuration is put there; whose comes first is looked at
  mountPath: {{ .Values.cni.confDir }}
{{- end }}

{{- define "podwire.listen" -}}
{{- with .Values.metrics -}}
{{- if contains ":" .address -}}
[{{ .address }}]:{{ int .port }}
{{- else -}}
{{ .address }}:{{ int .port }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Where the kubelet asks: none: at the pod's address, which is the node's. */}}
{{- define "podwire.probeHost" -}}
{{- if has .Values.metrics.address (list "127.0.0.1" "::1") -}}
{{ .Values.metrics.address }}
{{- end -}}
{{- end }}
