// Command nap is a local Azure whose AKS clusters provision their own nodes.
package main

import (
	"fmt"
	"os"

	"github.com/nap-aks/nap/local"
)

func main() {
	if len(os.Args) < 3 || os.Args[1] != "component" {
		fmt.Fprintln(os.Stderr, "usage: nap component NAME …")
		os.Exit(2)
	}
	if err := local.RunComponent(os.Args[2], os.Args[3:], local.Rooms{Controller: runController}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
