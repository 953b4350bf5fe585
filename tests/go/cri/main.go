// A client of the Container Runtime Interface, as the kubelet is one: `cri SOCKET METHOD`, the request as
// JSON on standard input, the answer as JSON on standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Longest time for a call.
const timeout = 50 * time.Second

var methods = map[string][2]interface{}{
	"Status":           {&cri.StatusRequest{}, &cri.StatusResponse{}},
	"RunPodSandbox":    {&cri.RunPodSandboxRequest{}, &cri.RunPodSandboxResponse{}},
	"PodSandboxStatus": {&cri.PodSandboxStatusRequest{}, &cri.PodSandboxStatusResponse{}},
	"ListPodSandbox":   {&cri.ListPodSandboxRequest{}, &cri.ListPodSandboxResponse{}},
	"StopPodSandbox":   {&cri.StopPodSandboxRequest{}, &cri.StopPodSandboxResponse{}},
	"RemovePodSandbox": {&cri.RemovePodSandboxRequest{}, &cri.RemovePodSandboxResponse{}},
	"CreateContainer":  {&cri.CreateContainerRequest{}, &cri.CreateContainerResponse{}},
	"StartContainer":   {&cri.StartContainerRequest{}, &cri.StartContainerResponse{}},
	"ListContainers":   {&cri.ListContainersRequest{}, &cri.ListContainersResponse{}},
	"ExecSync":         {&cri.ExecSyncRequest{}, &cri.ExecSyncResponse{}},
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(socket, method string) error {
	messages, ok := methods[method]
	if !ok {
		return fmt.Errorf("no method %q", method)
	}
	request, response := messages[0], messages[1]
	if err := json.NewDecoder(os.Stdin).Decode(request); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection, err := grpc.DialContext(ctx, "unix://"+socket, plain)
	if err != nil {
		return err
	}
	defer connection.Close()
	path := "/runtime.v1.RuntimeService/" + method
	if err := connection.Invoke(ctx, path, request, response); err != nil {
		return err
	}
	if method == "ExecSync" {
		exec := response.(*cri.ExecSyncResponse)
		if exec.ExitCode != 0 {
			return fmt.Errorf("exit code %d: %s%s", exec.ExitCode, exec.Stdout, exec.Stderr)
		}
		// As text: JSON has bytes in base64.
		return json.NewEncoder(os.Stdout).Encode(string(exec.Stdout))
	}
	return json.NewEncoder(os.Stdout).Encode(response)
}
