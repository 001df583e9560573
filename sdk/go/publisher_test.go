package auditsdk

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

const room = 1 << 20

func TestEventsArriveInOrderWithSequencesWithoutHoles(t *testing.T) {
	for _, class := range []DeliveryClass{BestEffort, Spool} {
		t.Run(string(class), func(t *testing.T) {
			w := newWorld(t)
			p := w.publisher(class, room, room)
			got := send(t, p, 500, 0)
			if left := p.flush(5 * time.Second); left != 0 {
				t.Fatal(left)
			}
			for number, sequence := range got {
				if int64(number) != sequence {
					t.Fatalf("%d has %d", number, sequence)
				}
			}
			if found := w.broker.bodies(family); !slices.Equal(found, wanted(500, 0)) {
				t.Errorf("%q", found)
			}
			until(t, func() bool { return w.metrics.get("delivered") == 500 })
			if w.metrics.get("accepted") != 500 {
				t.Error(w.metrics.seen)
			}
		})
	}
}

func TestAFullBufferDropsTheNewestAndCountsThem(t *testing.T) {
	w := newWorld(t)
	w.broker.up = false
	p := w.publisher(BestEffort, 4_000, room)
	got := send(t, p, 50, 0)
	w.broker.set(func() { w.broker.up = true })
	until(t, func() bool { return p.pending() == 0 })

	if len(got) < 5 || len(got) == 50 {
		t.Fatal(len(got))
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(len(got), 0)) {
		t.Errorf("%q", found)
	}
	dropped := p.dropped()[families[family].Topic]
	if dropped.Refused != int64(50-len(got)) || len(dropped.Ranges) != 0 {
		t.Error(dropped)
	}
	if w.metrics.get("dropped "+ReasonBufferFull) != 50-len(got) {
		t.Error(w.metrics.seen)
	}
	if next := send(t, p, 1, 99); next[0] != int64(len(got)) {
		t.Error(next)
	}
}

func TestASpoolTakesMoreThanMemoryAndKeepsTheOrder(t *testing.T) {
	w := newWorld(t)
	w.broker.up = false
	p := w.publisher(Spool, 4_000, room)
	send(t, p, 300, 0)
	w.broker.set(func() { w.broker.up = true })
	send(t, p, 300, 300)

	if left := p.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(600, 0)) {
		t.Errorf("%d", len(found))
	}
	if len(p.dropped()) != 0 || p.streams[family].delivered != 600 {
		t.Error(p.dropped(), p.streams[family].delivered)
	}
}

func TestASpoolThatIsFullSaysSoAndUsesNoSequenceUp(t *testing.T) {
	w := newWorld(t)
	w.broker.up = false
	p := w.publisher(Spool, room, 1_000)
	taken := 0
	var err error
	for ; err == nil; taken++ {
		_, err = p.accept(p.streams[family], numbered(taken))
	}
	var full *NotAccepted
	if !errors.As(err, &full) || !strings.Contains(err.Error(), "SpoolMaxBytes") {
		t.Fatal(err)
	}
	w.broker.set(func() { w.broker.up = true })
	until(t, func() bool { return p.pending() == 0 && p.spool.heldBytes() == 0 })
	if next := send(t, p, 1, 99); next[0] != int64(taken-1) {
		t.Error(next, taken)
	}
}

func TestWhatAProcessLeavesTheNextOneSendsFirst(t *testing.T) {
	w := newWorld(t)
	w.broker.up = false
	first := w.publisher(Spool, 4_000, room)
	send(t, first, 100, 0)
	if left := first.close(50 * time.Millisecond); left == 0 {
		t.Fatal(left)
	}
	second := w.publisher(Spool, room, room)
	send(t, second, 50, 100)
	until(t, func() bool { return second.hasLooked() })
	if w.metrics.get("resent") != 0 {
		t.Error("told before the broker has them")
	}
	w.broker.set(func() { w.broker.up = true })

	if left := second.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
	if found := w.broker.bodies(family); !slices.Equal(found, append(wanted(100, 0), wanted(50, 100)...)) {
		t.Errorf("%q", found)
	}
	until(t, func() bool { return w.metrics.get("resent") == 100 })
	if delivered := second.streams[family].delivered; delivered != 50 {
		t.Error(delivered)
	}
	second.close(time.Second)
	if there, err := os.ReadDir(w.folder); err != nil || len(there) != 0 {
		t.Error(there, err)
	}
}

func TestClosingAtOnceWaitsForAnEventWhoseSchemaIsBeingAskedFor(t *testing.T) {
	w := newWorld(t)
	w.broker.asking = 200 * time.Millisecond
	p := w.publisher(BestEffort, room, room)
	send(t, p, 1, 0)
	time.Sleep(50 * time.Millisecond) // it is out of the queue, and not with the Kafka client yet

	if left := p.close(5 * time.Second); left != 0 || len(p.dropped()) != 0 {
		t.Error(left, p.dropped())
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(1, 0)) {
		t.Errorf("%q", found)
	}
}

func TestARegistryThatIsAwayIsWaitedForAndSaidOnce(t *testing.T) {
	w := newWorld(t)
	w.broker.registryUp = false
	p := w.publisher(BestEffort, room, room)
	send(t, p, 10, 0)
	until(t, func() bool { w.broker.mu.Lock(); defer w.broker.mu.Unlock(); return w.broker.asked == 2 })
	if found := w.broker.bodies(family); found != nil {
		t.Errorf("%q", found)
	}
	w.broker.set(func() { w.broker.registryUp = true })

	if left := p.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(10, 0)) {
		t.Errorf("%q", found)
	}
	p.close(time.Second)
	if said := strings.Count(w.log.String(), "registry: away"); said != 1 {
		t.Error(w.log.String())
	}
}

func TestARefusalIsADroppedRangeOrAnErrorOrTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.broker.refuses = kerr.TopicAuthorizationFailed
	p := w.publisher(BestEffort, room, room)
	send(t, p, 3, 0)
	until(t, func() bool { return p.pending() == 0 })
	if dropped := p.dropped()[families[family].Topic]; !slices.Equal(dropped.Ranges, []Range{{0, 2}}) {
		t.Error(dropped)
	}

	closed := w.publisher(FailClosed, room, room)
	one, err := closed.accept(closed.streams[family], numbered(0))
	if err != nil {
		t.Fatal(err)
	}
	err = closed.wait(t.Context(), one, "id-1", 5*time.Second)
	var not *NotDelivered
	if !errors.As(err, &not) || not.EventID != "id-1" || !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Error(err)
	}

	spooling := w.publisher(Spool, room, room)
	send(t, spooling, 2, 7)
	until(t, func() bool { spooling.mu.Lock(); defer spooling.mu.Unlock(); return len(spooling.again) == 2 })
	w.broker.set(func() { w.broker.refuses = nil })
	if left := spooling.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(2, 7)) {
		t.Errorf("%q", found)
	}
}

func TestWhatABrokerMayTakeLaterIsKept(t *testing.T) {
	w := newWorld(t)
	w.broker.refuses = kerr.UnknownTopicOrPartition
	p := w.publisher(BestEffort, room, room)
	send(t, p, 3, 0)
	until(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.again) == 3 })
	w.broker.set(func() { w.broker.refuses = nil })

	if left := p.flush(5 * time.Second); left != 0 || len(p.dropped()) != 0 {
		t.Error(left, p.dropped())
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(3, 0)) {
		t.Errorf("%q", found)
	}
}

func TestFailClosedReturnsWhenTheBrokerHasItAndFailsWhenNot(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(FailClosed, room, room)
	one, err := p.accept(p.streams[family], numbered(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t.Context(), one, "id", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if found := w.broker.bodies(family); !slices.Equal(found, wanted(1, 1)) {
		t.Errorf("%q", found)
	}

	w.broker.set(func() { w.broker.up = false })
	late, err := p.accept(p.streams[family], numbered(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t.Context(), late, "id", 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "50ms") {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.wait(over, late, "id", time.Minute); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.close(time.Millisecond)
	if err := p.wait(t.Context(), late, "id", time.Minute); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
}

func TestAnEventThatIsTooLargeUsesNoSequenceUp(t *testing.T) {
	p := newWorld(t).publisher(BestEffort, room, room)
	send(t, p, 1, 0)
	large := numbered(1)
	large.body.out = make([]byte, limits.EventBytes)
	large.body.gap = limits.EventBytes
	var invalid *InvalidEvent
	if _, err := p.accept(p.streams[family], large); !errors.As(err, &invalid) || invalid.Problems[0].Rule != "event_bytes" {
		t.Error(err)
	}
	if next := send(t, p, 1, 1); next[0] != 1 {
		t.Error(next)
	}
}

func TestGoroutinesShareOneSequenceWithoutHoles(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(Spool, 100_000, room)
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			send(t, p, 200, worker*1_000)
		}()
	}
	workers.Wait()
	if left := p.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
	for number, body := range w.broker.bodies(family) {
		_, sequence, _ := strings.Cut(body, "/")
		if sequence != string(appendLong(nil, int64(number))) {
			t.Fatalf("%q is number %d", body, number)
		}
	}
	if found := len(w.broker.bodies(family)); found != 1_600 {
		t.Error(found)
	}
}

func TestClosingCountsWhatIsLostAndNothingIsTakenAfter(t *testing.T) {
	w := newWorld(t)
	w.broker.up = false
	p := w.publisher(BestEffort, room, room)
	send(t, p, 5, 0)
	if left := p.close(50 * time.Millisecond); left != 5 {
		t.Error(left)
	}
	if dropped := p.dropped()[families[family].Topic]; !slices.Equal(dropped.Ranges, []Range{{0, 4}}) {
		t.Error(dropped)
	}
	if w.metrics.get("dropped "+ReasonClosed) != 5 {
		t.Error(w.metrics.seen)
	}
	if _, err := p.accept(p.streams[family], numbered(5)); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
	if again := p.close(time.Minute); again != 5 {
		t.Error(again)
	}
}

func TestAHookThatPanicsStopsNoEvent(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(BestEffort, room, room)
	p.metrics.Accepted = func(string) { panic("hook") }
	p.metrics.Delivered = func(string, time.Duration) { panic("hook") }
	send(t, p, 5, 0)
	if left := p.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
	p.close(time.Second)
	if !strings.Contains(w.log.String(), "audit_metrics_hook_failed") {
		t.Error(w.log.String())
	}
}

func TestAHookMayCallTheClient(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(BestEffort, room, room)
	p.metrics.Accepted = func(string) { p.dropped(); p.pending() }
	p.metrics.Delivered = func(string, time.Duration) { p.dropped(); p.pending() }
	send(t, p, 5, 0)
	if left := p.flush(5 * time.Second); left != 0 {
		t.Fatal(left)
	}
}
