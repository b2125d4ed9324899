// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// deriveGUID returns the GUID that is derived from a string.
func deriveGUID(s string) string {
	sum := sha256.Sum256([]byte(s))
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-5" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}

// CloudName is the name of the cloud in its metadata.
const CloudName = "LocalAzure"

// cloud returns the description of this cloud with which clients configure
// themselves.
func (s *Server) cloud() map[string]any {
	b := s.options.BaseURL
	host := strings.TrimPrefix(b, "https://")
	return map[string]any{
		"name": CloudName, "portal": b + "/portal",
		"authentication":  map[string]any{"loginEndpoint": b, "audiences": []string{b + "/", b}, "tenant": "common", "identityProvider": "AAD"},
		"resourceManager": b, "graph": b, "graphAudience": b, "microsoftGraphResourceId": b, "gallery": b + "/gallery", "media": b + "/media",
		"sqlManagement": b + "/sql", "vmImageAliasDoc": b + "/vmImageAliases", "activeDirectoryDataLake": b + "/datalake", "batch": b + "/batch",
		"logAnalyticsResourceId": b, "logAnalyticslogAnalyticsResourceId": b, "ossrDbmsResourceId": b + "/ossrdbms", "synapseAnalyticsResourceId": b + "/synapse",
		"attestationResourceId": b + "/attest", "appInsightsResourceId": b, "appInsightsTelemetryChannelResourceId": b,
		"suffixes": map[string]any{
			"storage": "storage." + host, "keyVaultDns": "vault." + host, "sqlServerHostname": "database." + host, "acrLoginServer": "azurecr." + host, "storageSyncEndpointSuffix": "afs." + host,
			"mysqlServerEndpoint": "mysql." + host, "postgresqlServerEndpoint": "postgres." + host, "mariadbServerEndpoint": "mariadb." + host, "synapseAnalytics": "synapse." + host,
			"azureDataLakeStoreFileSystem": "datalake." + host, "azureDataLakeAnalyticsCatalogAndJob": "analytics." + host, "mhsmDns": "mhsm." + host, "attestationEndpoint": "attest." + host, "azureFrontDoorEndpointSuffix": "afd." + host,
		},
	}
}

// metadata serves the metadata in the form of the requested version: a flat
// object (2015), an array of clouds (2019), or one cloud (2022 and later).
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	version := r.URL.Query().Get("api-version")
	c := s.cloud()
	var body any = c
	switch {
	case version == "":
		rp.WriteError(w, rp.BadRequest("MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests."))
		return
	case version < "2018":
		body = map[string]any{"galleryEndpoint": c["gallery"], "graphEndpoint": c["graph"], "portalEndpoint": c["portal"],
			"authentication": map[string]any{"loginEndpoint": s.options.BaseURL + "/adfs", "audiences": []string{s.options.BaseURL + "/"}}}
	case version < "2022":
		body = []any{c}
	}
	b, err := json.Marshal(body)
	if err != nil {
		rp.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(b)
}
