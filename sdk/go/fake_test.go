package auditsdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// *kgo.Client is the producer of every process but the tests'.
var _ producer = (*kgo.Client)(nil)

const family = "data-access"

type given struct {
	record  *kgo.Record
	promise func(*kgo.Record, error)
}

// broker is what every fake producer of a test delivers to, and its registry.
type broker struct {
	mu         sync.Mutex
	changed    *sync.Cond
	up         bool
	registryUp bool
	refuses    error
	asking     time.Duration
	asked      int
	records    []kgo.Record
}

func newBroker() *broker {
	made := &broker{up: true, registryUp: true}
	made.changed = sync.NewCond(&made.mu)
	return made
}

func (b *broker) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	b.changed.Broadcast()
}

func (b *broker) ask(ctx context.Context, _ string) (uint32, error) {
	b.mu.Lock()
	asking, up := b.asking, b.registryUp
	b.asked++
	b.mu.Unlock()
	select {
	case <-time.After(asking):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if !up {
		return 0, errors.New("registry: away")
	}
	return 7, nil
}

// bodies are what the broker has of a family, in order.
func (b *broker) bodies(family string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for _, one := range b.records {
		if one.Topic == families[family].Topic {
			found = append(found, string(one.Value[headerSize:]))
		}
	}
	return found
}

// fakeProducer delivers in order, in a goroutine of its own, while its broker is up.
type fakeProducer struct {
	broker *broker
	held   []given
	closed bool
}

func (b *broker) producer() (producer, error) {
	made := &fakeProducer{broker: b}
	go made.run()
	return made, nil
}

func (f *fakeProducer) Produce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error)) {
	f.broker.set(func() { f.held = append(f.held, given{record, promise}) })
}

func (f *fakeProducer) Close() {
	f.broker.set(func() { f.closed = true })
}

func (f *fakeProducer) run() {
	b := f.broker
	for {
		b.mu.Lock()
		for !f.closed && (len(f.held) == 0 || !b.up) {
			b.changed.Wait()
		}
		held, err := f.held, b.refuses
		f.held = nil
		if f.closed {
			err = kgo.ErrClientClosed
		} else if err == nil {
			for _, one := range held {
				b.records = append(b.records, *one.record)
			}
		}
		closed := f.closed
		b.mu.Unlock()
		for _, one := range held {
			one.promise(one.record, err)
		}
		if closed && len(held) == 0 {
			return
		}
	}
}

// counted are metrics that count.
type counted struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *counted) add(what string, count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[what] += count
}

func (c *counted) get(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[what]
}

func (c *counted) metrics() Metrics {
	return Metrics{
		Accepted:  func(string) { c.add("accepted", 1) },
		Delivered: func(string, time.Duration) { c.add("delivered", 1) },
		Dropped:   func(_ string, count int, reason string) { c.add("dropped "+reason, count) },
		Resent:    func(count int) { c.add("resent", count) },
	}
}

// world is a broker and the publishers of a test.
type world struct {
	t       *testing.T
	broker  *broker
	folder  string
	metrics *counted
	log     *bytes.Buffer
	made    int
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, broker: newBroker(), folder: t.TempDir(), metrics: &counted{seen: map[string]int{}},
		log: &bytes.Buffer{},
	}
}

type locked struct {
	mu  sync.Mutex
	out *bytes.Buffer
}

func (l *locked) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(text)
}

func (w *world) publisher(class DeliveryClass, bufferBytes int, spoolBytes int64) *publisher {
	name := fmt.Sprintf("%d", w.made)
	w.made++
	made := newPublisher(
		parts{
			makeProducer: w.broker.producer,
			makeSpool:    func() (*spool, error) { return openSpool(w.folder, name, spoolBytes) },
			ids:          w.broker,
		},
		func(string) DeliveryClass { return class },
		Settings{
			BufferBytes: bufferBytes, Metrics: w.metrics.metrics(),
			Logger: slog.New(slog.NewTextHandler(&locked{out: w.log}, nil)),
		},
	)
	w.t.Cleanup(func() { made.close(100 * time.Millisecond) })
	return made
}

// hasLooked is whether what gone processes have left is in the backlog.
func (p *publisher) hasLooked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.recovering
}

// numbered is an event whose body is its number, a stroke, and its sequence number.
func numbered(number int) *draft {
	body := fmt.Appendf(nil, "%d/", number)
	return &draft{family: family, key: []byte("k"), body: state{out: body, gap: len(body)}}
}

// send sends so many from a number on; the sequences that they got.
func send(t *testing.T, p *publisher, count, first int) []int64 {
	t.Helper()
	var got []int64
	for number := first; number < first+count; number++ {
		one, err := p.accept(p.streams[family], numbered(number))
		if err != nil {
			t.Fatal(err)
		}
		if one != nil {
			got = append(got, one.sequence)
		}
	}
	return got
}

// wanted are the bodies of so many events, whose sequences begin with 0.
func wanted(count, first int) []string {
	var found []string
	for number := range count {
		body := fmt.Appendf(nil, "%d/", first+number)
		found = append(found, string(appendLong(body, int64(number))))
	}
	return found
}

func until(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to hold")
		}
	}
}
