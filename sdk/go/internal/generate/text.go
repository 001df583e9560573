package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// enum is a type of text, with a constant for each symbol.
func enum(name, doc string, symbols []any) string {
	made := comment(name+": "+doc, "") + fmt.Sprintf("type %s string\n\n// Symbols of %s.\nconst (\n", name, name)
	for _, symbol := range symbols {
		text := symbol.(string)
		made += fmt.Sprintf("\t%s%s %s = %q\n", name, exported(text), name, text)
	}
	return made + ")\n"
}

// isGiven is the condition under which a field is in the event.
func isGiven(kind, name string) string {
	switch {
	case kind == "string" || kind[0] >= 'A' && kind[0] <= 'Z':
		return name + ` != ""`
	case kind == "bool":
		return name
	case kind == "int64":
		return name + " != 0"
	case kind == "time.Time":
		return "!" + name + ".IsZero()"
	}
	return name + " != nil"
}

// place is a field as the encoder takes it: a pointer where that saves a copy.
func place(kind, name string) string {
	switch {
	case kind == "*bool":
		return "*" + name
	case kind[0] == '*' || kind == "bool" || strings.HasPrefix(kind, "map"):
		return name
	case strings.HasPrefix(kind, "[]") && kind != "[]string":
		return fmt.Sprintf("(*listed[%s, *%s])(&%s)", kind[2:], kind[2:], name)
	case kind[0] >= 'A' && kind[0] <= 'Z':
		return "(*string)(&" + name + ")"
	}
	return "&" + name
}

// exported is a snake_case name in Go's way.
func exported(name string) string {
	var made strings.Builder
	for _, word := range strings.Split(name, "_") {
		switch word {
		case "id", "ip", "mfa":
			made.WriteString(strings.ToUpper(word))
		default:
			made.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return made.String()
}

// comment is text in lines of comments.
func comment(text, indent string) string {
	line, made := indent+"//", ""
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > commentWidth {
			made += line + "\n"
			line = indent + "//"
		}
		line += " " + word
	}
	return made + line + "\n"
}

func sorted(sources map[string]string) string {
	var made strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		made.WriteString(sources[name] + "\n")
	}
	return made.String()
}
