package auditsdk

import (
	"bytes"
	"context"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

func (r recorded) beats() []Event { return r.sent(systemFamily) }

func topicsOf(beat Event) []any {
	found, _ := beat["topics"].([]any)
	return found
}

func TestTheFirstEventBringsAHeartbeatAndTheEndAFinalOne(t *testing.T) {
	audit := newRecorded(t, Settings{Heartbeat: time.Hour, Instance: "i-1"})
	ctx := WithContext(t.Context(), Event{"source": Event{"ip": "192.0.2.1"}}) // not the heartbeat's
	for range 3 {
		audit.must(audit.Login(ctx, reset))
	}
	until(t, func() bool { return len(audit.beats()) == 1 })
	if left := audit.Close(); left != 0 {
		t.Fatal(left)
	}

	beats := audit.beats()
	if len(beats) != 2 {
		t.Fatal(beats)
	}
	for number, beat := range beats {
		for where, wanted := range map[[2]string]any{
			{"producer", "sequence"}: int64(number), {"producer", "instance"}: "i-1", {"actor", "type"}: "system",
			{"actor", "id"}: nil, {"heartbeat", "final"}: number == 1, {"heartbeat", "interval_s"}: int64(3_600),
		} {
			if found := part(beat, where[0], where[1]); found != wanted {
				t.Error(number, where, found)
			}
		}
		if beat["tenant"] != "acme" || beat["action"] != "producer.heartbeat" || beat["source"] != nil {
			t.Error(beat)
		}
	}
	wanted := []any{Event{
		"topic": "audit.raw.authentication", "accepted": int64(3), "delivered": int64(3), "refused": int64(0),
		"dropped": []any{},
	}}
	if found := topicsOf(beats[1]); !reflect.DeepEqual(found, wanted) {
		t.Error(found)
	}
	if part(beats[1], "producer", "epoch") != part(audit.sent("authentication")[0], "producer", "epoch") {
		t.Error("the epochs differ")
	}
}

func TestTheyComeAtEachIntervalWhileNothingElseIsSent(t *testing.T) {
	audit := newRecorded(t, Settings{Heartbeat: 20 * time.Millisecond})
	audit.must(audit.Login(t.Context(), reset))
	until(t, func() bool { return len(audit.beats()) >= 4 })
	for number, beat := range audit.beats() {
		if part(beat, "producer", "sequence") != int64(number) {
			t.Error(number, beat)
		}
	}
}

func TestWhatWasDroppedIsInTheNextHeartbeat(t *testing.T) {
	audit := newRecorded(t, Settings{Heartbeat: 20 * time.Millisecond, BufferBytes: 1_500})
	audit.broker.refuses = kerr.TopicAuthorizationFailed
	audit.must(audit.Login(t.Context(), reset))
	until(t, func() bool { return len(audit.Dropped()) == 1 })
	audit.broker.set(func() { audit.broker.refuses, audit.broker.up = nil, false })
	for range 20 {
		audit.must(audit.Login(t.Context(), reset))
	}
	refused := audit.Dropped()["audit.raw.authentication"].Refused
	audit.broker.set(func() { audit.broker.up = true })
	until(t, func() bool {
		beats := audit.beats()
		if len(beats) == 0 || refused == 0 {
			return false
		}
		last := topicsOf(beats[len(beats)-1])[0].(map[string]any)
		return last["refused"] == refused && last["accepted"] == last["delivered"].(int64)+1 &&
			reflect.DeepEqual(last["dropped"], []any{"0-0"})
	})
}

func TestNoTenantOrNoIntervalAndThereAreNone(t *testing.T) {
	for _, one := range []struct {
		settings Settings
		wanted   bool
	}{
		{Settings{Heartbeat: time.Minute, HeartbeatTenant: "ops"}, true},
		{Settings{Heartbeat: time.Minute}, false},
		{Settings{Heartbeat: -1, HeartbeatTenant: "ops"}, false},
	} {
		if made := newHeartbeats(one.settings, identity{}); (made != nil) != one.wanted {
			t.Error(one)
		}
	}
}

// strange is a registry that does not know the family of heartbeats.
type strange struct{ *broker }

func (s strange) ask(ctx context.Context, family string) (uint32, error) {
	if family == systemFamily {
		return 0, &ConfigurationError{"the schema of system is not registered"}
	}
	return s.broker.ask(ctx, family)
}

func TestAHeartbeatThatTheTrailDoesNotTakeKeepsNoEventWaiting(t *testing.T) {
	var out bytes.Buffer
	audit := newRecorded(t, Settings{
		Heartbeat: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&locked{out: &out}, nil)),
	})
	if err := audit.assemble(parts{ids: strange{audit.broker}, makeProducer: audit.broker.producer}); err != nil {
		t.Fatal(err)
	}
	audit.must(audit.Login(t.Context(), reset))
	time.Sleep(100 * time.Millisecond)
	if found := audit.events("authentication"); len(found) != 1 {
		t.Error(found)
	}
	if left := audit.Close(); left != 0 || len(audit.beats()) != 0 {
		t.Error(left, audit.beats())
	}
	if count := strings.Count(out.String(), "audit_heartbeat_not_sent"); count != 1 {
		t.Error(out.String())
	}
}

func TestABrokerThatIsAwayHasAtMostOneHeartbeatInMemory(t *testing.T) {
	audit := newRecorded(t, Settings{Heartbeat: 5 * time.Millisecond})
	audit.broker.up = false
	audit.must(audit.Login(t.Context(), reset))
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	if left := audit.CloseWithin(50 * time.Millisecond); left != 1 {
		t.Error(left)
	}
	if took := time.Since(began); took > time.Second {
		t.Error(took)
	}
	if made := audit.publisher.parts.beats.sequence; made > 1 {
		t.Error(made)
	}
}
