package auditsdk

import (
	"errors"
	"io/fs"
	"strings"
)

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

// ConfigurationError is a setting that a person must mend; the message names it.
type ConfigurationError struct{ Message string }

// Error is the message.
func (e *ConfigurationError) Error() string { return e.Message }

// NotAccepted says that the event was not taken and will not arrive: the spool or the memory is full, or
// the client is closed.
type NotAccepted struct{ Why string }

// Error is why.
func (e *NotAccepted) Error() string { return e.Why }

// NotDelivered says that the broker did not confirm the event in time, or refused it. It may still arrive:
// sending the same event again, with its EventID, doubles nothing.
type NotDelivered struct {
	EventID string
	// Err is what the broker or the context said; nil if nothing was heard.
	Err error
	why string
}

// Error names the event's id and why.
func (e *NotDelivered) Error() string { return "event " + e.EventID + ": " + e.why }

// Unwrap is Err.
func (e *NotDelivered) Unwrap() error { return e.Err }

// plainError is what went wrong, without the path that the message names already.
func plainError(err error) error {
	var found *fs.PathError
	if errors.As(err, &found) {
		return found.Err
	}
	return err
}
