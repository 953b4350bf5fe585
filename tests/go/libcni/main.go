// The CNI project's own library as a runtime: one call, read as JSON from standard input.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

type call struct {
	Verb           string
	Config         json.RawMessage // a list of plugins, as in a .conflist
	Path           string          // directory of the plugins
	Cache          string          // directory in which the library keeps results
	ContainerID    string
	Netns          string
	Ifname         string
	CapabilityArgs map[string]interface{}
	Valid          []types.GCAttachment
}

type answer struct {
	Result types.Result `json:"result,omitempty"`
	// What the library knows as an error of the contract, and its code.
	Error *types.Error `json:"error,omitempty"`
	// Everything else that it refuses.
	Refused string `json:"refused,omitempty"`
}

func main() {
	var c call
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	result, err := run(&c)
	a := answer{Result: result}
	var known *types.Error
	if errors.As(err, &known) {
		a.Error = known
	} else if err != nil {
		a.Refused = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(c *call) (types.Result, error) {
	ctx := context.Background()
	list, err := libcni.ConfListFromBytes(c.Config)
	if err != nil {
		return nil, err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{c.Path}, c.Cache, nil)
	rt := &libcni.RuntimeConf{
		ContainerID:    c.ContainerID,
		NetNS:          c.Netns,
		IfName:         c.Ifname,
		CapabilityArgs: c.CapabilityArgs,
	}
	switch c.Verb {
	case "ADD":
		return cni.AddNetworkList(ctx, list, rt)
	case "CHECK":
		return nil, cni.CheckNetworkList(ctx, list, rt)
	case "DEL":
		return nil, cni.DelNetworkList(ctx, list, rt)
	case "GC":
		return nil, cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: c.Valid})
	case "STATUS":
		return nil, cni.GetStatusNetworkList(ctx, list)
	case "VALIDATE":
		_, err := cni.ValidateNetworkList(ctx, list)
		return nil, err
	}
	return nil, fmt.Errorf("no verb %q", c.Verb)
}
