package auditsdk

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
)

// decoder reads an Avro body by its schema, as any Avro library does.
type decoder struct {
	rest  []byte
	named map[string]*schema
}

func decodeEvent(family string, body []byte) (event Event, err error) {
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("no Avro of %s: %v", family, found)
		}
	}()
	reader := json.NewDecoder(strings.NewReader(string(families[family].Schema)))
	reader.UseNumber()
	var root any
	if err := reader.Decode(&root); err != nil {
		return nil, err
	}
	d := &decoder{body, map[string]*schema{}}
	event = d.value(parse(root)).(map[string]any)
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("%d bytes are left", len(d.rest))
	}
	return event, nil
}

func (d *decoder) long() int64 {
	value, size := binary.Varint(d.rest)
	d.rest = d.rest[size:]
	return value
}

func (d *decoder) text() string {
	size := d.long()
	found := string(d.rest[:size])
	d.rest = d.rest[size:]
	return found
}

func (d *decoder) value(s *schema) any {
	if s.of != nil {
		return d.value(s.of[d.long()])
	}
	if s.Name != "" {
		d.named[s.Name] = s
	}
	switch s.Type {
	case "null":
		return nil
	case "string":
		return d.text()
	case "boolean":
		found := d.rest[0] == 1
		d.rest = d.rest[1:]
		return found
	case "int", "long":
		return d.long()
	case "enum":
		return s.Symbols[d.long()]
	case "record":
		record := Event{}
		for _, one := range s.Fields {
			record[one.Name] = d.value(one.Type)
		}
		return record
	case "array":
		list := []any{}
		for size := d.long(); size != 0; size = d.long() {
			for range size {
				list = append(list, d.value(s.Items))
			}
		}
		return list
	case "map":
		texts := Event{}
		for size := d.long(); size != 0; size = d.long() {
			for range size {
				name := d.text()
				texts[name] = d.text()
			}
		}
		return texts
	}
	name := s.Type.(string)
	return d.value(d.named[name[strings.LastIndexByte(name, '.')+1:]])
}
