package auditsdk

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

// maxAnswerBytes bounds what is read of a registry's answer; one with an id has about 30.
const maxAnswerBytes = 1 << 20

// schemaIDs are the registry's ids by family, asked for once and remembered: POST /subjects/<subject> of
// Confluent's REST interface, which looks a schema up and registers nothing.
type schemaIDs struct {
	url                string
	username, password string
	client             *http.Client

	mu    sync.Mutex
	known map[string]uint32
}

// newSchemaIDs connects to nothing. The error is a *ConfigurationError.
func newSchemaIDs(s Settings) (*schemaIDs, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if s.RegistryCAFile != "" {
		content, err := os.ReadFile(s.RegistryCAFile)
		if err != nil {
			return nil, &ConfigurationError{"RegistryCAFile: " + err.Error()}
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(content) {
			return nil, &ConfigurationError{"RegistryCAFile holds no certificate"}
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &schemaIDs{
		url:      strings.TrimRight(s.RegistryURL, "/"),
		username: s.RegistryUsername,
		password: string(s.RegistryPassword),
		client:   &http.Client{Transport: transport, Timeout: s.RequestTimeout},
		known:    map[string]uint32{},
	}, nil
}

// ask is the id of the family's schema. A *ConfigurationError says that the schema is not registered or
// that the registry refuses; after any other error, ask again later.
func (r *schemaIDs) ask(ctx context.Context, family string) (uint32, error) {
	r.mu.Lock()
	id, found := r.known[family]
	r.mu.Unlock()
	if found {
		return id, nil
	}
	id, err := r.lookUp(ctx, family)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.known[family] = id
	r.mu.Unlock()
	return id, nil
}

func (r *schemaIDs) lookUp(ctx context.Context, family string) (uint32, error) {
	one := families[family]
	var text bytes.Buffer
	if err := json.Compact(&text, one.Schema); err != nil {
		return 0, fmt.Errorf("bundle.json: %w", err)
	}
	body, err := json.Marshal(map[string]string{"schema": text.String()})
	if err != nil {
		return 0, fmt.Errorf("bundle.json: %w", err)
	}
	request, err := http.NewRequestWithContext(
		ctx, http.MethodPost, r.url+"/subjects/"+one.Subject, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("registry: %w", err)
	}
	request.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	if r.username != "" {
		request.SetBasicAuth(r.username, r.password)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("registry: %s", reasonOf(err))
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswerBytes))
	if err != nil {
		return 0, fmt.Errorf("registry: %s", reasonOf(err))
	}
	return idIn(family, answer.StatusCode, content)
}

func idIn(family string, status int, content []byte) (uint32, error) {
	switch {
	case status == http.StatusOK:
		var found struct{ ID *uint32 }
		if err := json.Unmarshal(content, &found); err != nil || found.ID == nil {
			return 0, fmt.Errorf("registry: its answer has no id")
		}
		return *found.ID, nil
	case status == http.StatusNotFound && bytes.Contains(content, []byte("error_code")):
		return 0, &ConfigurationError{
			"the schema of " + family + " is not registered; run: audit-trail schemas register"}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return 0, &ConfigurationError{
			fmt.Sprintf("the registry refuses RegistryUsername or RegistryPassword (%d)", status)}
	}
	return 0, fmt.Errorf("registry: status %d", status)
}
