package auditsdk

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Hooks are called without a lock: they may call the client.

func (p *publisher) tellAccepted(family string) {
	if p.metrics.Accepted != nil {
		defer p.hookFailed("accepted")
		p.metrics.Accepted(family)
	}
}

func (p *publisher) tellSettled(one *item, err error) {
	if err != nil {
		p.troubles.say(errors.New("broker: " + reasonOf(err)))
		p.tellDropped(one.stream.family, 1, ReasonRefused)
		return
	}
	p.troubles.over()
	if !one.own {
		p.tellResent(1)
	}
	if p.metrics.Delivered != nil {
		defer p.hookFailed("delivered")
		p.metrics.Delivered(one.stream.family, time.Since(one.acceptedAt))
	}
}

func (p *publisher) tellDropped(family string, count int, reason string) {
	if p.metrics.Dropped != nil {
		defer p.hookFailed("dropped")
		p.metrics.Dropped(family, count, reason)
	}
}

func (p *publisher) tellResent(count int) {
	if p.metrics.Resent != nil {
		defer p.hookFailed("resent")
		p.metrics.Resent(count)
	}
}

// hookFailed is deferred: a hook of the application's own must not stop the events.
func (p *publisher) hookFailed(hook string) {
	if found := recover(); found != nil {
		p.log.Error("audit_metrics_hook_failed", "hook", hook, "panic", found)
	}
}

const (
	// maxTroubles bounds how many different ones are remembered as said.
	maxTroubles = 16
	// forgetAfter is when a trouble that was not met again is a new one.
	forgetAfter = time.Minute
)

// troubles are why events wait. Each different one is logged once, however often it is met.
type troubles struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	met     map[string]time.Time
	current string
	any     atomic.Bool // whether current is set
}

func newTroubles(log *slog.Logger) *troubles {
	return &troubles{log: log, now: time.Now, met: map[string]time.Time{}}
}

func (t *troubles) say(err error) {
	why := err.Error()
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = why
	t.any.Store(true)
	for one, at := range t.met {
		if now.Sub(at) > forgetAfter {
			delete(t.met, one)
		}
	}
	_, known := t.met[why]
	if !known && len(t.met) == maxTroubles {
		return
	}
	t.met[why] = now
	if !known {
		t.log.Warn("audit_delivery_waits", "why", why)
	}
}

// over says that events are delivered.
func (t *troubles) over() {
	if !t.any.Load() {
		return
	}
	t.mu.Lock()
	t.current = ""
	t.any.Store(false)
	t.mu.Unlock()
}

// last is the newest trouble that is not over; "" if there is none.
func (t *troubles) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}
