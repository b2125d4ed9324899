package main

import (
	"context"
	"errors"

	"github.com/nap-aks/nap/local"
)

// runARM serves the instance's Azure Resource Manager.
func runARM(context.Context, local.Home, local.Instance) error {
	return errors.New("this binary was built without the Resource Manager")
}
