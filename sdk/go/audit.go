package auditsdk

import (
	"context"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

//go:generate go run ./internal/generate

// Audit publishes audit events. One per process is enough; every method is safe for concurrent use.
//
// A call builds the event (id, time, producer, what its context has), holds it to its family's contract
// and returns its EventID once it is accepted for delivery; what that promises is the family's
// DeliveryClass. A call waits for no broker and no registry, but for a class of FailClosed, and then not
// longer than FailClosedTimeout and its context. Otherwise a context that is over keeps no event back.
// Nothing connects before the first event.
//
// Close it before the process ends, on signals as well: signal.NotifyContext tells of those.
//
// Errors: *InvalidEvent (it breaks the contract; nothing was sent), *NotAccepted (the spool is full, or the
// client closed), *NotDelivered (FailClosed only), *ConfigurationError (SpoolDir cannot be written).
type Audit struct {
	settings  Settings
	publisher *publisher
	stamps    map[string]*written
}

// New checks the settings and opens nothing. The error is a *ConfigurationError.
func New(settings Settings) (*Audit, error) {
	given, err := settings.complete()
	if err != nil {
		return nil, err
	}
	asked, err := newSchemaIDs(given)
	if err != nil {
		return nil, err
	}
	a := &Audit{settings: given}
	var options []kgo.Opt
	made := parts{ids: asked, makeProducer: func() (producer, error) { return kgo.NewClient(options...) }}
	if err := a.assemble(made); err != nil {
		return nil, err
	}
	options = producerOptions(given, a.publisher.troubles.say)
	if err := checkOptions(options); err != nil {
		return nil, err
	}
	return a, nil
}

// assemble makes what is behind the calls, for this process as it is now.
func (a *Audit) assemble(made parts) error {
	self := identityOf(a.settings, time.Now())
	a.stamps = make(map[string]*written, len(producers))
	for family := range producers {
		stamped, err := stamp(family, self)
		if err != nil {
			return err
		}
		a.stamps[family] = stamped
	}
	if a.settings.SpoolDir != "" {
		made.makeSpool = func() (*spool, error) {
			return openSpool(a.settings.SpoolDir, self.folder(), a.settings.SpoolMaxBytes)
		}
	}
	if _, known := families[systemFamily]; known {
		made.beats = newHeartbeats(a.settings, self)
	}
	a.publisher = newPublisher(made, a.settings.classOf, a.settings)
	return nil
}

// Login is an authentication: Action is session.start unless given, Operation is logon.
func (a *Audit) Login(ctx context.Context, event Login) (string, error) {
	event.Action = firstOf(event.Action, "session.start")
	return a.typed(ctx, "authentication", &event)
}

// DataAccess is data that was read, searched, exported or shared.
func (a *Audit) DataAccess(ctx context.Context, event DataAccess) (string, error) {
	return a.typed(ctx, "data-access", &event)
}

// ProfileUpdate is a change of what a service holds about a person: Changes, and whose it is: Targets.
// Action is profile.update unless given.
func (a *Audit) ProfileUpdate(ctx context.Context, event ProfileUpdate) (string, error) {
	event.Action = firstOf(event.Action, "profile.update")
	return a.typed(ctx, "profile-update", &event)
}

// AdminAction is something that takes administrative rights.
func (a *Audit) AdminAction(ctx context.Context, event AdminAction) (string, error) {
	return a.typed(ctx, "admin-action", &event)
}

// SecurityChange is a change of a control: a role, a credential, a factor, a policy, a key.
func (a *Audit) SecurityChange(ctx context.Context, event SecurityChange) (string, error) {
	return a.typed(ctx, "security-change", &event)
}

// Emit publishes an event of any family. Fields are the event's own (docs/events.md); what they leave out,
// or is nil, comes from the context, then from here: event_id, occurred_at (also a time.Time), tenant,
// outcome (success) and producer.
func (a *Audit) Emit(ctx context.Context, family string, fields Event) (string, error) {
	to, event, err := a.emitted(ctx, family, fields)
	if err != nil {
		return "", err
	}
	id, _ := event["event_id"].(string)
	one := drafts.Get().(*draft)
	defer drafts.Put(one)
	return a.publish(ctx, to, one, event, id)
}

// Check is what is wrong with an event as Emit would publish it here and now: an *InvalidEvent, or that
// there is no such family; nil: it keeps its contract, with the longest sequence number as well. Nothing is
// sent, and nothing is said of spool, memory or broker.
func (a *Audit) Check(ctx context.Context, family string, fields Event) error {
	to, event, err := a.emitted(ctx, family, fields)
	if err != nil {
		return err
	}
	one := drafts.Get().(*draft)
	defer drafts.Put(one)
	if err := one.encode(to.family, event); err != nil {
		return err
	}
	_, _, err = one.finish(math.MaxInt64)
	return err
}

// Flush waits until the broker has what was accepted; how many events it has not when time is up.
func (a *Audit) Flush(timeout time.Duration) int {
	return a.publisher.flush(timeout)
}

// Close is CloseWithin Settings.CloseTimeout.
func (a *Audit) Close() int {
	return a.CloseWithin(a.settings.CloseTimeout)
}

// CloseWithin flushes for so long and ends; how many events the broker has not. Spooled ones go out with
// the next process that has this SpoolDir; the others are dropped and counted. Ending takes up to two
// seconds more where a broker does not answer. A second call does nothing and says the same.
func (a *Audit) CloseWithin(timeout time.Duration) int {
	return a.publisher.close(timeout)
}

// Dropped is by topic what will not arrive.
func (a *Audit) Dropped() map[string]Dropped {
	return a.publisher.dropped()
}

// Pending is events that the broker has not confirmed yet; those that stand in the spool alone count as
// one a segment.
func (a *Audit) Pending() int {
	return a.publisher.pending()
}

// emitted is the event that Emit makes of fields, and where it goes.
func (a *Audit) emitted(ctx context.Context, family string, fields Event) (*stream, Event, error) {
	to, known := a.publisher.streams[family]
	if !known {
		return nil, nil, unknownFamily(family)
	}
	event := merged(contextFields(ctx), fields)
	a.complete(event)
	event["producer"] = a.stamps[family]
	return to, event, nil
}

// typed publishes the event of a call; it fills it in.
func (a *Audit) typed(ctx context.Context, family string, event typedFamily) (string, error) {
	to := a.publisher.streams[family]
	outer := contextFields(ctx)
	given := event.common()
	now := time.Now()
	if given.at.IsZero() && outer["occurred_at"] == nil {
		*given.at = now
	}
	id, ofContext := outer["event_id"].(string)
	if *given.id == "" && !ofContext {
		*given.id = newID(max(firstOf(*given.at, now).UnixMicro(), 0))
	}
	id = firstOf(*given.id, id)
	if *given.outcome == "" && outer["outcome"] == nil {
		*given.outcome = OutcomeSuccess
	}
	if *given.tenant == "" && outer["tenant"] == nil {
		*given.tenant = a.settings.Tenant
	}
	one := drafts.Get().(*draft)
	one.event = typedEvent{event, outer, a.stamps[family]}
	defer func() {
		one.event = typedEvent{}
		drafts.Put(one)
	}()
	return a.publish(ctx, to, one, &one.event, id)
}

// publish judges an event and gives it to the publisher.
func (a *Audit) publish(ctx context.Context, to *stream, one *draft, event any, id string) (string, error) {
	if err := one.encode(to.family, event); err != nil {
		return "", err
	}
	taken, err := a.publisher.accept(to, one)
	if err != nil {
		return "", err
	}
	if taken != nil && taken.settled != nil {
		return id, a.publisher.wait(ctx, taken, id, a.settings.FailClosedTimeout)
	}
	return id, nil
}

// complete adds what an event gets by itself.
func (a *Audit) complete(event Event) {
	at := time.Now().UnixMicro()
	switch given := event["occurred_at"].(type) {
	case nil:
		event["occurred_at"] = at
	case time.Time:
		at = given.UnixMicro()
		event["occurred_at"] = at
	}
	if event["event_id"] == nil {
		event["event_id"] = newID(max(at, 0))
	}
	if event["outcome"] == nil {
		event["outcome"] = string(OutcomeSuccess)
	}
	if event["tenant"] == nil && a.settings.Tenant != "" {
		event["tenant"] = a.settings.Tenant
	}
}
