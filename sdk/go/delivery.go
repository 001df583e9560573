package auditsdk

import (
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// DeliveryClass is how hard the SDK tries for the events of a family.
type DeliveryClass string

const (
	// BestEffort keeps an event in memory until the broker has it; it is dropped, and counted, when the
	// memory is full or the process ends first.
	BestEffort DeliveryClass = "best_effort"
	// Spool has an event in a file before the call returns, and sends it again after a crash or an outage.
	Spool DeliveryClass = "spool"
	// FailClosed returns when the broker has the event, or with an error.
	FailClosed DeliveryClass = "fail_closed"
)

// Why events are dropped, as Metrics.Dropped is told.
const (
	ReasonBufferFull = "buffer_full" // no room in memory (Settings.BufferBytes)
	ReasonRefused    = "refused"     // the broker refused it
	ReasonClosed     = "closed"      // the client was closed before the broker had it
)

// Metrics are hooks, each of which may be nil. They are called by callers' goroutines and by those of the
// Kafka client: they must be quick, and safe for concurrent use. One that panics is logged and stops
// nothing.
type Metrics struct {
	// Accepted counts an event that was taken.
	Accepted func(family string)
	// Delivered counts an event that the broker has, so long after it was accepted (since it was read
	// back, for one that waited in the spool).
	Delivered func(family string, latency time.Duration)
	// Dropped counts events that will not arrive; the reason is one of the constants.
	Dropped func(family string, count int, reason string)
	// Resent counts events of a process that is gone, found in the spool, once the broker has them;
	// Delivered counts them as well.
	Resent func(count int)
}

// Range is sequence numbers from First to Last, both of them in it.
type Range struct{ First, Last int64 }

// Dropped is what will not arrive of a topic.
type Dropped struct {
	// Ranges are ascending and do not touch; of more than a heartbeat has room for the two oldest become one,
	// with what is between them: heartbeats before have told them apart.
	Ranges []Range
	// Refused counts events that were never given a sequence number, because memory was full.
	Refused int64
}

// add notes one more sequence number, in any order.
func (d *Dropped) add(sequence int64) {
	at := sort.Search(len(d.Ranges), func(i int) bool { return d.Ranges[i].Last >= sequence-1 })
	if at == len(d.Ranges) || d.Ranges[at].First > sequence+1 {
		d.Ranges = append(d.Ranges, Range{})
		copy(d.Ranges[at+1:], d.Ranges[at:])
		d.Ranges[at] = Range{sequence, sequence}
		if len(d.Ranges) > limits.Items {
			d.Ranges[1].First = d.Ranges[0].First
			d.Ranges = append(d.Ranges[:0], d.Ranges[1:]...)
		}
		return
	}
	one := &d.Ranges[at]
	one.First = min(one.First, sequence)
	one.Last = max(one.Last, sequence)
	if next := at + 1; next < len(d.Ranges) && d.Ranges[next].First == one.Last+1 {
		one.Last = d.Ranges[next].Last
		d.Ranges = append(d.Ranges[:next], d.Ranges[next+1:]...)
	}
}

func (d *Dropped) clone() Dropped {
	return Dropped{append([]Range(nil), d.Ranges...), d.Refused}
}

// stream is a family's way to its topic. Counts are guarded by the publisher's lock.
type stream struct {
	family   string
	topic    string
	delivery DeliveryClass

	accepted  int64 // sequence numbers given so far: the next one
	delivered int64 // of those, how many the broker has confirmed
	dropped   Dropped
}

// item is one accepted event on its way.
type item struct {
	stream     *stream
	delivery   DeliveryClass
	record     kgo.Record // key and value; the value has room for the wire format's header
	sequence   int64      // noSequence: it was read back from the spool
	own        bool       // whether it counts among this process's events
	acceptedAt time.Time
	spooled    *spooled
	settled    chan struct{} // fail closed only: closed when the broker has answered
	failure    error         // fail closed only, to be read after settled
}

const (
	noSequence = -1
	headerSize = 5   // of Confluent's wire format
	itemWeight = 400 // bytes of memory of an item beside its key and value, about
)

// weight is bytes of memory, about.
func (i *item) weight() int {
	return len(i.record.Key) + len(i.record.Value) + itemWeight
}

// body is the event's Avro, without the wire format's header.
func (i *item) body() []byte {
	return i.record.Value[headerSize:]
}
