package auditsdk

import (
	"context"
	"encoding/binary"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	ada    = &Actor{Type: ActorTypeUser, Tenant: "acme", IDType: "user_id", ID: "u-1"}
	record = Resource{Tenant: "acme", Type: "record", ID: "r-1"}
	reset  = Login{Actor: ada}
)

// recorded is an Audit whose broker is a fake one.
type recorded struct {
	*Audit
	t      *testing.T
	broker *broker
}

func newRecorded(t *testing.T, s Settings) recorded {
	t.Helper()
	s.Service, s.Tenant = "records", "acme"
	if s.Heartbeat == 0 {
		s.Heartbeat = -1
	}
	given, err := s.complete()
	if err != nil {
		t.Fatal(err)
	}
	made := recorded{&Audit{settings: given}, t, newBroker()}
	if err := made.assemble(parts{ids: made.broker, makeProducer: made.broker.producer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.CloseWithin(100 * time.Millisecond) })
	return made
}

// events are what was sent of a family, in order.
func (r recorded) events(family string) []Event {
	r.t.Helper()
	if left := r.Flush(5 * time.Second); left != 0 {
		r.t.Fatal(left)
	}
	return r.sent(family)
}

func (r recorded) sent(family string) []Event {
	r.t.Helper()
	r.broker.mu.Lock()
	defer r.broker.mu.Unlock()
	var found []Event
	for _, one := range r.broker.records {
		if one.Topic != families[family].Topic {
			continue
		}
		if one.Value[0] != 0 || binary.BigEndian.Uint32(one.Value[1:]) != 7 {
			r.t.Errorf("%x", one.Value[:headerSize])
		}
		event, err := decodeEvent(family, one.Value[headerSize:])
		if err != nil {
			r.t.Fatal(err)
		}
		if string(one.Key) != string(RawKey(event)) {
			r.t.Errorf("%q", one.Key)
		}
		found = append(found, event)
	}
	return found
}

func (r recorded) must(id string, err error) string {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func part(event Event, record, field string) any {
	found, _ := event[record].(map[string]any)
	return found[field]
}

func TestEachFamilyHasItsCall(t *testing.T) {
	audit, ctx := newRecorded(t, Settings{}), t.Context()
	target := Target{Relation: TargetRelationTarget, Type: TargetTypeUser, Tenant: "acme", IDType: "user_id", ID: "u-2"}
	changes := []Change{{Path: "address.city", Old: "Paris", New: "Lyon"}}
	audit.must(audit.Login(ctx, Login{Actor: ada}))
	count := int64(0)
	audit.must(audit.DataAccess(ctx, DataAccess{
		Action: "record.read", Operation: DataOperationRead, Actor: ada, Resources: []Resource{record}, RecordCount: &count,
	}))
	audit.must(audit.ProfileUpdate(ctx, ProfileUpdate{Actor: ada, Changes: changes, Targets: []Target{target}}))
	audit.must(audit.ProfileUpdate(ctx, ProfileUpdate{Actor: ada, Changes: changes, SelfService: true}))
	audit.must(audit.AdminAction(ctx, AdminAction{
		Action: "user.disable", Operation: AdminOperationDisable, Actor: ada, Targets: []Target{target},
	}))
	audit.must(audit.SecurityChange(ctx, SecurityChange{
		Action: "role.grant", ChangeKind: SecurityChangeKindRole, Actor: ada, Targets: []Target{target},
		PrivilegesAdded: []string{"auditor"}, Labels: map[string]string{"a": "b"},
	}))

	if login := audit.events("authentication")[0]; login["action"] != "session.start" || login["operation"] != "logon" {
		t.Error(login)
	}
	if access := audit.events("data-access")[0]; access["operation"] != "read" || access["record_count"] != int64(0) {
		t.Error(access)
	}
	updates := audit.events("profile-update")
	if updates[0]["self_service"] != false || updates[1]["self_service"] != true || updates[0]["action"] != "profile.update" {
		t.Error(updates)
	}
	if action := audit.events("admin-action")[0]; action["operation"] != "disable" {
		t.Error(action)
	}
	change := audit.events("security-change")[0]
	if change["change_kind"] != "role" || part(change, "labels", "a") != "b" || change["outcome"] != "success" {
		t.Error(change)
	}
}

func TestAnEventGetsWhatItsCallLeavesOut(t *testing.T) {
	audit := newRecorded(t, Settings{Version: "1.2", Environment: "test", Instance: "i-1"})
	before := time.Now().UnixMicro()
	id := audit.must(audit.Login(t.Context(), reset))
	after := time.Now().UnixMicro()

	event := audit.events("authentication")[0]
	at := event["occurred_at"].(int64)
	if event["event_id"] != id || event["tenant"] != "acme" || at < before || at > after {
		t.Error(event)
	}
	producer := event["producer"].(map[string]any)
	epoch := producer["epoch"].(int64)
	delete(producer, "epoch")
	wanted := Event{
		"service": "records", "version": "1.2", "instance": "i-1", "environment": "test", "sequence": int64(0),
	}
	for name, value := range wanted {
		if producer[name] != value {
			t.Error(name, producer[name])
		}
	}
	if len(producer) != len(wanted) || epoch > before || epoch < before-int64(time.Minute/time.Microsecond) {
		t.Error(producer, epoch)
	}
}

func TestEachTopicHasItsOwnSequenceAndAnInvalidEventUsesNoneUp(t *testing.T) {
	audit, ctx := newRecorded(t, Settings{}), t.Context()
	read := DataAccess{Action: "record.read", Operation: DataOperationRead, Actor: ada, Resources: []Resource{record}}
	for range 100 {
		audit.must(audit.Login(ctx, reset))
		audit.must(audit.DataAccess(ctx, read))
		var invalid *InvalidEvent
		if _, err := audit.DataAccess(ctx, DataAccess{Action: "record.read", Actor: ada}); !errors.As(err, &invalid) {
			t.Fatal(err)
		}
	}
	for _, family := range []string{"authentication", "data-access"} {
		for number, event := range audit.events(family) {
			if part(event, "producer", "sequence") != int64(number) {
				t.Fatal(number, event)
			}
		}
	}
}

func TestATimeAndAnIDMayBeTheCallers(t *testing.T) {
	audit, ctx := newRecorded(t, Settings{}), t.Context()
	const id = "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39"
	at := time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC)
	audit.must(audit.Login(ctx, Login{Actor: ada, EventID: id, OccurredAt: at}))
	audit.must(audit.Emit(ctx, "authentication", Event{
		"action": "session.end", "actor": ada.Fields(), "occurred_at": at.UnixMicro(), "reason": nil,
	}))

	events := audit.events("authentication")
	if events[0]["event_id"] != id || events[0]["occurred_at"] != at.UnixMicro() {
		t.Error(events[0])
	}
	if events[1]["occurred_at"] != at.UnixMicro() || events[1]["action"] != "session.end" {
		t.Error(events[1])
	}
}

func TestEmitLeavesTheCallersMapAsItIs(t *testing.T) {
	audit := newRecorded(t, Settings{})
	fields := Event{"action": "session.end", "actor": ada.Fields()}
	audit.must(audit.Emit(WithContext(t.Context(), Event{"source": Event{"ip": "192.0.2.1"}}), "authentication", fields))
	if len(fields) != 2 {
		t.Error(fields)
	}
}

func TestWhatIsMissingIsSaidBeforeAnythingIsSent(t *testing.T) {
	audit := newRecorded(t, Settings{})
	_, err := audit.Login(t.Context(), Login{Actor: &Actor{Type: ActorTypeUser}})
	var invalid *InvalidEvent
	if !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	var found []string
	for _, problem := range invalid.Problems {
		found = append(found, problem.Path+" "+problem.Rule)
	}
	if !slices.Equal(found, []string{"actor.tenant required", "actor.id_type required"}) {
		t.Error(found)
	}
	if sent := audit.events("authentication"); sent != nil {
		t.Error(sent)
	}
}

func TestAFamilyThatIsNoneIsNamedAndTheSDKsOwnIsNobodyElses(t *testing.T) {
	audit := newRecorded(t, Settings{})
	for _, family := range []string{"login", systemFamily} {
		if _, err := audit.Emit(t.Context(), family, Event{}); err == nil || !strings.Contains(err.Error(), "authentication") {
			t.Error(err)
		}
	}
}

func TestACancelledContextKeepsNoEventBack(t *testing.T) {
	audit := newRecorded(t, Settings{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	audit.must(audit.Login(ctx, reset))
	if found := audit.events("authentication"); len(found) != 1 {
		t.Error(found)
	}
}

func TestFailClosedWaitsForTheBroker(t *testing.T) {
	audit := newRecorded(t, Settings{
		Delivery:          map[string]DeliveryClass{"authentication": FailClosed},
		FailClosedTimeout: 50 * time.Millisecond,
	})
	id := audit.must(audit.Login(t.Context(), reset))
	if sent := audit.sent("authentication"); len(sent) != 1 || sent[0]["event_id"] != id {
		t.Error(sent)
	}
	audit.broker.set(func() { audit.broker.up = false })
	id, err := audit.Login(t.Context(), reset)
	var not *NotDelivered
	if !errors.As(err, &not) || not.EventID != id {
		t.Error(id, err)
	}
}

func TestACallDoesNotWaitForABroker(t *testing.T) {
	audit, err := New(Settings{
		Service: "x", Tenant: "acme", Bootstrap: "127.0.0.1:9", RegistryURL: "http://127.0.0.1:9",
		SpoolDir: t.TempDir(), CloseTimeout: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 100 {
		if _, err := audit.Login(t.Context(), reset); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > time.Second || audit.Pending() == 0 {
		t.Error(took, audit.Pending())
	}
	if left := audit.Close(); left == 0 || len(audit.Dropped()) != 0 {
		t.Error(left, audit.Dropped())
	}
}

func TestIDsAreVersion7InTheOrderOfTime(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	var ids []string
	for ms := range int64(50) {
		ids = append(ids, newID((1_790_000_000_000+ms)*1_000))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 50 {
		t.Error(ids)
	}
	for _, id := range ids {
		if !form.MatchString(id) || !isUUID(id) {
			t.Error(id)
		}
	}
}
