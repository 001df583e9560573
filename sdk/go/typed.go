package auditsdk

import (
	"slices"
	"time"
)

// typed is a struct that the encoder reads in place, without a map: generated for each record.
type typed interface {
	// names are the schema's fields in its order.
	names() []string
	// at is the field at a place of names: a value, or a pointer to it; nil if it is not given.
	at(place int) any
}

// typedFamily is the struct of an event.
type typedFamily interface {
	typed
	common() common
}

// common is what the SDK fills in, in every event.
type common struct {
	id      *string
	at      *time.Time
	tenant  *string
	outcome *Outcome
}

// records is a list of typed records.
type records interface {
	size() int
	item(i int) any
}

type listed[T any, P interface {
	*T
	typed
}] []T

func (l *listed[T, P]) size() int      { return len(*l) }
func (l *listed[T, P]) item(i int) any { return P(&(*l)[i]) }

// typedEvent is an event with what its context adds.
type typedEvent struct {
	given    typedFamily
	outer    Event
	producer *written
}

func (e *typedEvent) names() []string { return e.given.names() }

func (e *typedEvent) at(place int) any {
	value := e.given.at(place)
	if value != nil && len(e.outer) == 0 {
		return value
	}
	name := e.given.names()[place]
	if name == "producer" {
		return e.producer
	}
	outer := e.outer[name]
	if value == nil {
		return outer
	}
	if outer != nil && name != "actor" {
		if all, whole := joined(outer, plain(value)); whole {
			return all
		}
	}
	return value
}

// valueOf is a field of an Event or a *typedEvent.
func valueOf(event any, name string) any {
	switch event := event.(type) {
	case map[string]any:
		return event[name]
	case *typedEvent:
		if place := slices.Index(event.names(), name); place >= 0 {
			return event.at(place)
		}
	}
	return nil
}

// textIn is a text or what points to one.
func textIn(value any) (string, bool) {
	switch found := value.(type) {
	case string:
		return found, true
	case *string:
		return *found, true
	}
	return "", false
}

// fieldsOf is a record as a map, as Emit takes it.
func fieldsOf(record typed) Event {
	fields := Event{}
	for place, name := range record.names() {
		if value := record.at(place); value != nil {
			fields[name] = plain(value)
		}
	}
	return fields
}

// plain is a value as it stands in a map.
func plain(value any) any {
	switch found := value.(type) {
	case *string:
		return *found
	case *int64:
		return *found
	case *time.Time:
		return found.UnixMicro()
	case *[]string:
		return *found
	case records:
		all := make([]Event, found.size())
		for i := range all {
			all[i] = fieldsOf(found.item(i).(typed))
		}
		return all
	case typed:
		return fieldsOf(found)
	}
	return value
}
