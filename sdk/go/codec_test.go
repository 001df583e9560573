package auditsdk

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

func sample(t testing.TB) Event {
	t.Helper()
	content, err := os.ReadFile("../../samples/audit_log_example.json")
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.UseNumber()
	var found struct{ Event Event }
	if err := decoder.Decode(&found); err != nil {
		t.Fatal(err)
	}
	return found.Event
}

func with(event Event, field string, value any) Event {
	changed := maps.Clone(event)
	changed[field] = value
	return changed
}

func rulesOf(t *testing.T, event Event) []string {
	t.Helper()
	problems, err := Validate("data-access", event)
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, problem := range problems {
		rules = append(rules, problem.Path+" "+problem.Rule)
	}
	return rules
}

func TestGoTypesAreReadAsJSONWouldHaveThem(t *testing.T) {
	event := sample(t)
	asJSON := with(with(event, "data_classes", []any{"contact"}), "labels", map[string]any{"a": "b"})
	asGo := with(with(event, "data_classes", []string{"contact"}), "labels", map[string]string{"a": "b"})
	one, errOne := Encode(nil, "data-access", with(asJSON, "record_count", json.Number("7")))
	for _, value := range []any{7, int8(7), int16(7), int32(7), int64(7), uint(7), uint8(7), uint64(7)} {
		two, errTwo := Encode(nil, "data-access", with(asGo, "record_count", value))
		if errOne != nil || errTwo != nil || !slices.Equal(one, two) {
			t.Errorf("%T: %v %v", value, errOne, errTwo)
		}
	}
}

func TestWhatJSONCannotSayIsRefused(t *testing.T) {
	event := sample(t)
	for rule, bad := range map[string]Event{
		"purpose unicode":    with(event, "purpose", "a\xff"),
		"record_count range": with(event, "record_count", uint64(1)<<63),
		"record_count type":  with(event, "record_count", 1.0),
		" type":              nil,
	} {
		if found := rulesOf(t, bad); !slices.Equal(found, []string{rule}) {
			t.Errorf("%v is not %s", found, rule)
		}
	}
}

func TestNoValueStandsInAnError(t *testing.T) {
	const secret = "hunter2-4711"
	event := sample(t)
	for _, field := range []string{"tenant", "operation", "occurred_at", "labels", "resources"} {
		for _, value := range []any{secret, []string{secret}, map[string]any{"a": 1, "b": secret}, secret + "\x00"} {
			if _, err := Encode(nil, "data-access", with(event, field, value)); err != nil && strings.Contains(err.Error(), secret) {
				t.Error(err)
			}
		}
	}
}

func TestAFamilyThatDoesNotExistIsNamedWithThoseThatDo(t *testing.T) {
	_, err := Encode(nil, "login", Event{})
	if err == nil || !strings.Contains(err.Error(), `"login"`) || !strings.Contains(err.Error(), "authentication") {
		t.Error(err)
	}
}

func TestWhatIsWrittenFollowsWhatWasThere(t *testing.T) {
	event := sample(t)
	body, _ := Encode(nil, "data-access", event)
	after, err := Encode([]byte("before"), "data-access", event)
	if err != nil || string(after) != "before"+string(body) {
		t.Errorf("%v", err)
	}
}

func BenchmarkEncode(b *testing.B) {
	event, out := sample(b), make([]byte, 0, 1024)
	for b.Loop() {
		if _, err := Encode(out, "data-access", event); err != nil {
			b.Fatal(err)
		}
	}
}
