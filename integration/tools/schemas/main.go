// Command schemas writes what kubeconform checks our manifests by: one JSON schema for each kind that they use, strict (a field that
// is not known is an error), whole, and without descriptions.
//
//	go mod download -json k8s.io/kubernetes@v1.37.2
//	go run ./schemas DIR/api/openapi-spec/swagger.json ../../packaging/kubernetes/schemas CRD.yaml...
//
// The file of a kind of Kubernetes' own is its name, group and version (deployment-apps-v1.json); kinds of others are taken from the
// documents that define them (ServiceMonitor, ScaledObject).
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// The kinds of our manifests, by their names in Kubernetes' definitions.
var kinds = []string{
	"io.k8s.api.apps.v1.Deployment",
	"io.k8s.api.apps.v1.StatefulSet",
	"io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
	"io.k8s.api.core.v1.ConfigMap",
	"io.k8s.api.core.v1.Namespace",
	"io.k8s.api.core.v1.Secret",
	"io.k8s.api.core.v1.Service",
	"io.k8s.api.core.v1.ServiceAccount",
	"io.k8s.api.networking.v1.NetworkPolicy",
	"io.k8s.api.policy.v1.PodDisruptionBudget",
}

const reference = "#/definitions/"

type schema = map[string]any

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: schemas swagger.json DIR [CRD.yaml...]")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(swagger, dir string, others []string) error {
	text, err := os.ReadFile(swagger)
	if err != nil {
		return err
	}
	var document struct{ Definitions map[string]schema }
	if err := json.Unmarshal(text, &document); err != nil {
		return err
	}
	for _, kind := range kinds {
		used := map[string]any{}
		collect(document.Definitions, kind, used)
		top := used[kind].(schema)
		delete(used, kind)
		// Objects of a kind inside of others, such as templates of claims, need not name it.
		named := asList(document.Definitions[kind]["x-kubernetes-group-version-kind"])[0].(schema)
		properties := top["properties"].(schema)
		version := strings.TrimPrefix(fmt.Sprint(named["group"], "/", named["version"]), "/")
		properties["apiVersion"], properties["kind"] = schema{"enum": []any{version}}, schema{"enum": []any{named["kind"]}}
		top["required"] = append(asList(top["required"]), "apiVersion", "kind", "metadata")
		top["definitions"] = used
		words := strings.Split(kind, ".")
		group := words[len(words)-3]
		name := words[len(words)-1] + "-" + group + "-" + words[len(words)-2]
		if err := write(dir, strings.Replace(name, "-core-", "-", 1), top); err != nil {
			return err
		}
	}
	for _, file := range others {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct{ OpenAPIV3Schema schema }
				}
			}
		}
		if err := yaml.Unmarshal(text, &crd); err != nil {
			return err
		}
		for _, version := range crd.Spec.Versions {
			group, _, _ := strings.Cut(crd.Spec.Group, ".")
			top := strict(version.Schema.OpenAPIV3Schema).(schema)
			top["properties"].(schema)["metadata"] = schema{"type": "object"}
			if err := write(dir, fmt.Sprintf("%s-%s-%s", crd.Spec.Names.Kind, group, version.Name), top); err != nil {
				return err
			}
		}
	}
	return nil
}

// Puts a definition and all that it refers to into `used`.
func collect(definitions map[string]schema, name string, used map[string]any) {
	if used[name] != nil {
		return
	}
	switch {
	case strings.HasSuffix(name, ".IntOrString"), strings.HasSuffix(name, ".Quantity"):
		used[name] = schema{"type": []string{"string", "number"}}
		return
	}
	made := strict(definitions[name]).(schema)
	used[name] = made
	references(made, func(other string) { collect(definitions, other, used) })
}

func asList(value any) []any {
	list, _ := value.([]any)
	return list
}

func references(value any, each func(string)) {
	switch value := value.(type) {
	case schema:
		if target, ok := value["$ref"].(string); ok {
			each(strings.TrimPrefix(target, reference))
		}
		for _, inner := range value {
			references(inner, each)
		}
	case []any:
		for _, inner := range value {
			references(inner, each)
		}
	}
}

// A copy without descriptions and extensions, in which objects with named properties have no others.
func strict(value any) any {
	switch value := value.(type) {
	case schema:
		made := schema{}
		for key, inner := range value {
			switch {
			case key == "properties":
				// Their names are not words of the schema.
				properties := schema{}
				for name, property := range inner.(schema) {
					properties[name] = strict(property)
				}
				made[key] = properties
			case key == "description", key == "default", strings.HasPrefix(key, "x-"):
			default:
				made[key] = strict(inner)
			}
		}
		if value["x-kubernetes-int-or-string"] == true {
			return schema{"type": []string{"string", "number"}}
		}
		if made["properties"] != nil && made["additionalProperties"] == nil && value["x-kubernetes-preserve-unknown-fields"] != true {
			made["additionalProperties"] = false
		}
		return made
	case []any:
		made := make([]any, len(value))
		for index, inner := range value {
			made[index] = strict(inner)
		}
		return made
	}
	return value
}

func write(dir, name string, document schema) error {
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, strings.ToLower(name)+".json"), append(text, '\n'), 0o644)
}
