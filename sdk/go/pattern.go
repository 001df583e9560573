package auditsdk

import (
	"maps"
	"regexp"
	"sync/atomic"
)

// Texts of one pattern that are remembered as matching. Actions are few and come again and again; asking
// the expression takes ten times as long as asking the map.
const rememberedTexts = 256

// pattern is a form that texts must have, and how a problem describes it.
type pattern struct {
	match *regexp.Regexp
	doc   string
	known atomic.Pointer[map[string]struct{}]
}

func newPattern(expression, doc string) *pattern {
	made := &pattern{match: regexp.MustCompile(expression), doc: doc}
	made.known.Store(&map[string]struct{}{})
	return made
}

func (p *pattern) matches(text string) bool {
	known := p.known.Load()
	if _, found := (*known)[text]; found {
		return true
	}
	if !p.match.MatchString(text) {
		return false
	}
	if len(*known) < rememberedTexts {
		more := maps.Clone(*known)
		more[text] = struct{}{}
		p.known.CompareAndSwap(known, &more) // another call may have been first: this text is met again
	}
	return true
}

// isUUID is 8-4-4-4-12 hexadecimal digits of either case.
func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		char := text[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if char != '-' {
				return false
			}
		case !isHex(char) && (char < 'A' || char > 'F'):
			return false
		}
	}
	return true
}

// isHex is a hexadecimal digit in lower case.
func isHex(char byte) bool {
	return char >= '0' && char <= '9' || char >= 'a' && char <= 'f'
}
