// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"fmt"
)

// errTooMuch is the cause of errors about the limits of evaluation.
var errTooMuch = errors.New("evaluation limit")

// meter counts the steps, bytes and nested calls of evaluation.
type meter struct {
	steps, bytes int
	depth        int
}

func (m *meter) step(n int) error {
	if m.steps += n; m.steps > MaxSteps {
		return &evalError{msg: fmt.Sprintf("evaluating the template takes more than %d steps; simplify its expressions and loops", MaxSteps), off: -1, err: errTooMuch}
	}
	return nil
}

func (m *meter) grow(n int) error {
	if m.bytes += n; m.bytes > MaxProducedBytes {
		return &evalError{msg: fmt.Sprintf("evaluating the template produces more than %d bytes; simplify its expressions and loops", MaxProducedBytes), off: -1, err: errTooMuch}
	}
	return nil
}

// call counts the call of a user function or lambda, or the evaluation of a
// variable or default value. ret ends it.
func (m *meter) call() error {
	if m.depth++; m.depth > maxCallDepth {
		return failf("calls of functions, variables and lambdas are nested deeper than %d levels", maxCallDepth)
	}
	return nil
}

func (m *meter) ret() { m.depth-- }
