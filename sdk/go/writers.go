package auditsdk

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

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

func enum(symbols []string, path string) write {
	codes := make(map[string]int64, len(symbols))
	for number, symbol := range symbols {
		codes[symbol] = int64(number)
	}
	known := "must be one of " + strings.Join(symbols, ", ")
	return func(value any, s *state) {
		symbol, _ := textIn(value)
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
		if _, later := value.(laterNumber); later {
			s.gap = len(s.out)
			return
		}
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
		found, ok := textIn(value)
		if !ok {
			s.note(path, "type", "must be text")
			return
		}
		switch {
		case found == "":
			s.note(path, "empty", "is empty; leave it out instead")
		case len(found) > limits.TextChars && utf8.RuneCountInString(found) > limits.TextChars:
			s.note(path, "text_chars", tooLong)
		case hasForm && !form.matches(found):
			s.note(path, "pattern", "must be "+form.doc)
		}
		s.text(found, path)
	}
}

func uuid(path string) write {
	return func(value any, s *state) {
		found, ok := textIn(value)
		switch {
		case !ok:
			s.note(path, "type", "must be text")
		case !isUUID(found) || found == nilUUID:
			s.note(path, "uuid", "must be a UUID, and not the nil one")
		default:
			s.out = append(append(s.out, 72), found...)
		}
	}
}
