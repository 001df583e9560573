package auditsdk

import (
	"errors"
	"strings"
	"testing"
)

func TestWhatIsCheckedIsJudgedAsItWouldBeEmittedAndNothingIsSent(t *testing.T) {
	audit := newRecorded(t, Settings{})
	ctx := WithContext(t.Context(), Event{"actor": ada.Fields()})
	if err := audit.Check(ctx, "authentication", Event{"action": "session.start"}); err != nil {
		t.Error(err)
	}
	var invalid *InvalidEvent
	err := audit.Check(t.Context(), "authentication", Event{"action": "session.start"})
	if !errors.As(err, &invalid) || invalid.Problems[0].Path != "actor" {
		t.Error(err)
	}
	if err := audit.Check(ctx, systemFamily, Event{}); err == nil || !strings.Contains(err.Error(), "authentication") {
		t.Error(err)
	}
	if sent := audit.events("authentication"); sent != nil || audit.publisher.started {
		t.Error(sent)
	}
}

// sized is a large event, and so many bytes more: up to 8,000.
func sized(more int) Event {
	var resources []Event
	for range 29 {
		resources = append(resources, Event{
			"tenant": "acme", "type": "record", "name": strings.Repeat("é", 500), "path": strings.Repeat("é", 500),
		})
	}
	for place := range 20 {
		name := strings.Repeat("x", 100+min(max(more-400*place, 0), 400))
		resources = append(resources, Event{"tenant": "acme", "type": "record", "name": name})
	}
	return Event{"action": "record.read", "operation": "read", "actor": ada.Fields(), "resources": resources}
}

func TestWhatIsCheckedFitsWithTheLongestSequenceNumber(t *testing.T) {
	audit, ctx := newRecorded(t, Settings{}), t.Context()
	audit.must(audit.Emit(ctx, "data-access", sized(0)))
	audit.events("data-access")
	room := limits.EventBytes - len(audit.broker.bodies("data-access")[0])

	audit.must(audit.Emit(ctx, "data-access", sized(room))) // its number takes one byte, the longest ten
	for more, fits := range map[int]bool{room: false, room - 8: false, room - 9: true} {
		err := audit.Check(ctx, "data-access", sized(more))
		if fits != (err == nil) || !fits && !strings.Contains(err.Error(), "event_bytes") {
			t.Error(room-more, err)
		}
	}
}
