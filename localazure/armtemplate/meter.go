package armtemplate

import (
	"errors"
	"fmt"
)

// errTooMuch says that a limit of evaluation was hit.
var errTooMuch = errors.New("evaluation limit")

// meter counts what evaluation costs.
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

// call enters a user function, a lambda, a variable or a parameter default.
func (m *meter) call() error {
	if m.depth++; m.depth > maxCallDepth {
		return failf("functions, variables and lambdas call each other more than %d deep", maxCallDepth)
	}
	return nil
}

func (m *meter) ret() { m.depth-- }
