//go:build tools

// Package tools keeps in go.mod what is built from its own module.
package tools

import _ "github.com/containernetworking/cni/cnitool"
