package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Sends the objects of a file of manifests to the cluster of a state folder, or deletes them from it. Kinds that the cluster does not
// keep are named and left out: nothing of a pod depends on them here.
func manifests(state, file, method string) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "kubeconfig"))
	if err != nil {
		return err
	}
	config.GroupVersion = &schema.GroupVersion{Version: "v1"}
	config.APIPath = "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(newScheme()).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var named metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(document, &named); err != nil {
			return err
		}
		resource := strings.ToLower(named.Kind) + "s"
		place, kept := resources[resource]
		if !kept {
			if named.Kind != "" {
				fmt.Println("left out:", named.Kind, named.Name)
			}
			continue
		}
		namespace := named.Namespace
		if namespace == "" {
			namespace = "default"
		}
		path := place + "/namespaces/" + namespace + "/" + resource
		body, err := yaml.ToJSON(document)
		if err != nil {
			return err
		}
		switch method {
		case "apply":
			err = client.Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(context.Background()).Error()
			if apierrors.IsAlreadyExists(err) {
				err = client.Put().AbsPath(path, named.Name).SetHeader("Content-Type", "application/json").Body(body).Do(context.Background()).Error()
			}
		case "delete":
			err = client.Delete().AbsPath(path, named.Name).Do(context.Background()).Error()
		default:
			err = fmt.Errorf("%s is neither apply nor delete", method)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", named.Kind, named.Name, err)
		}
	}
}
