package auditsdk

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// heartbeats tell the trail that this producer lives, how far each of its topics is and what was dropped,
// so that silence can be told from absence. They are best effort: one that cannot be sent is left out, and
// while one is on its way there is no other.
type heartbeats struct {
	every  time.Duration
	tenant string
	self   identity
	log    *slog.Logger

	last  chan time.Time // until when the final one may take
	ended chan struct{}

	// Of the goroutine alone:
	sequence int64      // of the next one
	onItsWay chan error // nil: none is
	said     string
}

// newHeartbeats is nil if there are to be none.
func newHeartbeats(s Settings, self identity) *heartbeats {
	if s.Heartbeat < 0 || s.HeartbeatTenant == "" {
		return nil
	}
	return &heartbeats{
		every: s.Heartbeat, tenant: s.HeartbeatTenant, self: self, log: s.Logger,
		last: make(chan time.Time, 1), ended: make(chan struct{}),
	}
}

// run sends one at once and then at every interval, until end is called.
func (h *heartbeats) run(ctx context.Context, p *publisher) {
	defer close(h.ended)
	ticker := time.NewTicker(h.every)
	defer ticker.Stop()
	h.beat(ctx, p, false)
	for {
		select {
		case err := <-h.onItsWay:
			h.settle(err)
		case <-ticker.C:
			h.beat(ctx, p, false)
		case deadline := <-h.last:
			limit, cancel := context.WithDeadline(ctx, deadline)
			defer cancel()
			h.settled(limit)
			h.beat(limit, p, true)
			h.settled(limit)
			return
		}
	}
}

// end has the final one sent, and returns when the broker has it, at the latest at the deadline.
func (h *heartbeats) end(deadline time.Time) {
	h.last <- deadline
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-h.ended:
	case <-timer.C:
	}
}

func (h *heartbeats) beat(ctx context.Context, p *publisher, final bool) {
	if h.onItsWay != nil || ctx.Err() != nil {
		return
	}
	id, err := p.parts.ids.ask(ctx, systemFamily)
	if err != nil {
		h.say(err)
		return
	}
	event := h.event(p.progress(), final)
	body, err := Encode(nil, systemFamily, event)
	if err != nil {
		h.say(err)
		return
	}
	topic := families[systemFamily].Topic
	record := &kgo.Record{Topic: topic, Key: RawKey(event), Value: Frame(nil, id, body)}
	settled := make(chan error, 1)
	h.onItsWay = settled
	p.producer.Produce(context.Background(), record, func(_ *kgo.Record, err error) { settled <- err })
}

// settled waits for the one on its way.
func (h *heartbeats) settled(ctx context.Context) {
	if h.onItsWay == nil {
		return
	}
	select {
	case err := <-h.onItsWay:
		h.settle(err)
	case <-ctx.Done():
	}
}

// settle uses the sequence number up, unless the broker said that it has not taken the heartbeat.
func (h *heartbeats) settle(err error) {
	h.onItsWay = nil
	if err != nil {
		h.say(err)
	} else {
		h.said = ""
	}
	if !isRefusal(err) {
		h.sequence++
	}
}

// say logs each different trouble once.
func (h *heartbeats) say(err error) {
	if why := reasonOf(err); why != h.said && !isClosing(err) {
		h.said = why
		h.log.Warn("audit_heartbeat_not_sent", "why", why)
	}
}

func (h *heartbeats) event(topics []Event, final bool) Event {
	now := time.Now().UnixMicro()
	return Event{
		"event_id": newID(now), "occurred_at": now, "tenant": h.tenant,
		"action": "producer.heartbeat", "outcome": "success", "operation": "heartbeat",
		"actor":     Event{"type": "system", "tenant": h.tenant, "id_type": "unknown", "id": nil},
		"producer":  h.self.producer(h.sequence),
		"heartbeat": Event{"interval_s": int(math.Ceil(h.every.Seconds())), "final": final},
		"topics":    topics,
	}
}

// progress is each topic that has had an event, by name: how far it is, and what will not arrive.
func (p *publisher) progress() []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	topics := []Event{}
	for _, one := range p.streams {
		if one.accepted == 0 && one.dropped.Refused == 0 {
			continue
		}
		ranges := make([]string, len(one.dropped.Ranges))
		for i, lost := range one.dropped.Ranges {
			ranges[i] = fmt.Sprintf("%d-%d", lost.First, lost.Last)
		}
		topics = append(topics, Event{
			"topic": one.topic, "accepted": one.accepted, "delivered": one.delivered,
			"refused": one.dropped.Refused, "dropped": ranges,
		})
	}
	sort.Slice(topics, func(i, j int) bool { return topics[i]["topic"].(string) < topics[j]["topic"].(string) })
	return topics
}
