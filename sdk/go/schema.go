package auditsdk

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
