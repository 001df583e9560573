package auditsdk

import (
	"encoding/json"
	"math"
	"math/big"
	"time"
	"unicode/utf8"
)

type wholeness int

const (
	isWhole wholeness = iota
	notWhole
	tooLarge
)

// wholeNumber is any integer type's value, or that of a json.Number without fraction or exponent.
func wholeNumber(value any) (int64, wholeness) {
	switch found := value.(type) {
	case int:
		return int64(found), isWhole
	case int64:
		return found, isWhole
	case int32:
		return int64(found), isWhole
	case int16:
		return int64(found), isWhole
	case int8:
		return int64(found), isWhole
	case uint8:
		return int64(found), isWhole
	case uint16:
		return int64(found), isWhole
	case uint32:
		return int64(found), isWhole
	case uint:
		return unsigned(uint64(found))
	case uint64:
		return unsigned(found)
	case json.Number:
		return jsonNumber(found)
	case *int64:
		return *found, isWhole
	case *time.Time:
		return found.UnixMicro(), isWhole
	case time.Time:
		return found.UnixMicro(), isWhole
	}
	return 0, notWhole
}

func unsigned(value uint64) (int64, wholeness) {
	if value > math.MaxInt64 {
		return 0, tooLarge
	}
	return int64(value), isWhole
}

func jsonNumber(number json.Number) (int64, wholeness) {
	if value, err := number.Int64(); err == nil {
		return value, isWhole
	}
	if _, ok := new(big.Int).SetString(number.String(), 10); ok {
		return 0, tooLarge
	}
	return 0, notWhole
}

// sizeOf is how many elements a list has, and whether it is a list.
func sizeOf(value any) (int, bool) {
	switch found := value.(type) {
	case []any:
		return len(found), true
	case []string:
		return len(found), true
	case []Event:
		return len(found), true
	case *[]string:
		return len(*found), true
	case records:
		return found.size(), true
	}
	return 0, false
}

// element is one of a list.
func element(value any, i int) any {
	switch found := value.(type) {
	case []any:
		return found[i]
	case []string:
		return &found[i]
	case []Event:
		return found[i]
	case *[]string:
		return &(*found)[i]
	case records:
		return found.item(i)
	}
	return nil
}

// appendLong is zigzag, then seven bits at a time, the lowest first.
func appendLong(out []byte, value int64) []byte {
	rest := uint64(value)<<1 ^ uint64(value>>63)
	for rest > 0x7f {
		out = append(out, byte(rest)|0x80)
		rest >>= 7
	}
	return append(out, byte(rest))
}

// text writes the length in bytes, then UTF-8; what no store takes is a problem.
func (s *state) text(found, path string) {
	plain := true
	for i := 0; i < len(found) && plain; i++ {
		plain = found[i] >= 0x20 && found[i] < 0x7f
	}
	if !plain {
		if !utf8.ValidString(found) {
			s.note(path, "unicode", "is no valid UTF-8")
			return
		}
		for _, char := range found {
			if isControl(char) {
				s.note(path, "control_character", "has a control character")
				return
			}
		}
	}
	s.out = append(appendLong(s.out, int64(len(found))), found...)
}

// isControl is C0 except tab, line feed and carriage return; DEL; C1 with U+0085.
func isControl(char rune) bool {
	return char < 0x20 && char != '\t' && char != '\n' && char != '\r' || char >= 0x7f && char <= 0x9f
}

// judge notes what a family's rule finds.
func (r rule) judge(event any, s *state) {
	switch r.Rule {
	case "required_if":
		if plain(valueOf(event, r.When)) == r.Is && isNothing(valueOf(event, r.Path)) {
			s.note(r.Path, "required_if", "is required when "+r.When+" is "+words(r.Is))
		}
	case "at_least_one":
		for _, path := range r.Paths {
			if !isNothing(valueOf(event, path)) {
				return
			}
		}
		s.note(r.Paths[0], "at_least_one", "at least one of "+join(r.Paths)+" is required")
	}
}

func isNothing(value any) bool {
	if value == nil {
		return true
	}
	if size, isList := sizeOf(value); isList {
		return size == 0
	}
	value = plain(value)
	return value == nil || value == "" || value == false
}

func words(value any) string {
	switch value {
	case true:
		return "true"
	case false:
		return "false"
	}
	text, _ := value.(string)
	return text
}

func join(paths []string) string {
	joined := paths[0]
	for _, path := range paths[1:] {
		joined += " and " + path
	}
	return joined
}
