package auditsdk

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"
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
	encoders  map[string]writeEvent
	producers map[string]write // by family, of the record producer
)

// state is what one event's writers share.
type state struct {
	out      []byte
	problems []Problem
	gap      int // where in out a number that is not known yet belongs
}

// laterNumber stands for a whole number that is put in at the state's gap afterwards.
type laterNumber struct{}

// written is a record whose Avro is known already, but for a number that belongs at its gap.
type written struct {
	avro []byte
	gap  int
}

type (
	write      func(value any, s *state)
	writeEvent func(event any, s *state) // an Event or a *typedEvent
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

type compiler struct{ named map[string]*schema }

// compileEvent is the writer of a family, and that of its record producer.
func compileEvent(family Family) (writeEvent, write) {
	decoder := json.NewDecoder(strings.NewReader(string(family.Schema)))
	decoder.UseNumber()
	var root any
	if err := decoder.Decode(&root); err != nil {
		panic("auditsdk: bundle.json: " + err.Error())
	}
	parsed, c := parse(root), &compiler{map[string]*schema{}}
	record := c.record(parsed, "")
	var producer write
	for _, one := range parsed.Fields {
		if one.Name == "producer" {
			producer = c.compile(one.Type, one.Name)
		}
	}
	return func(event any, s *state) {
		start := len(s.out)
		record(event, s)
		if fields, isMap := event.(map[string]any); isMap && fields == nil {
			return
		}
		for _, rule := range family.Rules {
			rule.judge(event, s)
		}
		if len(s.out)-start > limits.EventBytes {
			s.problems = append(s.problems, tooManyBytes())
		}
	}, producer
}

func tooManyBytes() Problem {
	return Problem{"", "event_bytes", fmt.Sprintf("more than %d bytes as Avro", limits.EventBytes)}
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
		size, ok := sizeOf(value)
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
				inner(element(value, i), s)
			}
		}
		s.out = append(s.out, 0)
	}
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
	var defaults state // side by side in memory, as they are read
	defaults.out = make([]byte, 0, 8*len(fields))
	for i, one := range sch.Fields {
		where := one.Name
		if path != "" {
			where = path + "." + one.Name
		}
		fields[i] = recordField{one.Name, where, c.compile(one.Type, where), nil, !one.hasDefault}
		names[one.Name] = true
		if one.hasDefault {
			start := len(defaults.out)
			fields[i].write(one.Default, &defaults)
			fields[i].otherwise = defaults.out[start:len(defaults.out):len(defaults.out)]
		}
	}
	return func(value any, s *state) {
		switch content := value.(type) {
		case map[string]any:
			if content != nil {
				writeMap(fields, names, path, content, s)
				return
			}
		case typed:
			writeTyped(fields, content, s)
			return
		case *written:
			s.gap = len(s.out) + content.gap
			s.out = append(s.out, content.avro...)
			return
		}
		s.note(path, "type", "must be a record")
	}
}

func writeMap(fields []recordField, names map[string]bool, path string, content map[string]any, s *state) {
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

func writeTyped(fields []recordField, content typed, s *state) {
	for i := range fields {
		one := &fields[i]
		part := content.at(i)
		switch {
		case part != nil:
			one.write(part, s)
		case one.required:
			s.note(one.where, "required", "is missing")
		default:
			s.out = append(s.out, one.otherwise...)
		}
	}
}
