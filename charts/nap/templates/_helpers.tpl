{{- define "nap.labels" -}}
app.kubernetes.io/name: nap
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "nap.selector" -}}
app.kubernetes.io/name: nap
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
