package main

import (
	"fmt"
	"os"

	"github.com/nap-aks/nap/local/kube"
)

func main() {
	if err := kube.Run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
