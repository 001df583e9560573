package auditsdk

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	pollEvery  = 2 * time.Millisecond // of Flush
	retryAfter = time.Second          // of what a broker or a registry refused
	endAfter   = 2 * time.Second      // of a Kafka client that does not end
)

var errClosed = &NotAccepted{"the audit client is closed"}

// ids are schema ids; see schemaIDs.
type ids interface {
	ask(ctx context.Context, family string) (uint32, error)
}

// parts are what a publisher is made of; each is asked for at the first event.
type parts struct {
	makeProducer func() (producer, error)
	makeSpool    func() (*spool, error) // nil: there is none
	ids          ids
	beats        *heartbeats // nil: there are none
}

// publisher is everything behind the call: from accepted events to confirmed ones, in the background.
//
// One goroutine (sender.go) hands over what callers leave in the queue, in order, to the Kafka client, and
// what overflowed into the spool. No caller waits for it, but those of FailClosed. Safe for concurrent use.
type publisher struct {
	parts       parts
	bufferBytes int
	metrics     Metrics
	log         *slog.Logger
	troubles    *troubles

	stop  context.CancelFunc
	ended chan struct{} // closed when the sending goroutine is gone
	wake  chan struct{}
	final sync.Once

	mu       sync.Mutex
	streams  map[string]*stream
	started  bool
	closing  bool
	left     int // what Close found
	producer producer
	spool    *spool

	queue      []*item
	again      []*item   // were given back, and go first
	backlog    []unread  // stand in the spool alone, and go after the queue
	recovering bool      // what gone processes left is not in the backlog yet
	over       bool      // what is left was counted as lost
	held       int       // events in memory that are not settled, wherever they are just now
	heldBytes  int       // of those
	retryAt    time.Time // what a broker gave back waits until then
	activeAt   time.Time // when something was last taken from the queue
	asleep     bool      // the sending goroutine looks at the queue only if it is woken
}

// unread is records of a segment from an offset on.
type unread struct {
	segment *segment
	start   int64
}

func newPublisher(made parts, classOf func(string) DeliveryClass, s Settings) *publisher {
	p := &publisher{
		parts:       made,
		bufferBytes: s.BufferBytes,
		metrics:     s.Metrics,
		log:         s.Logger,
		troubles:    newTroubles(s.Logger),
		ended:       make(chan struct{}),
		wake:        make(chan struct{}, 1),
		streams:     make(map[string]*stream, len(families)),
	}
	for name, family := range families {
		if name != systemFamily {
			p.streams[name] = &stream{family: name, topic: family.Topic, delivery: classOf(name)}
		}
	}
	return p
}

// accept takes an event; nil without an error: it was dropped, and counted. The draft's sequence number is
// used up only if the event is taken. Errors: *NotAccepted, *InvalidEvent, *ConfigurationError.
func (p *publisher) accept(to *stream, one *draft) (*item, error) {
	taken, err := p.take(to, one)
	switch {
	case err != nil:
		return nil, err
	case taken == nil:
		p.tellDropped(to.family, 1, ReasonBufferFull)
	default:
		p.tellAccepted(to.family)
	}
	return taken, nil
}

func (p *publisher) take(to *stream, one *draft) (*item, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil, errClosed
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	full := p.heldBytes >= p.bufferBytes
	if full && to.delivery == BestEffort {
		to.dropped.Refused++
		return nil, nil
	}
	if full && to.delivery == FailClosed {
		return nil, &NotAccepted{fmt.Sprintf("%d bytes wait for the broker (BufferBytes)", p.bufferBytes)}
	}
	key, value, err := one.finish(to.accepted)
	if err != nil {
		return nil, err
	}
	made := &item{
		stream: to, delivery: to.delivery, sequence: to.accepted, own: true, acceptedAt: time.Now(),
		record: kgo.Record{Topic: to.topic, Key: key, Value: value},
	}
	switch to.delivery {
	case Spool:
		if err := p.appendToSpool(made, full); err != nil {
			return nil, err
		}
	case FailClosed:
		made.settled = make(chan struct{})
		p.enqueue(made)
	default:
		p.enqueue(made)
	}
	to.accepted++
	return made, nil
}

// wait returns once the broker has an event whose class is FailClosed. The error is a *NotDelivered: not
// in time, or the broker refused it.
func (p *publisher) wait(ctx context.Context, one *item, eventID string, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-one.settled:
		if one.failure != nil {
			return &NotDelivered{eventID, one.failure, one.failure.Error()}
		}
		return nil
	case <-ctx.Done():
		return &NotDelivered{eventID, ctx.Err(), "the call ended: " + ctx.Err().Error()}
	case <-timer.C:
		why := firstOf(p.troubles.last(), fmt.Sprintf("no acknowledgement within %v", timeout))
		return &NotDelivered{eventID, nil, why}
	}
}

// flush waits until the broker has everything that was accepted; how much it has not.
func (p *publisher) flush(timeout time.Duration) int {
	p.wakeUp()
	for deadline := time.Now().Add(timeout); ; time.Sleep(pollEvery) {
		if left := p.pending(); left == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// pending is events that were accepted and that the broker has not confirmed; those that stand in the
// spool alone count as one a segment.
func (p *publisher) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.held + len(p.backlog)
	if p.recovering {
		left++
	}
	return left
}

// close flushes, then takes nothing more. What is left: spooled events are sent by the next process, the
// others are dropped and counted. How many the broker has not; a second call says the same.
func (p *publisher) close(timeout time.Duration) int {
	p.final.Do(func() {
		deadline := time.Now().Add(timeout)
		left := p.flush(timeout)
		p.mu.Lock()
		p.closing, p.left = true, left
		started := p.started
		p.mu.Unlock()
		if started {
			if p.parts.beats != nil {
				p.parts.beats.end(deadline)
			}
			p.stop()
			p.endProducer()
		}
		p.loseTheRest()
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

// endProducer ends the Kafka client, which gives back what it holds, and the goroutines of this client.
func (p *publisher) endProducer() {
	gone := make(chan struct{})
	go func() {
		p.producer.Close()
		<-p.ended
		if p.parts.beats != nil {
			<-p.parts.beats.ended
		}
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(endAfter):
		p.log.Warn("audit_producer_does_not_end")
	}
}

// loseTheRest counts what this process cannot deliver any more, and gives the spool up.
func (p *publisher) loseTheRest() {
	p.mu.Lock()
	rest := append(p.again, p.queue...)
	p.again, p.queue, p.over = nil, nil, true
	spool := p.spool
	p.mu.Unlock()
	lost := 0
	for _, one := range rest {
		if p.lose(one) {
			lost++
		}
	}
	if lost > 0 {
		p.log.Error("audit_events_lost", "events", lost, "why", p.troubles.last())
	}
	if spool != nil {
		if err := spool.close(); err != nil {
			p.log.Warn("audit_spool_not_closed", "why", err.Error())
		}
	}
}

// lose counts an event that waited when the client was closed. A spooled one is not lost: it is the next
// process's.
func (p *publisher) lose(one *item) bool {
	p.mu.Lock()
	p.held, p.heldBytes = p.held-1, p.heldBytes-one.weight()
	if one.spooled == nil {
		one.stream.dropped.add(one.sequence)
	}
	p.mu.Unlock()
	if one.spooled != nil {
		return false
	}
	if one.settled != nil {
		one.failure = errClosed
		close(one.settled)
	}
	p.tellDropped(one.stream.family, 1, ReasonClosed)
	return true
}

// dropped is by topic what will not arrive.
func (p *publisher) dropped() map[string]Dropped {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := map[string]Dropped{}
	for _, one := range p.streams {
		if one.dropped.Refused > 0 || len(one.dropped.Ranges) > 0 {
			found[one.topic] = one.dropped.clone()
		}
	}
	return found
}
