// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// operation is an asynchronous operation on machines.
type operation struct {
	machines []*Machine
	deletes  bool
	begun    time.Time
}

// operationAge is how long an operation can be asked for.
const operationAge = time.Hour

// Paths of operations: their status, and their result.
var (
	operationsPath = strings.ToLower("/subscriptions/" + Subscription + "/providers/Microsoft.ContainerService/locations/sim/operations/")
	resultsPath    = strings.ToLower("/subscriptions/" + Subscription + "/providers/Microsoft.ContainerService/locations/sim/operationresults/")
)

// begin starts an operation and returns the headers that lead to it. The caller holds
// the lock.
func (c *Cloud) begin(deletes bool, machines ...*Machine) http.Header {
	c.lastID++
	id := fmt.Sprintf("%08d", c.lastID)
	c.operations[id] = &operation{machines: machines, deletes: deletes, begun: time.Now()}
	c.due.after(operationAge, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.operations, id)
	})
	h := c.pollHeader()
	const version = "?api-version=2025-10-02-preview"
	h.Set("Azure-Asyncoperation", Endpoint+operationsPath+id+version)
	if deletes {
		h.Set("Location", Endpoint+resultsPath+id+version)
	}
	return h
}

// pollHeader says how long clients are to wait.
func (c *Cloud) pollHeader() http.Header {
	h := http.Header{}
	if d := c.options.Poll; d > 0 {
		h.Set("X-Ms-Retry-After-Ms", strconv.FormatInt(d.Milliseconds(), 10))
		h.Set("Retry-After", strconv.Itoa(max(1, seconds(d))))
	}
	return h
}

// status returns how an operation goes, and the error of one that failed. The caller
// holds the lock.
func (o *operation) status() (status, code, message string) {
	for _, m := range o.machines {
		switch {
		case o.deletes && m.Deleting && m.Deleted.IsZero():
			return "InProgress", "", ""
		case o.deletes:
		case m.state == stateCreating:
			return "InProgress", "", ""
		case m.state == stateFailed:
			return "Failed", m.code, m.text
		case m.Running.IsZero():
			return "Failed", "OperationPreempted", fmt.Sprintf("The machine '%s' was deleted while it was being created.", m.Name)
		}
	}
	return "Succeeded", "", ""
}

// poll answers a question for the status of an operation, or for its result.
func (c *Cloud) poll(id string, result bool) reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.operations[id]
	if o == nil {
		return refuse(http.StatusNotFound, "OperationNotFound", "There is no operation '%s'.", id)
	}
	status, code, message := o.status()
	h := http.Header{}
	if status == "InProgress" {
		h = c.pollHeader()
	}
	if result {
		switch {
		case status == "InProgress":
			h.Set("Location", Endpoint+resultsPath+id+"?api-version=2025-10-02-preview")
			return reply{status: http.StatusAccepted, header: h}
		case code != "":
			return refuse(http.StatusConflict, code, "%s", message)
		case o.deletes:
			return reply{status: http.StatusNoContent}
		}
		return reply{status: http.StatusOK, body: o.machines[0].show()}
	}
	body := map[string]any{"name": id, "status": status, "startTime": o.begun.Format(time.RFC3339Nano)}
	if code != "" {
		body["error"] = map[string]string{"code": code, "message": message}
	}
	return reply{status: http.StatusOK, header: h, body: body}
}
