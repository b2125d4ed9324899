// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/localazure/home"
)

// cloudName is the name under which az knows this Azure.
const cloudName = "LocalAzure"

func envCommand() *cobra.Command {
	var unset, noLogin bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print shell exports that make kubectl, az and Azure SDKs use this Azure",
		Long: `Env prints shell exports for the instance of the home folder. If az is on PATH,
env first registers this Azure with it and logs it in, in a separate configuration
folder: your own az profile is not changed.`,
		Example: `  eval "$(nap env)"             # bash or zsh: use this Azure in this shell
  az aks list -o table
  eval "$(nap env --unset)"     # stop using it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unset {
				for _, name := range envNames {
					fmt.Fprintf(cmd.OutOrStdout(), "unset %s\n", name)
				}
				return nil
			}
			h, err := openHome()
			if err != nil {
				return err
			}
			if _, err := home.ReadLock(h); err != nil {
				return err
			}
			i, err := home.ReadInstance(h)
			if err != nil {
				return err
			}
			bundle, err := caBundle(h, i)
			if err != nil {
				return err
			}
			if !noLogin {
				if err := loginAz(cmd.Context(), h, i, bundle, cmd.ErrOrStderr()); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "nap: az is not logged in: %v\n", err)
				}
			}
			printEnv(cmd.OutOrStdout(), h, i, bundle)
			return nil
		},
	}
	cmd.Flags().BoolVar(&unset, "unset", false, "print the commands that undo the exports")
	cmd.Flags().BoolVar(&noLogin, "no-login", false, "do not register and log in az")
	return cmd
}

// envNames lists the variables that printEnv sets.
var envNames = []string{"KUBECONFIG", "AZURE_CONFIG_DIR", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "AZURE_CORE_COLLECT_TELEMETRY",
	"AZURE_CORE_INSTANCE_DISCOVERY", "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_SUBSCRIPTION_ID",
	"ARM_METADATA_HOSTNAME", "ARM_TENANT_ID", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_SUBSCRIPTION_ID", "NAP_HOME"}

func printEnv(out io.Writer, h home.Home, i home.Instance, bundle string) {
	secret := `"$(cat ` + quote(i.ClientSecretFile) + `)"` // read by the shell: the output may be logged
	values := map[string]string{
		"KUBECONFIG":                    quote(i.Kubeconfig),
		"AZURE_CONFIG_DIR":              quote(h.Path("az")),
		"REQUESTS_CA_BUNDLE":            quote(bundle),
		"SSL_CERT_FILE":                 quote(bundle),
		"AZURE_CORE_COLLECT_TELEMETRY":  "no",
		"AZURE_CORE_INSTANCE_DISCOVERY": "false",
		"AZURE_AUTHORITY_HOST":          quote(i.ARMEndpoint + "/"),
		"AZURE_TENANT_ID":               i.TenantID,
		"AZURE_CLIENT_ID":               i.ClientID,
		"AZURE_CLIENT_SECRET":           secret,
		"AZURE_SUBSCRIPTION_ID":         i.SubscriptionID,
		"ARM_METADATA_HOSTNAME":         strings.TrimPrefix(i.ARMEndpoint, "https://"),
		"ARM_TENANT_ID":                 i.TenantID,
		"ARM_CLIENT_ID":                 i.ClientID,
		"ARM_CLIENT_SECRET":             secret,
		"ARM_SUBSCRIPTION_ID":           i.SubscriptionID,
		"NAP_HOME":                      quote(h.Dir),
	}
	for _, name := range envNames {
		fmt.Fprintf(out, "export %s=%s\n", name, values[name])
	}
	fmt.Fprintln(out, "# Use it:  eval \"$(nap env)\"")
}

// quote returns s as one shell word.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// caBundle writes the machine's trusted certificate authorities and the instance's
// own into one file, because a variable that names a CA file replaces the
// machine's list.
func caBundle(h home.Home, i home.Instance) (string, error) {
	own, err := os.ReadFile(i.CAFile)
	if err != nil {
		return "", fmt.Errorf("reading the CA certificate of the local Azure: %w", err)
	}
	var system []byte
	for _, f := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if system, err = os.ReadFile(f); err == nil {
			break
		}
	}
	file := h.Path("ca-bundle.pem")
	if err := os.WriteFile(file, bytes.Join([][]byte{system, own}, []byte("\n")), 0o644); err != nil {
		return "", fmt.Errorf("writing the certificate bundle: %w", err)
	}
	return file, nil
}

// loginAz registers this Azure with az and logs in, unless az is already logged in
// with the current endpoint and client.
func loginAz(ctx context.Context, h home.Home, i home.Instance, bundle string, notes io.Writer) error {
	az, err := exec.LookPath("az")
	if err != nil {
		fmt.Fprintln(notes, "nap: az is not on PATH; install it and repeat this command to log it in")
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	dir := h.Path("az")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	marker := h.Path("az", "nap-login")
	want := strings.Join([]string{i.ARMEndpoint, i.TenantID, i.ClientID, i.SubscriptionID}, "\n")
	if b, err := os.ReadFile(marker); err == nil && string(b) == want {
		return nil
	}
	secret, err := i.ClientSecret()
	if err != nil {
		return err
	}
	cloud := h.Path("az", "cloud.json")
	b, err := json.MarshalIndent(cloudConfig(i.ARMEndpoint), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(cloud, b, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, az, args...)
		cmd.Env = append(os.Environ(), "AZURE_CONFIG_DIR="+dir, "REQUESTS_CA_BUNDLE="+bundle, "SSL_CERT_FILE="+bundle, "AZURE_CORE_COLLECT_TELEMETRY=no", "AZURE_CORE_INSTANCE_DISCOVERY=false")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("az %s: %w\n%s", strings.Join(args[:2], " "), err, strings.ReplaceAll(out.String(), secret, "***"))
		}
		return nil
	}
	fmt.Fprintln(notes, "nap: registering this Azure with az, in "+dir)
	if err := run("cloud", "register", "-n", cloudName, "--cloud-config", "@"+cloud); err != nil {
		if err2 := run("cloud", "update", "-n", cloudName, "--cloud-config", "@"+cloud); err2 != nil {
			return errors.Join(err, err2)
		}
	}
	if err := run("cloud", "set", "-n", cloudName); err != nil {
		return err
	}
	if err := run("login", "--service-principal", "-u", i.ClientID, "-p", secret, "--tenant", i.TenantID); err != nil {
		return err
	}
	return os.WriteFile(marker, []byte(want), 0o600)
}

// cloudConfig returns the description of a cloud for az. The authority ends in
// /adfs, which stops every version of az from validating it with Microsoft.
func cloudConfig(arm string) map[string]any {
	host := strings.TrimPrefix(arm, "https://")
	return map[string]any{
		"endpoints": map[string]string{
			"resourceManager": arm, "management": arm, "activeDirectory": arm + "/adfs",
			"activeDirectoryResourceId": arm + "/", "activeDirectoryGraphResourceId": arm + "/",
			"microsoftGraphResourceId": arm, "logAnalyticsResourceId": arm, "gallery": arm, "portal": arm,
		},
		"suffixes": map[string]string{
			"acrLoginServerEndpoint": "." + host, "keyvaultDns": "." + host, "storageEndpoint": host,
		},
	}
}
