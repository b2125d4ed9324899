// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

// openAPI returns the OpenAPI 2 description of metrics.k8s.io. The API server
// converts it to version 3; without one it would ask again every minute.
func openAPI() map[string]any {
	const defs = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
	type m = map[string]any
	gvk := func(kind string) m { return m{"group": "metrics.k8s.io", "version": "v1beta1", "kind": kind} }
	ref := func(kind string) m { return m{"$ref": "#/definitions/" + defs + kind} }
	list := func(of m) m { return m{"type": "array", "items": of} }
	text := func(description string) m { return m{"type": "string", "description": description} }
	usage := m{"type": "object", "additionalProperties": m{"type": "string"}, "description": "What was used over the window: cpu and memory, as quantities."}
	object := func(kind, description string, properties m) m {
		all := m{
			"apiVersion": text("The version of this object's schema."),
			"kind":       text("The kind of object."),
			"metadata":   m{"type": "object", "description": "Name, namespace and labels of what was measured."},
		}
		for k, v := range properties {
			all[k] = v
		}
		return m{"type": "object", "description": description, "properties": all, "x-kubernetes-group-version-kind": []any{gvk(kind)}}
	}
	measured := func(kind, description, name string, what m) m {
		return object(kind, description, m{
			"timestamp": m{"type": "string", "format": "date-time", "description": "The end of the window."},
			"window":    text("The time over which it was measured, such as 15s."),
			name:        what,
		})
	}
	get := func(kind, returns, action string) m {
		return m{"get": m{
			"operationId": "read" + kind + action, "produces": []any{"application/json"},
			"responses":           m{"200": m{"description": "OK", "schema": ref(returns)}},
			"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind),
		}}
	}
	with := func(path m, names ...string) m {
		var params []any
		for _, n := range names {
			params = append(params, m{"name": n, "in": "path", "required": true, "type": "string"})
		}
		path["parameters"] = params
		return path
	}
	const root = "/apis/" + apiVersion
	podsOfNamespace := get("PodMetrics", "PodMetricsList", "list")
	podsOfNamespace["get"].(m)["operationId"] = "readNamespacedPodMetricslist"
	return m{
		"swagger": "2.0",
		"info":    m{"title": "metrics-server", "version": "v1beta1"},
		"paths": m{
			root + "/nodes":                              get("NodeMetrics", "NodeMetricsList", "list"),
			root + "/nodes/{name}":                       with(get("NodeMetrics", "NodeMetrics", "get"), "name"),
			root + "/pods":                               get("PodMetrics", "PodMetricsList", "list"),
			root + "/namespaces/{namespace}/pods":        with(podsOfNamespace, "namespace"),
			root + "/namespaces/{namespace}/pods/{name}": with(get("PodMetrics", "PodMetrics", "get"), "namespace", "name"),
		},
		"definitions": m{
			defs + "ContainerMetrics": m{"type": "object", "description": "What a container used.", "properties": m{"name": text("The container's name in its pod."), "usage": usage}},
			defs + "NodeMetrics":      measured("NodeMetrics", "What the pods of a node used.", "usage", usage),
			defs + "PodMetrics":       measured("PodMetrics", "What a pod used.", "containers", list(ref("ContainerMetrics"))),
			defs + "NodeMetricsList":  object("NodeMetricsList", "Metrics of nodes.", m{"items": list(ref("NodeMetrics"))}),
			defs + "PodMetricsList":   object("PodMetricsList", "Metrics of pods.", m{"items": list(ref("PodMetrics"))}),
		},
	}
}
