package auditsdk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	linger = 5 * time.Millisecond // beside lookEvery
	// Room of the Kafka client beyond BufferBytes, which bounds what it is given: it never has to wait.
	spareBytes = 1 << 20
)

// producer is what is used of *kgo.Client.
type producer interface {
	// Produce sends a record in the background; promise is called once, when the broker has it or not.
	// Records of one partition are sent in the order of their calls.
	Produce(ctx context.Context, record *kgo.Record, promise func(*kgo.Record, error))
	// Close ends every connection; promises that are open are called with an error.
	Close()
}

// producerOptions are the caller's own, under what the trail needs: each broker in sync has a record
// before it is confirmed (idempotent, acks=all), a record waits for its broker as long as there is a
// process, and its partition is that of Kafka's default partitioner.
func producerOptions(s Settings, told func(error)) []kgo.Opt {
	options := []kgo.Opt{
		kgo.SeedBrokers(s.brokers()...),
		kgo.ClientID("audit-sdk-" + s.Service),
		kgo.ProducerLinger(linger),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()),
		kgo.DisableClientMetrics(),
	}
	options = append(options, s.Kafka...)
	return append(options,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2
		kgo.RecordRetries(math.MaxInt),
		kgo.RecordDeliveryTimeout(0),
		kgo.MaxBufferedBytes(s.BufferBytes+spareBytes),
		kgo.MaxBufferedRecords(math.MaxInt), // bytes bound it
		kgo.WithHooks(connections{told}),
	)
}

// checkOptions finds options that would take a promise back. The error is a *ConfigurationError.
func checkOptions(options []kgo.Opt) error {
	client, err := kgo.NewClient(options...) // connects to nothing
	if err != nil {
		return &ConfigurationError{"Kafka: " + err.Error()}
	}
	defer client.Close()
	if client.OptValues(kgo.TransactionalID)[1] == true {
		return &ConfigurationError{"Kafka: TransactionalID is not for audit events"}
	}
	if client.OptValue(kgo.DisableIdempotentWrite) == true {
		return &ConfigurationError{"Kafka: DisableIdempotentWrite would reorder audit events"}
	}
	if client.OptValue(kgo.ManualFlushing) == true {
		return &ConfigurationError{"Kafka: ManualFlushing would keep audit events back"}
	}
	return nil
}

// connections tells of brokers that cannot be reached, TLS and SASL included.
type connections struct{ told func(error) }

// OnBrokerConnect is called after each attempt.
func (c connections) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil && !isClosing(err) {
		c.told(fmt.Errorf("broker: %s", reasonOf(err)))
	}
}

// reasonOf is what went wrong on a line, the same text each time: no port of this side, no credentials.
func reasonOf(err error) string {
	var line *net.OpError
	if errors.As(err, &line) {
		if inner := new(net.OpError); errors.As(line.Err, &inner) {
			line = inner
		}
		return fmt.Sprintf("%s %v: %v", line.Op, line.Addr, line.Err)
	}
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}

// isClosing is whether a record or a connection failed because this process ends it.
func isClosing(err error) bool {
	return errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, context.Canceled)
}

// mayPass is whether what a broker answered is over some day: the record is sent again.
func mayPass(err error) bool {
	return isClosing(err) || kerr.IsRetriable(err) || !isRefusal(err)
}

// isRefusal is whether the broker itself said no.
func isRefusal(err error) bool {
	var answer *kerr.Error
	return errors.As(err, &answer)
}
