{{- define "rbuild.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "rbuild.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rbuild.labels" -}}
{{ include "rbuild.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "rbuild.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}

{{- define "rbuild.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ include "rbuild.name" . }}
{{- else }}default{{ end }}
{{- end }}

{{- define "rbuild.kind" -}}
{{ if .Values.persistence.enabled }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}

{{- define "rbuild.scales" -}}
{{ if or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled }}yes{{ end }}
{{- end }}

{{- define "rbuild.check" -}}
{{- if and .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled }}
{{- fail "autoscaling.hpa and autoscaling.keda would both set the number of replicas: enable one" }}
{{- end }}
{{- if and .Values.tls.enabled (not .Values.tls.secretName) }}
{{- fail "tls.enabled needs tls.secretName, a secret with ca.crt, tls.crt and tls.key" }}
{{- end }}
{{- if and (not .Values.metrics.enabled) (or .Values.metrics.serviceMonitor.enabled .Values.autoscaling.keda.enabled) }}
{{- fail "a ServiceMonitor and KEDA need metrics.enabled" }}
{{- end }}
{{- range .Values.registryCertificates }}
{{- if eq (empty .configMap) (empty .secret) }}
{{- fail (printf "registryCertificates %q names either a configMap or a secret" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the grace period leaves for builds, behind the hook and before the kill. */}}
{{- define "rbuild.drain" -}}
{{- max 1 (sub .Values.drain.terminationGracePeriodSeconds (add .Values.drain.preStopSeconds 5)) }}
{{- end }}

{{/* The pod, which is the same in both workloads. */}}
{{- define "rbuild.pod" -}}
{{- $rootless := eq .Values.security "rootless" -}}
{{- $state := ternary "/home/user/.local/share/buildkit" "/var/lib/buildkit" $rootless -}}
{{- $config := ternary "/home/user/.config/buildkit" "/etc/buildkit" $rootless -}}
metadata:
  labels:
    {{- include "rbuild.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/config: {{ .Values.config | sha256sum }}
    {{- with .Values.tls.revision }}
    checksum/tls: {{ . | quote }}
    {{- end }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "rbuild.serviceAccount" . }}
  # Steps of builds get no token of the cluster.
  automountServiceAccountToken: false
  {{- if eq .Values.security "userNamespace" }}
  hostUsers: false
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.drain.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.schedulerName }}
  schedulerName: {{ . }}
  {{- end }}
  {{- if or .Values.arch .Values.nodeSelector }}
  nodeSelector:
    {{- with .Values.arch }}
    kubernetes.io/arch: {{ . }}
    {{- end }}
    {{- with .Values.nodeSelector }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- if $rootless }}
  securityContext:
    fsGroup: 1000
  {{- end }}
  containers:
    - name: buildkitd
      image: {{ include "rbuild.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - --config={{ $config }}/buildkitd.toml
        - --addr=unix:///run/{{ ternary "user/1000/" "" $rootless }}buildkit/buildkitd.sock
        {{- if .Values.tls.enabled }}
        - --addr=tcp://0.0.0.0:{{ .Values.service.port }}
        - --tlscacert=/etc/buildkit-tls/ca.crt
        - --tlscert=/etc/buildkit-tls/tls.crt
        - --tlskey=/etc/buildkit-tls/tls.key
        {{- end }}
        {{- if .Values.metrics.enabled }}
        - --debugaddr=0.0.0.0:{{ .Values.metrics.port }}
        # Metrics and health alone are shown there.
        - --allow-insecure-debugaddr
        {{- end }}
        - --drain-timeout={{ include "rbuild.drain" . }}s
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      {{- with .Values.extraEnv }}
      env: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- if $rootless }}
        runAsUser: 1000
        runAsGroup: 1000
        runAsNonRoot: true
        seccompProfile:
          type: Unconfined
        appArmorProfile:
          type: Unconfined
        {{- else }}
        privileged: true
        {{- end }}
      {{- if or .Values.tls.enabled .Values.metrics.enabled }}
      ports:
        {{- if .Values.tls.enabled }}
        - name: grpc
          containerPort: {{ .Values.service.port }}
        {{- end }}
        {{- if .Values.metrics.enabled }}
        - name: metrics
          containerPort: {{ .Values.metrics.port }}
        {{- end }}
      {{- end }}
      readinessProbe:
        exec:
          command: [buildctl, debug, workers]
        {{- toYaml .Values.probes | nindent 8 }}
      livenessProbe:
        exec:
          command: [buildctl, debug, workers]
        # The first start after a crash checks the state directory.
        initialDelaySeconds: 30
        {{- toYaml .Values.probes | nindent 8 }}
      lifecycle:
        preStop:
          exec:
            command: [sleep, {{ .Values.drain.preStopSeconds | quote }}]
      {{- with .Values.resources }}
      resources: {{ toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: state
          mountPath: {{ $state }}
        - name: config
          mountPath: {{ $config }}/buildkitd.toml
          subPath: buildkitd.toml
          readOnly: true
        {{- if .Values.tls.enabled }}
        - name: tls
          mountPath: /etc/buildkit-tls
          readOnly: true
        {{- end }}
        {{- range .Values.registryCertificates }}
        - name: certificates-{{ .name }}
          mountPath: /etc/buildkit/certs/{{ .name }}
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    {{- if not .Values.persistence.enabled }}
    - name: state
      emptyDir: {{ with .Values.emptyDir }}
        {{- $set := dict }}
        {{- with .sizeLimit }}{{ $_ := set $set "sizeLimit" . }}{{ end }}
        {{- with .medium }}{{ $_ := set $set "medium" . }}{{ end }}
        {{- toJson $set }}{{ end }}
    {{- end }}
    - name: config
      configMap:
        name: {{ include "rbuild.name" . }}
    {{- if .Values.tls.enabled }}
    - name: tls
      secret:
        secretName: {{ .Values.tls.secretName }}
    {{- end }}
    {{- range .Values.registryCertificates }}
    - name: certificates-{{ .name }}
      {{- if .configMap }}
      configMap:
        name: {{ .configMap }}
      {{- else }}
      secret:
        secretName: {{ .secret }}
      {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}
