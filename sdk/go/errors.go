package auditsdk

import "strings"

// Problem is one thing that is wrong with an event: where, by which rule, and what would be right.
// Detail never holds a value of the event.
type Problem struct {
	Path, Rule, Detail string
}

// String is the problem in a sentence.
func (p Problem) String() string {
	path := p.Path
	if path == "" {
		path = "(event)"
	}
	return path + ": " + p.Detail + " [" + p.Rule + "]"
}

// InvalidEvent says that an event breaks its contract: mend the call. Nothing was sent.
type InvalidEvent struct {
	Family string
	// Problems are in the schema's order.
	Problems []Problem
}

// Error names the family and every problem.
func (e *InvalidEvent) Error() string {
	said := make([]string, len(e.Problems))
	for i, problem := range e.Problems {
		said[i] = problem.String()
	}
	return e.Family + ": " + strings.Join(said, "; ")
}
