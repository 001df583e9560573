package auditsdk

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

type vectors struct {
	SchemaID   uint32 `json:"schema_id"`
	Partitions int32
	Valid      []struct {
		Name, Family, Topic, Key, Value string
		Partition                       int32
		Event                           Event
	}
	Invalid []struct {
		Name, Family string
		Event        Event
		Problems     [][]string
	}
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	content, err := os.ReadFile("../conformance/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(content)))
	decoder.UseNumber()
	var found vectors
	if err := decoder.Decode(&found); err != nil {
		t.Fatal(err)
	}
	if len(found.Valid) == 0 || len(found.Invalid) == 0 {
		t.Fatal("no vectors")
	}
	return found
}

func TestValidEventsHaveTheSameBytesKeyAndPartition(t *testing.T) {
	all := readVectors(t)
	for _, vector := range all.Valid {
		t.Run(vector.Name, func(t *testing.T) {
			body, err := Encode(nil, vector.Family, vector.Event)
			if err != nil {
				t.Fatal(err)
			}
			if value := hex.EncodeToString(Frame(nil, all.SchemaID, body)); value != vector.Value {
				t.Errorf("value\n%s is not\n%s", value, vector.Value)
			}
			key := RawKey(vector.Event)
			if string(key) != vector.Key {
				t.Errorf("key %s is not %s", key, vector.Key)
			}
			if partition := Murmur2(key) % all.Partitions; partition != vector.Partition {
				t.Errorf("partition %d is not %d", partition, vector.Partition)
			}
			if family, _ := FamilyOf(vector.Family); family.Topic != vector.Topic {
				t.Errorf("topic %s is not %s", family.Topic, vector.Topic)
			}
		})
	}
}

func TestInvalidEventsNamePathAndRule(t *testing.T) {
	for _, vector := range readVectors(t).Invalid {
		t.Run(vector.Name, func(t *testing.T) {
			problems, err := Validate(vector.Family, vector.Event)
			if err != nil {
				t.Fatal(err)
			}
			found := make([][]string, len(problems))
			for i, problem := range problems {
				found[i] = []string{problem.Path, problem.Rule}
			}
			if !reflect.DeepEqual(found, vector.Problems) {
				t.Errorf("%v is not %v", found, vector.Problems)
			}
			_, err = Encode(nil, vector.Family, vector.Event)
			var invalid *InvalidEvent
			if !errors.As(err, &invalid) {
				t.Errorf("%v is no InvalidEvent", err)
			}
		})
	}
}
