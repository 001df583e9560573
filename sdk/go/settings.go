package auditsdk

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Secret is text that is not shown when it is printed.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// systemFamily is the SDK's own: its heartbeats.
const systemFamily = "system"

// Settings are what an Audit is made of. What is zero comes from the environment variable that is named,
// then from the default.
type Settings struct {
	Service     string // AUDIT_SERVICE; required
	Bootstrap   string // AUDIT_KAFKA_BOOTSTRAP; host:port, separated by commas; 127.0.0.1:19092
	RegistryURL string // AUDIT_REGISTRY_URL; http://127.0.0.1:18080/apis/ccompat/v7
	Tenant      string // AUDIT_TENANT; of events that name none
	Version     string // AUDIT_SERVICE_VERSION
	Environment string // AUDIT_ENVIRONMENT
	Instance    string // this process; host and process id

	// Kafka are franz-go's own options (TLS, SASL, dialling). What the trail needs wins over them.
	Kafka []kgo.Opt

	RegistryUsername string
	RegistryPassword Secret
	RegistryCAFile   string // PEM; the system's otherwise

	// Delivery chooses a class by family; otherwise Spool where there is a SpoolDir, else BestEffort.
	Delivery      map[string]DeliveryClass
	SpoolDir      string // AUDIT_SPOOL_DIR; made if it is not there
	SpoolMaxBytes int64  // 256 MiB
	BufferBytes   int    // of events in memory; 32 MiB

	FailClosedTimeout time.Duration // of a call whose class is FailClosed; 5 s
	CloseTimeout      time.Duration // of Close; 5 s
	RequestTimeout    time.Duration // of a request to the registry; 5 s

	// Heartbeat is how often the trail is told that this producer lives and how far it is, from its first
	// event on; 60 s, and never if negative: zero is the default, as in every setting, where the other SDKs'
	// 0 is never. It needs HeartbeatTenant or Tenant.
	Heartbeat       time.Duration
	HeartbeatTenant string // Tenant

	Metrics Metrics
	// Logger never gets an event's content; slog.Default() if nil.
	Logger *slog.Logger
}

// complete is the settings with what they leave out. The error is a *ConfigurationError.
func (s Settings) complete() (Settings, error) {
	texts := []struct {
		value           *string
		named, fallback string
	}{
		{&s.Service, "AUDIT_SERVICE", ""},
		{&s.Bootstrap, "AUDIT_KAFKA_BOOTSTRAP", "127.0.0.1:19092"},
		{&s.RegistryURL, "AUDIT_REGISTRY_URL", "http://127.0.0.1:18080/apis/ccompat/v7"},
		{&s.Tenant, "AUDIT_TENANT", ""},
		{&s.Version, "AUDIT_SERVICE_VERSION", ""},
		{&s.Environment, "AUDIT_ENVIRONMENT", ""},
		{&s.SpoolDir, "AUDIT_SPOOL_DIR", ""},
	}
	for _, one := range texts {
		*one.value = firstOf(*one.value, firstOf(os.Getenv(one.named), one.fallback))
	}
	s.SpoolMaxBytes = firstOf(s.SpoolMaxBytes, 256<<20)
	s.BufferBytes = firstOf(s.BufferBytes, 32<<20)
	s.FailClosedTimeout = firstOf(s.FailClosedTimeout, 5*time.Second)
	s.CloseTimeout = firstOf(s.CloseTimeout, 5*time.Second)
	s.RequestTimeout = firstOf(s.RequestTimeout, 5*time.Second)
	s.Heartbeat = firstOf(s.Heartbeat, time.Minute)
	s.HeartbeatTenant = firstOf(s.HeartbeatTenant, s.Tenant)
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	return s, s.check()
}

func firstOf[T comparable](given, otherwise T) T {
	var zero T
	if given == zero {
		return otherwise
	}
	return given
}

func (s Settings) check() error {
	if s.Service == "" {
		return &ConfigurationError{"Service is empty: name the service (AUDIT_SERVICE)"}
	}
	if found, err := url.Parse(s.RegistryURL); err != nil || found.Scheme != "http" && found.Scheme != "https" {
		return &ConfigurationError{"RegistryURL must begin with http:// or https://"}
	}
	for name, value := range map[string]int64{
		"SpoolMaxBytes":     s.SpoolMaxBytes,
		"BufferBytes":       int64(s.BufferBytes),
		"FailClosedTimeout": int64(s.FailClosedTimeout),
		"CloseTimeout":      int64(s.CloseTimeout),
		"RequestTimeout":    int64(s.RequestTimeout),
	} {
		if value < 0 {
			return &ConfigurationError{name + " is negative"}
		}
	}
	known := []DeliveryClass{BestEffort, Spool, FailClosed}
	for family, chosen := range s.Delivery {
		if _, found := families[family]; !found || family == systemFamily {
			return &ConfigurationError{"Delivery names no family: " + family}
		}
		if !slices.Contains(known, chosen) {
			return &ConfigurationError{fmt.Sprintf("Delivery of %s: one of %v", family, known)}
		}
		if chosen == Spool && s.SpoolDir == "" {
			return &ConfigurationError{"Delivery of " + family + " is spool: set SpoolDir"}
		}
	}
	return nil
}

// classOf is the delivery class of a family.
func (s Settings) classOf(family string) DeliveryClass {
	if chosen, found := s.Delivery[family]; found {
		return chosen
	}
	if s.SpoolDir != "" {
		return Spool
	}
	return BestEffort
}

func (s Settings) brokers() []string {
	return strings.Split(strings.ReplaceAll(s.Bootstrap, " ", ""), ",")
}
