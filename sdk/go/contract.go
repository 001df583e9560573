package auditsdk

import (
	_ "embed"
	"encoding/json"
)

// bundle.json is made from the trail's own avro_schemas and never edited by hand.
//
//go:embed bundle.json
var bundleText []byte

// Limits are bounds: text in characters, the event and map entries in bytes, the rest in elements.
type Limits struct {
	EventBytes      int `json:"event_bytes"`
	TextChars       int `json:"text_chars"`
	LabelKeyBytes   int `json:"label_key_bytes"`
	LabelValueBytes int `json:"label_value_bytes"`
	Items           int `json:"items"`
	Changes         int `json:"changes"`
}

// Family is one event family: where its events go, and what they must keep to.
type Family struct {
	Topic   string          `json:"topic"`
	Subject string          `json:"subject"`
	Rules   []rule          `json:"rules"`
	Schema  json.RawMessage `json:"schema"`
}

type rule struct {
	Rule  string   `json:"rule"`
	Path  string   `json:"path"`
	Paths []string `json:"paths"`
	When  string   `json:"when"`
	Is    any      `json:"is"`
}

var (
	limits   Limits
	families map[string]Family
	patterns map[string]*pattern
)

func init() {
	var bundle struct {
		Limits      Limits            `json:"limits"`
		Patterns    map[string]string `json:"patterns"`
		PatternDocs map[string]string `json:"pattern_docs"`
		Families    map[string]Family `json:"families"`
	}
	if err := json.Unmarshal(bundleText, &bundle); err != nil {
		panic("auditsdk: bundle.json: " + err.Error())
	}
	limits, families = bundle.Limits, bundle.Families
	patterns = make(map[string]*pattern, len(bundle.Patterns))
	for path, match := range bundle.Patterns {
		patterns[path] = newPattern(match, bundle.PatternDocs[path])
	}
	encoders = make(map[string]writeEvent, len(families))
	producers = make(map[string]write, len(families))
	for name, family := range families {
		encoders[name], producers[name] = compileEvent(family)
	}
}

// FamilyOf is the family of that name, and whether there is one.
func FamilyOf(name string) (Family, bool) {
	family, found := families[name]
	return family, found
}
