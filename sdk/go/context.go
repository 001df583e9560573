package auditsdk

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
)

// ErrNoContext says that no audit context is open: add the middleware, or use WithContext.
var ErrNoContext = errors.New("no audit context is open: add the middleware, or use WithContext")

type scopeKey struct{}

// scope is the fields of one context. They are replaced as a whole, and seen by everything that was given
// the context.
type scope struct {
	mu     sync.Mutex
	fields Event
}

func (s *scope) get() Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fields
}

// WithContext is a context whose events get these fields, unless a call says otherwise; it adds to what
// ctx has. Fields are those of the event: tenant, actor, source, session, request, … Records are merged
// field by field, the inner ones winning; an actor replaces the outer one whole.
func WithContext(ctx context.Context, fields Event) context.Context {
	return context.WithValue(ctx, scopeKey{}, &scope{fields: merged(contextFields(ctx), fields)})
}

// SetContext adds to the context that is open, for whoever was given it, other goroutines included. The
// error is ErrNoContext.
func SetContext(ctx context.Context, fields Event) error {
	found, open := ctx.Value(scopeKey{}).(*scope)
	if !open {
		return ErrNoContext
	}
	found.mu.Lock()
	defer found.mu.Unlock()
	found.fields = merged(found.fields, fields)
	return nil
}

// SetActor is SetContext where a request is authenticated: who acts, and in which tenant ("" leaves the
// tenant as it is).
func SetActor(ctx context.Context, tenant string, actor Actor) error {
	fields := Event{"actor": actor.Fields()}
	if tenant != "" {
		fields["tenant"] = tenant
	}
	return SetContext(ctx, fields)
}

// contextFields are those that events of a context get.
func contextFields(ctx context.Context) Event {
	if found, open := ctx.Value(scopeKey{}).(*scope); open {
		return found.get()
	}
	return nil
}

// merged is outer with what inner says, in a new map; nil says nothing.
func merged(outer, inner Event) Event {
	result := make(Event, len(outer)+len(inner))
	for name, value := range inner {
		if value != nil {
			result[name] = value
		}
	}
	fill(result, outer)
	return result
}

// fill adds to inner what outer has and inner has not.
func fill(inner, outer Event) {
	for name, value := range outer {
		known, has := inner[name]
		if !has {
			inner[name] = value
			continue
		}
		if name == "actor" {
			continue
		}
		if all, whole := joined(value, known); whole {
			inner[name] = all
		}
	}
}

// joined is a record of both, if both are records of one kind.
func joined(outer, inner any) (any, bool) {
	switch inner := inner.(type) {
	case map[string]any:
		if outer, same := outer.(map[string]any); same {
			all := maps.Clone(outer)
			maps.Copy(all, inner)
			return all, true
		}
	case map[string]string:
		if outer, same := outer.(map[string]string); same {
			all := maps.Clone(outer)
			maps.Copy(all, inner)
			return all, true
		}
	}
	return nil, false
}

// traceOf is trace_id and span_id of a traceparent header, added to request; nothing if it is not one.
// Source: W3C Trace Context, version 00.
func traceOf(traceparent string, request Event) {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(traceparent)), "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" {
		return
	}
	trace, span := parts[1], parts[2]
	if len(trace) == 32 && len(span) == 16 && isTraceNumber(trace) && isTraceNumber(span) {
		request["trace_id"], request["span_id"] = trace, span
	}
}

// isTraceNumber is hexadecimal digits that are not all zero.
func isTraceNumber(text string) bool {
	zero := true
	for i := range len(text) {
		if !isHex(text[i]) {
			return false
		}
		zero = zero && text[i] == '0'
	}
	return !zero
}
