package auditsdk_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	auditsdk "github.com/audit-trail/auditsdk"
)

func ExampleFrame() {
	event := auditsdk.Event{
		"event_id":    "01966f3e-7a10-7c3b-9d2e-5b7f0c1a2d39",
		"occurred_at": 1790000000123456,
		"tenant":      "acme",
		"action":      "record.read",
		"outcome":     "success",
		"producer":    map[string]any{"service": "records"},
		"actor":       map[string]any{"type": "user", "tenant": "acme", "id_type": "user_id", "id": "u-000042"},
		"resources":   []any{map[string]any{"tenant": "acme", "type": "record", "id": "r-58d1"}},
		"operation":   "read",
	}
	body, err := auditsdk.Encode(nil, "data-access", event)
	if err != nil {
		panic(err)
	}
	value := auditsdk.Frame(nil, 258, body) // 258: the schema's id in the registry
	family, _ := auditsdk.FamilyOf("data-access")
	fmt.Println(family.Topic, string(auditsdk.RawKey(event)), len(value))

	delete(event, "tenant")
	_, err = auditsdk.Encode(nil, "data-access", event)
	fmt.Println(err)
	// Output:
	// audit.raw.data-access acme/u-000042 161
	// data-access: tenant: is missing [required]
}

func TestTheReadmeShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "```go\n")
	shown := strings.Split(blocks[len(blocks)-1], "```")[0]
	printed := strings.Split(strings.Split(string(readme), "```text\n")[1], "```")[0]
	for _, line := range strings.Split(strings.TrimSpace(shown), "\n") {
		if !strings.Contains(string(example), line) {
			t.Errorf("the example has no line %q", line)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(printed), "\n") {
		if !strings.Contains(string(example), "// "+line) {
			t.Errorf("the example does not print %q", line)
		}
	}
}
