{{- define "stream-app.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "stream-app.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stream-app.labels" -}}
{{ include "stream-app.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "stream-app.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "stream-app.topic" -}}
{{ index .root.Values.settings (printf "%s_topic" .setting) | default .default }}
{{- end }}

{{/* The topics that are copied to the clickstream, as a JSON list: of "web=ga4,app=segment" web and app. */}}
{{- define "stream-app.sources" -}}
{{- $found := list }}
{{- range splitList "," (.Values.settings.source_topics | default "") }}
{{- with trim (splitList "=" . | first) }}{{ $found = append $found . }}{{ end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The settings of the worker, as YAML: with Strimzi its topics are made after them too. */}}
{{- define "stream-app.settings" -}}
{{- $settings := deepCopy .Values.settings }}
{{- if .Values.strimzi.enabled }}
{{- $partitions := toString .Values.strimzi.partitions }}
{{- $made := dict "clickstream_partitions" $partitions "cooccurrence_partitions" $partitions }}
{{- $_ := set $made "replication_factor" (toString .Values.strimzi.replicas) }}
{{- $settings = merge $settings $made }}
{{- end }}
{{- range $name, $value := $settings }}
{{- if and (hasSuffix "_file" $name) (hasPrefix "/config/" $value) (not (hasKey $.Values.files (trimPrefix "/config/" $value))) }}
{{- fail (printf "settings.%s is %s: put its content into files.%s" $name $value (trimPrefix "/config/" $value)) }}
{{- end }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{- define "stream-app.env" -}}
- {name: STREAM_APP_KAFKA_URL, value: {{ .Values.kafka.url | quote }}}
- {name: STREAM_APP_KAFKA_SECURITY_PROTOCOL, value: {{ .Values.kafka.securityProtocol | quote }}}
{{- if hasPrefix "SASL" .Values.kafka.securityProtocol }}
- {name: STREAM_APP_KAFKA_SASL_MECHANISM, value: {{ .Values.kafka.saslMechanism | quote }}}
- {name: STREAM_APP_KAFKA_USERNAME, value: {{ required "kafka.username is needed with SASL" .Values.kafka.username | quote }}}
- {name: STREAM_APP_KAFKA_PASSWORD_FILE, value: /secrets/kafka/password}
{{- end }}
{{- if .Values.kafka.privateCa }}
- {name: STREAM_APP_KAFKA_CA_FILE, value: /secrets/kafka/ca.crt}
{{- end }}
- {name: STREAM_APP_REDIS_URL, value: {{ .Values.redis.url | quote }}}
{{- if .Values.redis.secret }}
- {name: STREAM_APP_REDIS_PASSWORD_FILE, value: /secrets/redis/password}
{{- end }}
{{- if .Values.console.secret }}
- {name: STREAM_APP_CONSOLE_TOKEN_FILE, value: /secrets/console/token}
{{- end }}
- {name: STREAM_APP_WEB_HOST, value: 0.0.0.0}
- {name: STREAM_APP_LOG_FORMAT, value: json}
{{- if .Values.pseudonyms.secret }}
- {name: STREAM_APP_PSEUDONYM_KEY_FILE, value: /secrets/pseudonyms/key}
{{- end }}
{{- range $name, $value := include "stream-app.settings" . | fromYaml }}
- {name: {{ printf "STREAM_APP_%s" (upper $name) }}, value: {{ $value | quote }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stream-app.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "stream-app.mounts" -}}
- {name: cache, mountPath: /home/stream_app/.cache}
- {name: tmp, mountPath: /tmp}
{{- if .Values.kafka.secret }}
- {name: kafka, mountPath: /secrets/kafka, readOnly: true}
{{- end }}
{{- if .Values.redis.secret }}
- {name: redis, mountPath: /secrets/redis, readOnly: true}
{{- end }}
{{- if .Values.console.secret }}
- {name: console, mountPath: /secrets/console, readOnly: true}
{{- end }}
{{- if .Values.pseudonyms.secret }}
- {name: pseudonyms, mountPath: /secrets/pseudonyms, readOnly: true}
{{- end }}
{{- if .Values.files }}
- {name: files, mountPath: /config, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Takes the root, and the name of the ConfigMap of files. */}}
{{- define "stream-app.volumes" -}}
- {name: cache, emptyDir: {sizeLimit: 256Mi}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- range $name := list "kafka" "redis" "console" "pseudonyms" }}
{{- with (index $.root.Values $name).secret }}
- name: {{ $name }}
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- if .root.Values.files }}
- {name: files, configMap: {name: {{ .files }}}}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
