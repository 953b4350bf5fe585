// A registry for images on the loopback interface, and what looks into one: both by the library of crane, which is not
// what pushes.
//
//	registry serve            prints its address, and serves until its input ends
//	registry pull REFERENCE   fetches all of an image and prints, as JSON, what it is
//
// With REGISTRY_USER and REGISTRY_PASSWORD nobody else may use it.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var (
	user     = os.Getenv("REGISTRY_USER")
	password = os.Getenv("REGISTRY_PASSWORD")
)

type platform struct {
	Platform string            `json:"platform"`
	Labels   map[string]string `json:"labels"`
}

type pulled struct {
	Digest    string     `json:"digest"`
	MediaType string     `json:"mediaType"`
	Platforms []platform `json:"platforms"`
}

func main() {
	err := errors.New("serve, or pull REFERENCE")
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	case len(os.Args) == 3 && os.Args[1] == "pull":
		err = pull(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(listener.Addr())
	quiet := registry.Logger(log.New(io.Discard, "", 0))
	return http.Serve(listener, guarded(registry.New(quiet)))
}

func guarded(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, secret, _ := r.BasicAuth()
		is := subtle.ConstantTimeCompare([]byte(who+"\x00"+secret), []byte(user+"\x00"+password))
		if user != "" && is != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func pull(text string) error {
	reference, err := name.ParseReference(text, name.StrictValidation)
	if err != nil {
		return err
	}
	as := remote.WithAuth(authn.Anonymous)
	if user != "" {
		as = remote.WithAuth(&authn.Basic{Username: user, Password: password})
	}
	found, err := remote.Get(reference, as)
	if err != nil {
		return err
	}
	answer := pulled{Digest: found.Digest.String(), MediaType: string(found.MediaType)}
	images := []v1.Image{}
	if found.MediaType.IsIndex() {
		index, err := found.ImageIndex()
		if err != nil {
			return err
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return err
		}
		for _, one := range manifest.Manifests {
			image, err := index.Image(one.Digest)
			if err != nil {
				return err
			}
			images = append(images, image)
		}
	} else {
		image, err := found.Image()
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	for _, image := range images {
		one, err := look(image)
		if err != nil {
			return err
		}
		answer.Platforms = append(answer.Platforms, *one)
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// Fetches every layer and compares digests and sizes.
func look(image v1.Image) (*platform, error) {
	if err := validate.Image(image); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	return &platform{
		Platform: config.OS + "/" + config.Architecture,
		Labels:   config.Config.Labels,
	}, nil
}
