// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

const (
	commandTimeout = 5 * time.Minute
	maxCommandLog  = 512 << 10 // bytes of output
	maxContextFile = 8 << 20   // bytes of unpacked files
)

func (p *Provider) addCommands() {
	p.env.Add(&rp.Type{Name: "Microsoft.ContainerService/managedClusters/commandResults", Versions: apiVersions, Scope: rp.InGroup, Virtual: true, Flat: true, Get: p.commandResult})
	p.env.Engine.Register("RunCommand", rp.Kind{Step: p.stepCommand})
}

// words splits a command line like a shell, without expansions.
func words(s string) ([]string, error) {
	var out []string
	var cur strings.Builder
	quote, in := rune(0), false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			cur.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				out = append(out, cur.String())
				cur.Reset()
				in = false
			}
		case strings.ContainsRune("|;&<>`$()", r):
			return nil, fmt.Errorf("%q is shell syntax, which is not supported: give one kubectl command", r)
		default:
			cur.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unclosed quotation mark %q", quote)
	}
	if in {
		out = append(out, cur.String())
	}
	return out, nil
}

func commandID(op string) string { return strings.ReplaceAll(op, "-", "") }

func operationID(command string) string {
	if len(command) != 32 {
		return command
	}
	return command[:8] + "-" + command[8:12] + "-" + command[12:16] + "-" + command[16:20] + "-" + command[20:]
}

// runCommand runs a kubectl command in the cluster, as `az aks command invoke`
// asks for.
func (p *Provider) runCommand(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	command := q.Body.Str("command")
	if strings.TrimSpace(command) == "" {
		return nil, rp.BadRequest("InvalidParameter", "Required parameter command is missing (null).").At("command")
	}
	if len(p.Kubectl) == 0 {
		return nil, rp.Errorf(http.StatusNotImplemented, "CommandNotSupported", "This Resource Manager was started without kubectl, which runs the commands.")
	}
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: r.ParsedID(), Type: q.Type, Doc: r.Doc, Op: &rp.Operation{Kind: "RunCommand", Verb: "Running", Data: rp.Doc{"command": command, "context": q.Body.Str("context")}}}
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return p.commandPending(q, r.ID, c.Op), nil
}

func (p *Provider) commandPending(q *rp.Request, cluster string, op *rp.Operation) *rp.Response {
	h := http.Header{"Location": {p.env.BaseURL + cluster + "/commandResults/" + commandID(op.ID) + "?api-version=" + q.APIVersion}, "Retry-After": {"1"}}
	return &rp.Response{Status: http.StatusAccepted, Header: h, Body: rp.Doc{"id": commandID(op.ID), "properties": map[string]any{"provisioningState": "Running", "startedAt": op.Start.Format(time.RFC3339Nano)}}}
}

func (p *Provider) commandResult(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.cluster(ctx, clusterOf(q.ID))
	if err != nil {
		return nil, err
	}
	op, err := p.env.Engine.Get(ctx, operationID(q.ID.Name()))
	if err != nil {
		return nil, err
	}
	if op == nil || op.Kind != "RunCommand" || !strings.EqualFold(op.Resource, r.ID) {
		return nil, rp.Errorf(404, "NotFound", "There is no command '%s' of cluster '%s'.", q.ID.Name(), clusterOf(q.ID).Name())
	}
	if !op.Done() {
		return p.commandPending(q, r.ID, op), nil
	}
	props := map[string]any{"provisioningState": op.Status, "startedAt": op.Start.Format(time.RFC3339Nano), "finishedAt": op.End.Format(time.RFC3339Nano)}
	for k, v := range op.Result {
		props[k] = v
	}
	if op.Error != nil {
		props["reason"] = op.Error.Message
	}
	return &rp.Response{Body: rp.Doc{"id": commandID(op.ID), "properties": props}}, nil
}

// stepCommand runs the command once. If the process died meanwhile, the command
// has failed, since its outcome is not known.
func (p *Provider) stepCommand(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	if op.Data.Bool("started") {
		return rp.Step{}, rp.Conflict("CommandInterrupted", "The Resource Manager was restarted while the command ran; its outcome is not known.")
	}
	r, err := p.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	st, _, err := p.status(ctx, r.UID)
	if err != nil {
		return rp.Step{}, err
	}
	if st.AdminKubeconfig == "" {
		return rp.Step{}, rp.Conflict("OperationNotAllowed", "The control plane of the cluster is not up yet.")
	}
	if _, err := p.env.Store.KV.Txn(ctx).Then(rp.JSONOp(rp.OperationPrefix+op.ID, started(op))).Commit(); err != nil {
		return rp.Step{}, fmt.Errorf("saving operation %s: %w", op.ID, err)
	}
	code, out := p.kubectl(ctx, st.AdminKubeconfig, op.Data.Str("command"), op.Data.Str("context"))
	return rp.Step{Done: true, Forced: true, Result: rp.Doc{"exitCode": float64(code), "logs": out}, Ops: []clientv3.Op{}}, nil
}

func started(op *rp.Operation) *rp.Operation {
	c := *op
	c.Data = op.Data.Clone()
	c.Data["started"] = true
	return &c
}

// kubectl runs a command line and returns its exit code and output.
func (p *Provider) kubectl(ctx context.Context, kubeconfig, line, contextZip string) (int, string) {
	argv, err := words(line)
	if err != nil {
		return 2, err.Error() + "\n"
	}
	if len(argv) == 0 || argv[0] != "kubectl" {
		return 127, fmt.Sprintf("%s: command not found; commands here are kubectl …\n", strings.Join(argv, " "))
	}
	if err := checkCommand(argv[1:]); err != nil {
		return 1, err.Error() + "\n"
	}
	dir, err := os.MkdirTemp("", "nap-command-")
	if err != nil {
		return 1, err.Error() + "\n"
	}
	defer func() { _ = os.RemoveAll(dir) }()
	work := filepath.Join(dir, "files")
	if err := errors.Join(os.Mkdir(work, 0o700), os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(kubeconfig), 0o600), unzip(contextZip, work)); err != nil {
		return 1, err.Error() + "\n"
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	args := append(append([]string{}, p.Kubectl[1:]...), "--kubeconfig="+filepath.Join(dir, "kubeconfig"))
	cmd := exec.CommandContext(ctx, p.Kubectl[0], append(args, argv[1:]...)...)
	cmd.Dir = work
	// No settings, plugins or programs of the user whom this process runs as.
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=" + dir, "KUBERC=off"}
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&out}, &limited{&out}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), out.String()
	case err != nil:
		return 1, out.String() + err.Error() + "\n"
	}
	return 0, out.String()
}

// limited keeps the first maxCommandLog bytes written.
type limited struct{ b *bytes.Buffer }

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if left := maxCommandLog - l.b.Len(); left > 0 {
		l.b.Write(p[:min(len(p), left)])
	}
	return len(p), nil
}

// unzip unpacks the files of a command, a base64 ZIP, into dir.
func unzip(encoded, dir string) error {
	if encoded == "" {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return fmt.Errorf("decoding the command's files from base64: %w", err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return fmt.Errorf("reading the command's files as a ZIP: %w", err)
	}
	left := int64(maxContextFile)
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("file name %q is outside of the working directory", f.Name)
		}
		target := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("unpacking file %q: %w", f.Name, err)
		}
		data, err := io.ReadAll(io.LimitReader(r, left+1))
		_ = r.Close()
		if err != nil {
			return fmt.Errorf("unpacking file %q: %w", f.Name, err)
		}
		if left -= int64(len(data)); left < 0 {
			return fmt.Errorf("the command's files exceed %d bytes", maxContextFile)
		}
		if err := os.WriteFile(target, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
