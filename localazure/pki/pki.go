// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pki keeps the certificate authorities of the local Azure and the
// certificates they sign as files. A certificate is reused from run to run until
// its content changes or it is about to expire.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nap-aks/nap/localazure/home"
)

// Authority signs the certificates of one trust domain: the instance's (etcd,
// ARM) or one managed cluster's. Its files are in the folder of those it signs.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// Validity of certificates. Leaves are renewed when less than leafRenew is left,
// so the certificates of an instance used once a year never expire.
const (
	caLife    = 20 * 365 * 24 * time.Hour
	leafLife  = 3 * 365 * 24 * time.Hour
	leafRenew = 365 * 24 * time.Hour
)

// OpenAuthority loads dir/ca.crt and dir/ca.key, or creates them.
func OpenAuthority(dir, name string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("authority %s: %w", name, err)
	}
	crt, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	cert, signer, err := loadPair(crt, key)
	if err == nil {
		return &Authority{dir: dir, cert: cert, key: signer}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("authority %s: %w; `nap reset` starts from nothing", name, err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", name, err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", name, err)
	}
	if err := savePair(crt, key, der, k); err != nil {
		return nil, fmt.Errorf("authority %s: %w", name, err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("authority %s: %w", name, err)
	}
	return &Authority{dir: dir, cert: cert, key: k}, nil
}

// Pair holds the file names of a certificate and its key.
type Pair struct{ CertFile, KeyFile string }

// CAFile returns the file of the authority's own certificate.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, "ca.crt") }

// Server returns the certificate of that name for the hosts, and creates or
// renews it if necessary. It is valid for clients too: etcd's peers are both.
func (a *Authority) Server(name string, hosts ...string) (Pair, error) {
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return a.issue(name, tmpl)
}

// Client returns the certificate that authenticates as user, a member of groups.
func (a *Authority) Client(name, user string, groups ...string) (Pair, error) {
	return a.issue(name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *Authority) issue(name string, tmpl *x509.Certificate) (Pair, error) {
	p := Pair{CertFile: filepath.Join(a.dir, name+".crt"), KeyFile: filepath.Join(a.dir, name+".key")}
	if old, _, err := loadPair(p.CertFile, p.KeyFile); err == nil && a.stillValid(old, tmpl) {
		return p, nil
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return p, fmt.Errorf("certificate %s: %w", name, err)
	}
	tmpl.SerialNumber = serial()
	tmpl.NotBefore = time.Now().Add(-time.Hour)
	tmpl.NotAfter = time.Now().Add(leafLife)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		return p, fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := savePair(p.CertFile, p.KeyFile, der, k); err != nil {
		return p, fmt.Errorf("certificate %s: %w", name, err)
	}
	return p, nil
}

// stillValid reports whether a certificate on disk is signed by this authority,
// has the template's content, and does not expire soon.
func (a *Authority) stillValid(c, want *x509.Certificate) bool {
	return c.CheckSignatureFrom(a.cert) == nil &&
		time.Until(c.NotAfter) > leafRenew &&
		c.Subject.CommonName == want.Subject.CommonName &&
		slices.Equal(c.Subject.Organization, want.Subject.Organization) &&
		slices.Equal(c.DNSNames, want.DNSNames) &&
		slices.EqualFunc(c.IPAddresses, want.IPAddresses, func(x, y net.IP) bool { return x.Equal(y) })
}

// SigningKey returns the files of a key that signs tokens and of its public half,
// and creates them if they are missing.
func SigningKey(dir, name string) (private, public string, err error) {
	private, public = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	_, perr := os.Stat(public)
	if _, err := os.Stat(private); err == nil && perr == nil {
		return private, public, nil
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("key %s: %w", name, err)
	}
	priv, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return "", "", fmt.Errorf("key %s: %w", name, err)
	}
	pub, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return "", "", fmt.Errorf("key %s: %w", name, err)
	}
	if err := home.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: priv}), 0o600); err != nil {
		return "", "", fmt.Errorf("key %s: %w", name, err)
	}
	if err := home.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), 0o600); err != nil {
		return "", "", fmt.Errorf("key %s: %w", name, err)
	}
	return private, public, nil
}

func loadPair(certFile, keyFile string) (*x509.Certificate, crypto.Signer, error) {
	c, err := os.ReadFile(certFile)
	if err != nil {
		return nil, nil, err
	}
	k, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, nil, err
	}
	cb, _ := pem.Decode(c)
	kb, _ := pem.Decode(k)
	if cb == nil || kb == nil {
		return nil, nil, fmt.Errorf("%s or %s is not PEM", certFile, keyFile)
	}
	cert, err := x509.ParseCertificate(cb.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := x509.ParseECPrivateKey(kb.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(key.Public()) {
		return nil, nil, fmt.Errorf("%s does not belong to %s", keyFile, certFile)
	}
	return cert, key, nil
}

// savePair writes the key first, so that no certificate is on disk without it.
func savePair(certFile, keyFile string, der []byte, k *ecdsa.PrivateKey) error {
	kb, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return err
	}
	if err := home.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kb}), 0o600); err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := pem.Encode(&buf, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return err
	}
	return home.WriteFile(certFile, buf.Bytes(), 0o600)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		// Without the system's random source no key or serial is safe.
		panic(fmt.Sprintf("reading random numbers: %v", err))
	}
	return n
}
