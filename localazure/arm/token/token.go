// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package token is the local Azure's identity platform: service principals and
// managed identities in etcd, the OAuth 2.0 token endpoints of Microsoft Entra ID
// and AD FS, and the validation of bearer tokens.
//
// Tokens are JWTs signed with a key of this instance (RS256). An expired token,
// or one with another signature, issuer, tenant or audience, is refused.
package token

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// Identity is a principal that can get tokens, as it is stored.
type Identity struct {
	ObjectID    string `json:"objectID"`
	AppID       string `json:"appID"`
	TenantID    string `json:"tenantID"`
	DisplayName string `json:"displayName"`
	// Kind is "Application" or "ManagedIdentity".
	Kind string `json:"kind"`
	// Secrets are salted hashes, "salt:hash" in hexadecimal.
	Secrets []string `json:"secrets,omitempty"`
	// Certificates are PEM certificates whose keys may sign client assertions.
	Certificates []string `json:"certificates,omitempty"`
	// Resource is the ARM ID of the managed identity or cluster that it belongs to.
	Resource string `json:"resource,omitempty"`
}

const appPrefix = "/nap/arm/apps/"

// lifetime is how long a token is valid.
const lifetime = time.Hour

// Service issues and validates tokens.
type Service struct {
	KV       clientv3.KV
	TenantID string
	// BaseURL is the server's URL, such as https://localhost:8443.
	BaseURL string
	Now     func() time.Time
	key     *rsa.PrivateKey
	kid     string

	mu       sync.Mutex
	verified map[[32]byte]verified
}

type verified struct {
	principal rp.Principal
	audience  string
	expires   time.Time
}

// New returns a service that signs with the key in keyFile (PEM). It creates the
// file, with mode 0600, if it does not exist.
func New(kv clientv3.KV, tenant, baseURL, keyFile string, now func() time.Time) (*Service, error) {
	key, err := loadKey(keyFile)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	return &Service{KV: kv, TenantID: tenant, BaseURL: baseURL, Now: now, key: key, kid: hex.EncodeToString(sum[:8]), verified: map[[32]byte]verified{}}, nil
}

func loadKey(file string) (*rsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("generating the token signing key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encoding the token signing key: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, fmt.Errorf("creating the folder of the token signing key: %w", err)
		}
		tmp := file + ".new"
		if err := os.WriteFile(tmp, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return nil, fmt.Errorf("writing the token signing key: %w", err)
		}
		if err := os.Rename(tmp, file); err != nil {
			return nil, fmt.Errorf("writing the token signing key: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the token signing key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("token signing key %s is not PEM; remove the file to create a new key (all tokens become invalid)", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing the token signing key %s: %w", file, err)
	}
	key, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("token signing key %s is not an RSA key", file)
	}
	return key, nil
}

// HashSecret returns the salted hash of a secret, as Identity.Secrets has it.
func HashSecret(secret string) string {
	var salt [16]byte
	if _, err := rand.Read(salt[:]); err != nil {
		panic("reading random bytes: " + err.Error())
	}
	return hashWith(hex.EncodeToString(salt[:]), secret)
}

func hashWith(salt, secret string) string {
	// Secrets are random and long, so one round is enough.
	h := sha256.Sum256([]byte(salt + "\x00" + secret))
	return salt + ":" + hex.EncodeToString(h[:])
}

// PutOps returns the writes of an identity, for a transaction.
func PutOps(id Identity) []clientv3.Op {
	return []clientv3.Op{
		rp.JSONOp(rp.PrincipalPrefix+strings.ToLower(id.ObjectID), id),
		clientv3.OpPut(appPrefix+strings.ToLower(id.AppID), id.ObjectID),
	}
}

// DeleteOps returns the deletions of an identity, for a transaction.
func DeleteOps(objectID, appID string) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(rp.PrincipalPrefix + strings.ToLower(objectID)),
		clientv3.OpDelete(appPrefix + strings.ToLower(appID)),
	}
}

// Put writes an identity.
func (s *Service) Put(ctx context.Context, id Identity) error {
	if _, err := s.KV.Txn(ctx).Then(PutOps(id)...).Commit(); err != nil {
		return fmt.Errorf("writing the identity %s: %w", id.DisplayName, err)
	}
	return nil
}

// ByObjectID returns the identity with an object ID, or nil.
func ByObjectID(ctx context.Context, kv clientv3.KV, oid string) (*Identity, error) {
	resp, err := kv.Get(ctx, rp.PrincipalPrefix+strings.ToLower(oid))
	if err != nil {
		return nil, fmt.Errorf("reading the identity %s: %w", oid, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	var id Identity
	if err := json.Unmarshal(resp.Kvs[0].Value, &id); err != nil {
		return nil, fmt.Errorf("decoding the identity %s: %w", oid, err)
	}
	return &id, nil
}

// ByAppID returns the identity with a client ID, or nil.
func ByAppID(ctx context.Context, kv clientv3.KV, appID string) (*Identity, error) {
	resp, err := kv.Get(ctx, appPrefix+strings.ToLower(appID))
	if err != nil {
		return nil, fmt.Errorf("reading the application %s: %w", appID, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return ByObjectID(ctx, kv, string(resp.Kvs[0].Value))
}

// All returns the identities, ordered by object ID.
func All(ctx context.Context, kv clientv3.KV) ([]Identity, error) {
	resp, err := kv.Get(ctx, rp.PrincipalPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("listing the identities: %w", err)
	}
	out := make([]Identity, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		var id Identity
		if err := json.Unmarshal(kv.Value, &id); err != nil {
			return nil, fmt.Errorf("decoding %s: %w", kv.Key, err)
		}
		out = append(out, id)
	}
	return out, nil
}

// Audience is the service that a token is for.
type Audience string

// The audiences.
const (
	ARM       Audience = "arm"
	Graph     Audience = "graph"
	Analytics Audience = "analytics"
)

// audiencesOf returns the services that a resource URI stands for. The server's
// own URL stands for all of them, as in the clouds that az registers.
func (s *Service) audiencesOf(resource string) []Audience {
	r := strings.ToLower(strings.TrimRight(resource, "/"))
	port := s.BaseURL[strings.LastIndexByte(s.BaseURL, ':'):]
	switch r {
	case strings.ToLower(s.BaseURL), "https://localhost" + port, "https://127.0.0.1" + port:
		return []Audience{ARM, Graph, Analytics}
	case "https://management.azure.com", "https://management.core.windows.net":
		return []Audience{ARM}
	case "https://graph.microsoft.com", "https://graph.windows.net", "00000003-0000-0000-c000-000000000000":
		return []Audience{Graph}
	case "https://api.loganalytics.io", "https://api.loganalytics.azure.com":
		return []Audience{Analytics}
	}
	return nil
}

type claims struct {
	jwt.RegisteredClaims
	OID   string `json:"oid"`
	TID   string `json:"tid"`
	AppID string `json:"appid"`
	IDTyp string `json:"idtyp"`
	Ver   string `json:"ver"`
	ACR   string `json:"appidacr"`
}

// Entra ID writes the single audience of a token as a string. Clients that read
// the claims of their tokens, such as azurerm, accept nothing else.
func init() { jwt.MarshalSingleStringAsArray = false }

func (s *Service) issuer() string { return s.BaseURL + "/" + s.TenantID + "/" }

// Issue returns a token of an identity for a resource URI.
func (s *Service) Issue(id *Identity, resource string) (string, error) {
	now := s.Now()
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: s.issuer(), Audience: jwt.ClaimStrings{resource}, Subject: id.ObjectID,
			ExpiresAt: jwt.NewNumericDate(now.Add(lifetime)), NotBefore: jwt.NewNumericDate(now.Add(-5 * time.Minute)), IssuedAt: jwt.NewNumericDate(now),
			ID: rp.NewGUID(),
		},
		OID: id.ObjectID, TID: s.TenantID, AppID: id.AppID, IDTyp: "app", Ver: "1.0", ACR: "1",
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"] = s.kid
	out, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return out, nil
}

func (s *Service) unauthorized(code, format string, args ...any) *rp.Error {
	e := rp.Errorf(http.StatusUnauthorized, code, format, args...)
	e.Header = http.Header{"Www-Authenticate": {fmt.Sprintf(`Bearer authorization_uri="%s/%s", error="invalid_token", error_description="%s"`, s.BaseURL, s.TenantID, strings.ReplaceAll(e.Message, `"`, `'`))}}
	return e
}

// Authenticate validates a request's bearer token for an audience and returns its
// principal. Errors are ARM's 401s.
func (s *Service) Authenticate(ctx context.Context, r *http.Request, want Audience) (rp.Principal, error) {
	h := r.Header.Get("Authorization")
	if h == "" {
		return rp.Principal{}, s.unauthorized("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	scheme, raw, _ := strings.Cut(h, " ")
	if !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return rp.Principal{}, s.unauthorized("AuthenticationFailedInvalidHeader", "Authentication failed. The 'Authorization' header is provided in an invalid format.")
	}
	sum := sha256.Sum256([]byte(raw))
	s.mu.Lock()
	v, ok := s.verified[sum]
	s.mu.Unlock()
	if !ok {
		var err error
		if v, err = s.verify(raw); err != nil {
			return rp.Principal{}, err
		}
		s.mu.Lock()
		if len(s.verified) > 4096 {
			clear(s.verified)
		}
		s.verified[sum] = v
		s.mu.Unlock()
	}
	if !s.Now().Before(v.expires) {
		return rp.Principal{}, s.unauthorized("ExpiredAuthenticationToken", "The access token expiry UTC time '%s' is earlier than current UTC time '%s'.", v.expires.UTC().Format(time.RFC1123), s.Now().UTC().Format(time.RFC1123))
	}
	for _, a := range s.audiencesOf(v.audience) {
		if a == want {
			return s.mustExist(ctx, v.principal)
		}
	}
	return rp.Principal{}, s.unauthorized("InvalidAuthenticationTokenAudience", "The access token has been obtained for wrong audience or resource '%s'. It should exactly match with one of the allowed audiences '%s/'.", v.audience, s.BaseURL)
}

// mustExist refuses the token of a principal that has been deleted since.
func (s *Service) mustExist(ctx context.Context, p rp.Principal) (rp.Principal, error) {
	resp, err := s.KV.Get(ctx, rp.PrincipalPrefix+strings.ToLower(p.ObjectID))
	if err != nil {
		return p, fmt.Errorf("reading the principal %s: %w", p.ObjectID, err)
	}
	if resp.Count == 0 {
		return p, s.unauthorized("InvalidAuthenticationToken", "The principal '%s' of the access token does not exist any more.", p.ObjectID)
	}
	return p, nil
}

func (s *Service) verify(raw string) (verified, error) {
	var c claims
	_, err := jwt.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return &s.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.Now), jwt.WithIssuedAt(), jwt.WithIssuer(s.issuer()))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return verified{}, s.unauthorized("ExpiredAuthenticationToken", "The access token expiry UTC time '%s' is earlier than current UTC time '%s'.", c.ExpiresAt.UTC().Format(time.RFC1123), s.Now().UTC().Format(time.RFC1123))
	case err != nil:
		return verified{}, s.unauthorized("InvalidAuthenticationToken", "The access token is invalid.")
	case !strings.EqualFold(c.TID, s.TenantID):
		return verified{}, s.unauthorized("InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer. It must match the tenant '%s' associated with this subscription.", s.TenantID)
	case c.OID == "" || len(c.Audience) != 1:
		return verified{}, s.unauthorized("InvalidAuthenticationToken", "The access token is invalid: it lacks oid or aud.")
	}
	return verified{principal: rp.Principal{ObjectID: c.OID, AppID: c.AppID, TenantID: c.TID, Type: "ServicePrincipal"}, audience: c.Audience[0], expires: c.ExpiresAt.Time}, nil
}

// oauthError writes an error in the form of Microsoft Entra ID.
func oauthError(w http.ResponseWriter, status, number int, code, format string, args ...any) {
	trace := rp.NewGUID()
	body := map[string]any{
		"error":             code,
		"error_description": fmt.Sprintf("AADSTS%d: ", number) + fmt.Sprintf(format, args...) + " Trace ID: " + trace,
		"error_codes":       []int{number}, "trace_id": trace, "correlation_id": rp.NewGUID(),
		"timestamp": time.Now().UTC().Format("2006-01-02 15:04:05Z"),
	}
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		status, b = 500, []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// Handles reports whether a path belongs to the identity platform.
func (s *Service) Handles(path string) bool {
	p := strings.ToLower(path)
	return strings.HasSuffix(p, "/.well-known/openid-configuration") || strings.HasSuffix(p, "/oauth2/v2.0/token") ||
		strings.HasSuffix(p, "/oauth2/token") || strings.HasSuffix(p, "/discovery/v2.0/keys") || strings.HasSuffix(p, "/discovery/keys") ||
		p == "/common/discovery/instance"
}

// ServeHTTP serves the identity platform's requests.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := strings.ToLower(r.URL.Path)
	tenant, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if p == "/common/discovery/instance" {
		host := strings.TrimPrefix(s.BaseURL, "https://")
		writeJSON(w, 200, map[string]any{
			"tenant_discovery_endpoint": s.BaseURL + "/" + s.TenantID + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": host, "preferred_cache": host, "aliases": []string{host}}}})
		return
	}
	adfs := tenant == "adfs"
	if !adfs && tenant != "common" && tenant != "organizations" && tenant != strings.ToLower(s.TenantID) {
		oauthError(w, 400, 90002, "invalid_tenant", "Tenant '%s' not found. Check that you have the correct tenant ID.", tenant)
		return
	}
	switch {
	case strings.HasSuffix(p, "/.well-known/openid-configuration"):
		base := s.BaseURL + "/" + s.TenantID
		doc := map[string]any{
			"issuer": s.issuer(), "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
			"device_authorization_endpoint": base + "/oauth2/v2.0/devicecode", "jwks_uri": base + "/discovery/v2.0/keys",
			"response_types_supported": []string{"token"}, "subject_types_supported": []string{"pairwise"}, "id_token_signing_alg_values_supported": []string{"RS256"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"}, "grant_types_supported": []string{"client_credentials"},
		}
		if adfs {
			base = s.BaseURL + "/adfs"
			doc["authorization_endpoint"], doc["token_endpoint"] = base+"/oauth2/authorize", base+"/oauth2/token"
			doc["device_authorization_endpoint"], doc["jwks_uri"] = base+"/oauth2/devicecode", base+"/discovery/keys"
		}
		writeJSON(w, 200, doc)
	case strings.HasSuffix(p, "/keys"):
		e := []byte{byte(s.key.E >> 16), byte(s.key.E >> 8), byte(s.key.E)}
		writeJSON(w, 200, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": s.kid,
			"n": base64.RawURLEncoding.EncodeToString(s.key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(e)}}})
	case r.Method != http.MethodPost:
		oauthError(w, 400, 900561, "invalid_request", "The endpoint only accepts POST requests. Received a %s request.", r.Method)
	default:
		s.serveToken(w, r)
	}
}

func (s *Service) serveToken(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if err := r.ParseForm(); err != nil {
		oauthError(w, 400, 900144, "invalid_request", "The request body could not be read.")
		return
	}
	f := r.PostForm
	if g := f.Get("grant_type"); g != "client_credentials" {
		oauthError(w, 400, 70003, "unsupported_grant_type", "The app requested an unsupported grant type '%s'. This local Azure supports client_credentials only: sign in as a service principal.", g)
		return
	}
	resource := f.Get("resource")
	for _, sc := range strings.Fields(f.Get("scope")) {
		if strings.HasSuffix(sc, "/.default") {
			resource = strings.TrimSuffix(sc, "/.default")
		}
	}
	if len(s.audiencesOf(resource)) == 0 {
		oauthError(w, 400, 500011, "invalid_resource", "The resource principal named %s was not found in the tenant. This server's resource is %s/.", resource, s.BaseURL)
		return
	}
	clientID := f.Get("client_id")
	id, err := ByAppID(r.Context(), s.KV, clientID)
	if err != nil {
		oauthError(w, 503, 90033, "temporarily_unavailable", "A transient error has occurred. Please try again.")
		return
	}
	if id == nil {
		oauthError(w, 400, 700016, "unauthorized_client", "Application with identifier '%s' was not found in the directory.", clientID)
		return
	}
	switch {
	case f.Get("client_assertion") != "":
		if err := s.checkAssertion(id, f.Get("client_assertion")); err != nil {
			oauthError(w, 401, 700027, "invalid_client", "The certificate with which the client assertion is signed is not registered on the application: %v.", err)
			return
		}
	case !checkSecret(id, f.Get("client_secret")):
		oauthError(w, 401, 7000215, "invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", clientID)
		return
	}
	tok, err := s.Issue(id, resource)
	if err != nil {
		oauthError(w, 500, 90033, "server_error", "%v", err)
		return
	}
	secs := int(lifetime / time.Second)
	writeJSON(w, 200, map[string]any{"token_type": "Bearer", "expires_in": secs, "ext_expires_in": secs, "access_token": tok})
}

func checkSecret(id *Identity, secret string) bool {
	ok := false
	for _, h := range id.Secrets {
		salt, _, _ := strings.Cut(h, ":")
		if subtle.ConstantTimeCompare([]byte(h), []byte(hashWith(salt, secret))) == 1 {
			ok = true
		}
	}
	return ok && secret != ""
}

// checkAssertion validates a client assertion (RFC 7523) with the certificates of
// an identity.
func (s *Service) checkAssertion(id *Identity, assertion string) error {
	last := errors.New("the application has no certificates")
	for _, c := range id.Certificates {
		block, _ := pem.Decode([]byte(c))
		if block == nil {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			last = err
			continue
		}
		if now := s.Now(); now.After(cert.NotAfter) {
			last = errors.New("the certificate has expired")
			continue
		}
		var rc jwt.RegisteredClaims
		_, err = jwt.ParseWithClaims(assertion, &rc, func(*jwt.Token) (any, error) { return cert.PublicKey, nil },
			jwt.WithValidMethods([]string{"RS256", "PS256", "ES256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.Now))
		switch {
		case err != nil:
			last = err
		case !strings.EqualFold(rc.Subject, id.AppID) || !strings.EqualFold(rc.Issuer, id.AppID):
			last = errors.New("the assertion is for another application")
		case len(rc.Audience) == 0 || !strings.HasPrefix(strings.ToLower(rc.Audience[0]), strings.ToLower(s.BaseURL)+"/"):
			last = errors.New("the assertion is for another token endpoint")
		default:
			return nil
		}
	}
	return last
}
