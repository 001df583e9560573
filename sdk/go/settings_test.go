package auditsdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestSettingsThatDoNotFitAreNamed(t *testing.T) {
	t.Setenv("AUDIT_SERVICE", "")
	for said, wrong := range map[string]Settings{
		"AUDIT_SERVICE":          {},
		"RegistryURL":            {Service: "x", RegistryURL: "ftp://x"},
		"no family":              {Service: "x", Delivery: map[string]DeliveryClass{"login": Spool}},
		"best_effort":            {Service: "x", Delivery: map[string]DeliveryClass{"authentication": "sometimes"}},
		"SpoolDir":               {Service: "x", Delivery: map[string]DeliveryClass{"authentication": Spool}},
		"BufferBytes":            {Service: "x", BufferBytes: -1},
		"RegistryCAFile":         {Service: "x", RegistryCAFile: "there is none"},
		"producer.service":       {Service: strings.Repeat("x", 1_000)},
		"DisableIdempotentWrite": {Service: "x", Kafka: []kgo.Opt{kgo.DisableIdempotentWrite()}},
		"TransactionalID":        {Service: "x", Kafka: []kgo.Opt{kgo.TransactionalID("x")}},
		"ManualFlushing":         {Service: "x", Kafka: []kgo.Opt{kgo.ManualFlushing()}},
		"Kafka: ":                {Service: "x", Kafka: []kgo.Opt{kgo.ProducerBatchMaxBytes(-1)}},
	} {
		made, err := New(wrong)
		var found *ConfigurationError
		if made != nil || !errors.As(err, &found) || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
	}
}

func TestWhatIsNotGivenComesFromTheEnvironment(t *testing.T) {
	folder := t.TempDir()
	for name, value := range map[string]string{
		"AUDIT_SERVICE": "billing", "AUDIT_KAFKA_BOOTSTRAP": "a:1, b:2", "AUDIT_REGISTRY_URL": "http://r",
		"AUDIT_TENANT": "acme", "AUDIT_SERVICE_VERSION": "7", "AUDIT_ENVIRONMENT": "test", "AUDIT_SPOOL_DIR": folder,
	} {
		t.Setenv(name, value)
	}
	found, err := Settings{Tenant: "globex"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	if found.Service != "billing" || found.RegistryURL != "http://r" || found.Tenant != "globex" ||
		found.Version != "7" || found.Environment != "test" || found.SpoolDir != folder || found.HeartbeatTenant != "globex" {
		t.Errorf("%+v", found)
	}
	if brokers := found.brokers(); len(brokers) != 2 || brokers[1] != "b:2" {
		t.Error(brokers)
	}
	if found.BufferBytes != 32<<20 || found.SpoolMaxBytes != 256<<20 || found.Heartbeat != time.Minute {
		t.Errorf("%+v", found)
	}
}

func TestWithoutASpoolNothingIsPromisedBeyondTheProcess(t *testing.T) {
	if class := (Settings{}).classOf("authentication"); class != BestEffort {
		t.Error(class)
	}
	if class := (Settings{SpoolDir: "x"}).classOf("authentication"); class != Spool {
		t.Error(class)
	}
	chosen := Settings{SpoolDir: "x", Delivery: map[string]DeliveryClass{"authentication": FailClosed}}
	if class := chosen.classOf("authentication"); class != FailClosed {
		t.Error(class)
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	given := Settings{RegistryPassword: "pw-1"}
	asJSON, err := json.Marshal(given.RegistryPassword)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprintf("%v", given), fmt.Sprintf("%+v", given), fmt.Sprintf("%#v", given), string(asJSON)} {
		if strings.Contains(shown, "pw-1") {
			t.Error(shown)
		}
	}
}
