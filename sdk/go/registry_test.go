package auditsdk

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// registry answers as it is told to, and keeps the last request.
type registry struct {
	status int
	answer string
	asked  int
	path   string
	schema string
	user   string
}

func (r *registry) ServeHTTP(answer http.ResponseWriter, asked *http.Request) {
	content, _ := io.ReadAll(asked.Body)
	var body struct{ Schema string }
	_ = json.Unmarshal(content, &body)
	r.asked++
	r.path, r.schema = asked.Method+" "+asked.URL.Path, body.Schema
	r.user, _, _ = asked.BasicAuth()
	answer.WriteHeader(r.status)
	_, _ = io.WriteString(answer, r.answer)
}

func idsOf(t *testing.T, s Settings) *schemaIDs {
	t.Helper()
	s.RequestTimeout = time.Second
	made, err := newSchemaIDs(s)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestAnIDIsAskedForOnceByTheSchemaThatIsCarried(t *testing.T) {
	answers := &registry{status: 200, answer: `{"id": 258, "version": 1}`}
	server := httptest.NewServer(answers)
	defer server.Close()
	asked := idsOf(t, Settings{RegistryURL: server.URL + "/", RegistryUsername: "u", RegistryPassword: "p"})
	for range 3 {
		if id, err := asked.ask(t.Context(), family); err != nil || id != 258 {
			t.Error(id, err)
		}
	}
	if answers.asked != 1 || answers.path != "POST /subjects/audit.raw.data-access-value" || answers.user != "u" {
		t.Errorf("%+v", answers)
	}
	if !strings.HasPrefix(answers.schema, `{"type":"record"`) && !strings.Contains(answers.schema, `"name":"DataAccess"`) {
		t.Error(answers.schema)
	}
}

func TestWhatAPersonMustMendIsToldFromWhatPasses(t *testing.T) {
	answers := &registry{}
	server := httptest.NewServer(answers)
	asked := idsOf(t, Settings{RegistryURL: server.URL})
	for _, one := range []struct {
		status       int
		answer, said string
		toMend       bool
	}{
		{404, `{"error_code": 40403}`, "is not registered", true},
		{404, `<html>`, "status 404", false},
		{401, ``, "RegistryPassword", true},
		{403, ``, "RegistryPassword", true},
		{500, ``, "status 500", false},
		{200, `{}`, "no id", false},
		{200, `<html>`, "no id", false},
	} {
		answers.status, answers.answer = one.status, one.answer
		_, err := asked.ask(t.Context(), family)
		var mend *ConfigurationError
		if err == nil || errors.As(err, &mend) != one.toMend || !strings.Contains(err.Error(), one.said) {
			t.Error(one, err)
		}
	}
	server.Close()
	if _, err := asked.ask(t.Context(), family); err == nil || strings.Count(err.Error(), "127.0.0.1") > 1 {
		t.Error(err)
	}
}

func TestARegistrysOwnAuthorityIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(&registry{status: 200, answer: `{"id": 7}`})
	defer server.Close()
	if _, err := idsOf(t, Settings{RegistryURL: server.URL}).ask(t.Context(), family); err == nil {
		t.Error("a stranger's certificate is taken")
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := idsOf(t, Settings{RegistryURL: server.URL, RegistryCAFile: file}).ask(t.Context(), family); err != nil || id != 7 {
		t.Error(id, err)
	}
}
