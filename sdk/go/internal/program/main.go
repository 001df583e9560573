// Program publishes log-ins through the SDK; tests/acceptance/test_sdk_go.py runs it as a process of its
// own. A line for each call goes to stdout: the event's id, or a stroke, then how many microseconds the
// call took and the error. Settings come from the environment.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/audit-trail/auditsdk"
)

func main() {
	count := flag.Int("count", 100, "events")
	pause := flag.Duration("pause", 0, "between them")
	class := flag.String("class", "", "delivery class; the family's otherwise")
	buffer := flag.Int("buffer-bytes", 0, "Settings.BufferBytes")
	patience := flag.Duration("fail-closed-timeout", 0, "Settings.FailClosedTimeout")
	flush := flag.Duration("close-timeout", 20*time.Second, "Settings.CloseTimeout")
	tenant := flag.String("tenant", "acme", "Settings.Tenant")
	wait := flag.Bool("wait", false, "after the last one, for SIGTERM")
	secured := flag.Bool("secured", false, "TLS and passwords, from AUDIT_KAFKA_* and AUDIT_REGISTRY_*")
	flag.Parse()
	settings := auditsdk.Settings{
		Service: "sdk-test", Tenant: *tenant, BufferBytes: *buffer, FailClosedTimeout: *patience, CloseTimeout: *flush,
	}
	if *class != "" {
		settings.Delivery = map[string]auditsdk.DeliveryClass{"authentication": auditsdk.DeliveryClass(*class)}
	}
	if *secured {
		if err := secure(&settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := run(settings, *count, *pause, *wait); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// secure has the settings reach broker and registry over TLS, with a user's password each.
func secure(settings *auditsdk.Settings) error {
	authority, err := os.ReadFile(os.Getenv("AUDIT_KAFKA_CA_FILE"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	user := scram.Auth{User: os.Getenv("AUDIT_KAFKA_USERNAME"), Pass: os.Getenv("AUDIT_KAFKA_PASSWORD")}
	settings.Kafka = []kgo.Opt{
		kgo.DialTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}),
		kgo.SASL(user.AsSha512Mechanism()),
	}
	settings.RegistryUsername = os.Getenv("AUDIT_REGISTRY_USERNAME")
	settings.RegistryPassword = auditsdk.Secret(os.Getenv("AUDIT_REGISTRY_PASSWORD"))
	settings.RegistryCAFile = os.Getenv("AUDIT_REGISTRY_CA_FILE")
	return nil
}

func run(settings auditsdk.Settings, count int, pause time.Duration, wait bool) error {
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	audit, err := auditsdk.New(settings)
	if err != nil {
		return err
	}
	for number := range count {
		actor := &auditsdk.Actor{
			Type: auditsdk.ActorTypeUser, Tenant: "acme", IDType: "user_id", ID: fmt.Sprintf("sdk-%d", number%40),
		}
		began := time.Now()
		id, err := audit.Login(context.Background(), auditsdk.Login{Actor: actor})
		took := time.Since(began).Microseconds()
		if err != nil {
			id = "-"
		}
		fmt.Println(id, took, fmt.Sprintf("%T %v", err, err)) // unbuffered: the process may be killed
		time.Sleep(pause)
	}
	if wait {
		fmt.Fprintln(os.Stderr, "published")
		<-ended.Done()
	}
	fmt.Fprintln(os.Stderr, "left", audit.Close())
	return nil
}
