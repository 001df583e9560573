package auditsdk

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"
)

// Event is an event as its family's schema names the fields: strings, bools, whole numbers of any
// integer type (or json.Number), nil, []any or []string, map[string]any, and map[string]string for
// labels and metadata.
type Event = map[string]any

const (
	nilUUID = "00000000-0000-0000-0000-000000000000"
	lastUS  = 9_214_646_400_000_000 // the stores' times end before the year 2262
)

var (
	uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	encoders map[string]writeEvent
)

// state is what one event's writers share.
type state struct {
	out      []byte
	problems []Problem
}

type (
	write      func(value any, s *state)
	writeEvent func(event Event, s *state)
)

func (s *state) note(path, rule, detail string) {
	s.problems = append(s.problems, Problem{path, rule, detail})
}

// Encode appends the Avro body of an event, without the wire format's header, to out. Fields that the
// event lacks get their schema's default. The error is an *InvalidEvent with everything that is wrong,
// in the schema's order. Source: Avro 1.12 specification, "Binary Encoding".
func Encode(out []byte, family string, event Event) ([]byte, error) {
	encode, known := encoders[family]
	if !known {
		return out, unknownFamily(family)
	}
	s := state{out: out}
	encode(event, &s)
	if s.problems != nil {
		return out, &InvalidEvent{family, s.problems}
	}
	return s.out, nil
}

// Validate is everything that is wrong with an event; nothing: it may be sent.
func Validate(family string, event Event) ([]Problem, error) {
	encode, known := encoders[family]
	if !known {
		return nil, unknownFamily(family)
	}
	var s state
	encode(event, &s)
	return s.problems, nil
}

func unknownFamily(name string) error {
	names := make([]string, 0, len(families))
	for known := range families {
		names = append(names, known)
	}
	sort.Strings(names)
	return fmt.Errorf("no event family is named %q; there are %s", name, strings.Join(names, ", "))
}

// schema is an Avro type: a name, a union (of), or an object.
type schema struct {
	Type    any
	Name    string
	Logical string
	Fields  []field
	Symbols []string
	Items   *schema
	of      []*schema
}

type field struct {
	Name       string
	Type       *schema
	Default    any
	hasDefault bool
}

type compiler struct{ named map[string]*schema }

func compileEvent(family Family) writeEvent {
	decoder := json.NewDecoder(strings.NewReader(string(family.Schema)))
	decoder.UseNumber()
	var root any
	if err := decoder.Decode(&root); err != nil {
		panic("auditsdk: bundle.json: " + err.Error())
	}
	record := (&compiler{map[string]*schema{}}).record(parse(root), "")
	return func(event Event, s *state) {
		start := len(s.out)
		if event == nil {
			s.note("", "type", "must be a record")
			return
		}
		record(event, s)
		for _, rule := range family.Rules {
			rule.judge(event, s)
		}
		if len(s.out)-start > limits.EventBytes {
			s.note("", "event_bytes", fmt.Sprintf("more than %d bytes as Avro", limits.EventBytes))
		}
	}
}

func parse(found any) *schema {
	switch found := found.(type) {
	case string:
		return &schema{Type: found}
	case []any:
		union := &schema{}
		for _, branch := range found {
			union.of = append(union.of, parse(branch))
		}
		return union
	}
	object := found.(map[string]any)
	parsed := &schema{Type: object["type"]}
	parsed.Name, _ = object["name"].(string)
	parsed.Logical, _ = object["logicalType"].(string)
	for _, symbol := range list(object["symbols"]) {
		parsed.Symbols = append(parsed.Symbols, symbol.(string))
	}
	if items, has := object["items"]; has {
		parsed.Items = parse(items)
	}
	for _, one := range list(object["fields"]) {
		content := one.(map[string]any)
		value, has := content["default"]
		parsed.Fields = append(parsed.Fields, field{
			Name: content["name"].(string), Type: parse(content["type"]), Default: value, hasDefault: has,
		})
	}
	return parsed
}

func list(value any) []any {
	found, _ := value.([]any)
	return found
}

func (c *compiler) compile(s *schema, path string) write {
	if s.of != nil {
		return c.union(s, path)
	}
	switch s.Type {
	case "record":
		c.named[s.Name] = s
		return c.record(s, path)
	case "enum":
		c.named[s.Name] = s
		return enum(s.Symbols, path)
	case "array":
		return c.array(s, path)
	case "map":
		return textMap(path)
	case "string":
		if s.Logical == "uuid" {
			return uuid(path)
		}
		return text(path)
	case "boolean":
		return boolean(path)
	case "int":
		return whole(path, math.MinInt32, math.MaxInt32, "must fit into 32 bits")
	case "long":
		if s.Logical == "timestamp-micros" {
			return whole(path, 0, lastUS, "must be microseconds since 1970, before the year 2262")
		}
		return whole(path, math.MinInt64, math.MaxInt64, "must fit into 64 bits")
	}
	name, _ := s.Type.(string)
	known := c.named[name[strings.LastIndexByte(name, '.')+1:]]
	if known == nil {
		panic("auditsdk: " + path + ": no event field has Avro type " + name)
	}
	return c.compile(known, path)
}

func (c *compiler) union(s *schema, path string) write {
	var inner write
	var null, present byte
	for at, branch := range s.of {
		if branch.Type == "null" {
			null = byte(2 * at)
		} else {
			inner, present = c.compile(branch, path), byte(2*at)
		}
	}
	return func(value any, s *state) {
		if value == nil {
			s.out = append(s.out, null)
			return
		}
		s.out = append(s.out, present)
		inner(value, s)
	}
}

func (c *compiler) array(sch *schema, path string) write {
	inner := c.compile(sch.Items, path+".*")
	rule, limit := "items", limits.Items
	if path == "changes" {
		rule, limit = "changes", limits.Changes
	}
	tooMany := fmt.Sprintf("more than %d elements", limit)
	return func(value any, s *state) {
		size, at, ok := elements(value)
		switch {
		case !ok:
			s.note(path, "type", "must be a list")
			return
		case size > limit:
			s.note(path, rule, tooMany)
			return
		case size > 0:
			s.out = appendLong(s.out, int64(size))
			for i := range size {
				inner(at(i), s)
			}
		}
		s.out = append(s.out, 0)
	}
}

// elements is how many a list has, how to get at them, and whether it is a list.
func elements(value any) (int, func(int) any, bool) {
	switch found := value.(type) {
	case []any:
		return len(found), func(i int) any { return found[i] }, true
	case []string:
		return len(found), func(i int) any { return found[i] }, true
	case []Event:
		return len(found), func(i int) any { return found[i] }, true
	}
	return 0, nil, false
}

func textMap(path string) write {
	tooMany := fmt.Sprintf("more than %d elements", limits.Items)
	longKey := fmt.Sprintf("a key is longer than %d bytes", limits.LabelKeyBytes)
	longValue := fmt.Sprintf("a value is longer than %d bytes", limits.LabelValueBytes)
	return func(value any, s *state) {
		texts, ok := textsOf(value)
		if !ok {
			s.note(path, "type", "must be a map of texts")
			return
		}
		if len(texts) > limits.Items {
			s.note(path, "items", tooMany)
			return
		}
		if len(texts) > 0 {
			s.out = appendLong(s.out, int64(len(texts)))
			for _, name := range sortedKeys(texts) {
				if name == "" {
					s.note(path, "empty", "a key is empty")
				}
				if len(name) > limits.LabelKeyBytes {
					s.note(path, "label_key_bytes", longKey)
				}
				if len(texts[name]) > limits.LabelValueBytes {
					s.note(path, "label_value_bytes", longValue)
				}
				s.text(name, path)
				s.text(texts[name], path)
			}
		}
		s.out = append(s.out, 0)
	}
}

func textsOf(value any) (map[string]string, bool) {
	switch found := value.(type) {
	case map[string]string:
		return found, true
	case map[string]any:
		texts := make(map[string]string, len(found))
		for name, part := range found {
			text, ok := part.(string)
			if !ok {
				return nil, false
			}
			texts[name] = text
		}
		return texts, true
	}
	return nil, false
}

// sortedKeys are the keys in the order of their UTF-8 bytes.
func sortedKeys[V any](entries map[string]V) []string {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

type recordField struct {
	name, where string
	write       write
	otherwise   []byte
	required    bool
}

func (c *compiler) record(sch *schema, path string) write {
	fields := make([]recordField, len(sch.Fields))
	names := make(map[string]bool, len(sch.Fields))
	for i, one := range sch.Fields {
		where := one.Name
		if path != "" {
			where = path + "." + one.Name
		}
		fields[i] = recordField{one.Name, where, c.compile(one.Type, where), nil, !one.hasDefault}
		names[one.Name] = true
		if one.hasDefault {
			var s state
			fields[i].write(one.Default, &s)
			fields[i].otherwise = s.out
		}
	}
	return func(value any, s *state) {
		content, ok := value.(map[string]any)
		if !ok || content == nil {
			s.note(path, "type", "must be a record")
			return
		}
		present := 0
		for i := range fields {
			one := &fields[i]
			part, has := content[one.name]
			if has {
				present++
			}
			switch {
			case one.required && part == nil:
				s.note(one.where, "required", "is missing")
			case !has:
				s.out = append(s.out, one.otherwise...)
			default:
				one.write(part, s)
			}
		}
		if present == len(content) {
			return
		}
		for _, name := range sortedKeys(content) {
			if !names[name] {
				where := name
				if path != "" {
					where = path + "." + name
				}
				s.note(where, "unknown_field", "is no field of this family")
			}
		}
	}
}

func enum(symbols []string, path string) write {
	codes := make(map[string]int64, len(symbols))
	for number, symbol := range symbols {
		codes[symbol] = int64(number)
	}
	known := "must be one of " + strings.Join(symbols, ", ")
	return func(value any, s *state) {
		symbol, _ := value.(string)
		code, found := codes[symbol]
		if !found {
			s.note(path, "symbol", known)
			return
		}
		s.out = appendLong(s.out, code)
	}
}

func boolean(path string) write {
	return func(value any, s *state) {
		switch value {
		case true:
			s.out = append(s.out, 1)
		case false:
			s.out = append(s.out, 0)
		default:
			s.note(path, "type", "must be true or false")
		}
	}
}

func whole(path string, least, most int64, wanted string) write {
	return func(value any, s *state) {
		number, found := wholeNumber(value)
		switch {
		case found == notWhole:
			s.note(path, "type", "must be a whole number")
		case found == tooLarge || number < least || number > most:
			s.note(path, "range", wanted)
		default:
			s.out = appendLong(s.out, number)
		}
	}
}

func text(path string) write {
	tooLong := fmt.Sprintf("longer than %d characters", limits.TextChars)
	form, hasForm := patterns[path]
	return func(value any, s *state) {
		found, ok := value.(string)
		if !ok {
			s.note(path, "type", "must be text")
			return
		}
		switch {
		case found == "":
			s.note(path, "empty", "is empty; leave it out instead")
		case len(found) > limits.TextChars && utf8.RuneCountInString(found) > limits.TextChars:
			s.note(path, "text_chars", tooLong)
		case hasForm && !form.match.MatchString(found):
			s.note(path, "pattern", "must be "+form.doc)
		}
		s.text(found, path)
	}
}

func uuid(path string) write {
	return func(value any, s *state) {
		found, ok := value.(string)
		switch {
		case !ok:
			s.note(path, "type", "must be text")
		case !uuidForm.MatchString(found) || found == nilUUID:
			s.note(path, "uuid", "must be a UUID, and not the nil one")
		default:
			s.out = append(append(s.out, 72), found...)
		}
	}
}
