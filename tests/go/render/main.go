// Renders what is deployed, each by the library of the program that people use: a chart by Helm's engine, a
// directory by Kustomize, a manifest by the YAML reader that both share with kubectl. The answer is JSON.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	documents "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

type call struct {
	What string // chart, kustomization or manifest
	Path string
	// Of a chart alone.
	Release   string
	Namespace string
	Values    map[string]interface{}
	Unchecked bool // without its schema
}

type answer struct {
	Objects []json.RawMessage `json:"objects"`
	// Of a chart alone.
	Notes    string                 `json:"notes,omitempty"`
	Defaults map[string]interface{} `json:"defaults,omitempty"`
}

func main() {
	a, err := run(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(a)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader) (*answer, error) {
	var c call
	if err := json.NewDecoder(in).Decode(&c); err != nil {
		return nil, err
	}
	var a answer
	switch c.What {
	case "chart":
		return renderChart(&c)
	case "kustomization":
		made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), c.Path)
		if err != nil {
			return nil, err
		}
		text, err := made.AsYaml()
		if err != nil {
			return nil, err
		}
		return &a, a.add(c.Path, string(text))
	case "manifest":
		text, err := os.ReadFile(c.Path)
		if err != nil {
			return nil, err
		}
		return &a, a.add(c.Path, string(text))
	}
	return nil, fmt.Errorf("%q cannot be rendered", c.What)
}

func renderChart(c *call) (*answer, error) {
	chart, err := loader.Load(c.Path)
	if err != nil {
		return nil, err
	}
	a := answer{Defaults: chart.Values}
	if c.Unchecked {
		chart.Schema = nil
	}
	release := chartutil.ReleaseOptions{
		Name: c.Release, Namespace: c.Namespace, Revision: 1, IsInstall: true,
	}
	values, err := chartutil.ToRenderValues(chart, c.Values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	// Strict: a template that names a value which does not exist is an error.
	files, err := engine.Engine{Strict: true}.Render(chart, values)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if path.Base(name) == "NOTES.txt" {
			a.Notes = files[name]
		} else if err := a.add(name, files[name]); err != nil {
			return nil, err
		}
	}
	return &a, nil
}

// Reads all documents of a text. A field that Kubernetes does not know, or that is there twice, is an error.
func (a *answer) add(name, text string) error {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := documents.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		object, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if string(object) == "null" {
			continue
		}
		known, err := withoutNewer(object)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, _, err := strict.Decode(known, nil, nil); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		a.Objects = append(a.Objects, object)
	}
}

// Fields of Kubernetes 1.30 and of 1.28 (those of policies), newer than the types that the distribution's Go builds. The
// cluster of the tests looks at them.
var newer = []string{"appArmorProfile", "variables"}

// A group whose policies have the same fields in the version that these types have, and in the one that is there
// since Kubernetes 1.30.
const (
	policies   = "admissionregistration.k8s.io/v1"
	policy     = "ValidatingAdmissionPolicy"
	asTheyWere = "admissionregistration.k8s.io/v1alpha1"
)

func withoutNewer(object []byte) ([]byte, error) {
	var value any
	if err := json.Unmarshal(object, &value); err != nil {
		return nil, err
	}
	if whole, is := value.(map[string]any); is && whole["apiVersion"] == policies {
		if kind, is := whole["kind"].(string); is && strings.HasPrefix(kind, policy) {
			whole["apiVersion"] = asTheyWere
		}
	}
	var walk func(any)
	walk = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			for _, field := range newer {
				delete(value, field)
			}
			for _, inner := range value {
				walk(inner)
			}
		case []any:
			for _, inner := range value {
				walk(inner)
			}
		}
	}
	walk(value)
	return json.Marshal(value)
}
