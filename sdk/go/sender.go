package auditsdk

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	batchItems = 500     // taken from the queue at once
	readBytes  = 1 << 20 // read back from the spool at once

	// While events come, the queue is looked at so often, and callers wake nobody: on a machine whose
	// other processors sleep, a wake costs a caller more than all the rest of the call.
	lookEvery = 5 * time.Millisecond
	// Without an event for so long, the next one wakes the sending goroutine.
	sleepAfter = time.Second
)

// --- under the lock ---

// start is the first event's: nothing is opened before it. The error is a *ConfigurationError.
func (p *publisher) start() error {
	if p.started {
		return nil
	}
	if p.parts.makeSpool != nil && p.spool == nil {
		made, err := p.parts.makeSpool()
		if err != nil {
			return err
		}
		p.spool, p.recovering = made, true
	}
	made, err := p.parts.makeProducer()
	if err != nil {
		return err
	}
	p.producer = made
	ctx, stop := context.WithCancel(context.Background())
	p.started, p.stop = true, stop
	go p.run(ctx)
	if p.parts.beats != nil {
		go p.parts.beats.run(ctx, p)
	}
	return nil
}

// appendToSpool has an event in a file. It is sent from memory, unless memory is full or others wait in
// the spool before it.
func (p *publisher) appendToSpool(one *item, full bool) error {
	spooled, err := p.spool.append(one.stream.family, one.record.Key, one.body())
	if err != nil {
		return err
	}
	one.spooled = spooled
	if !full && len(p.backlog) == 0 && !p.recovering {
		p.enqueue(one)
		return nil
	}
	last := len(p.backlog) - 1
	if last < 0 || p.backlog[last].segment != spooled.segment {
		p.backlog = append(p.backlog, unread{spooled.segment, spooled.start})
	}
	if p.asleep {
		p.wakeUp()
	}
	return nil
}

func (p *publisher) enqueue(one *item) {
	p.queue = append(p.queue, one)
	p.held++
	p.heldBytes += one.weight()
	if p.asleep || one.delivery == FailClosed {
		p.wakeUp()
	}
}

func (p *publisher) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// --- the sending goroutine ---

func (p *publisher) run(ctx context.Context) {
	defer close(p.ended)
	p.recover()
	for {
		pause, err := p.sendAll(ctx)
		if ctx.Err() != nil {
			return // whoever closes has waited before
		}
		if err != nil {
			p.troubles.say(err)
			pause = retryAfter
		}
		p.rest(ctx, pause, err == nil)
	}
}

// rest waits so long, or until there is something to do if it may be woken; 0: until something is to do.
func (p *publisher) rest(ctx context.Context, pause time.Duration, wakes bool) {
	if pause == 0 {
		pause = p.untilNextLook()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	wake := p.wake
	if !wakes {
		wake = nil
	}
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}

func (p *publisher) untilNextLook() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asleep = len(p.queue) == 0 && time.Since(p.activeAt) > sleepAfter
	if p.asleep {
		return time.Hour
	}
	return lookEvery
}

// recover finds what processes that are gone have left; it goes before this process's own.
func (p *publisher) recover() {
	if p.spool == nil {
		return
	}
	found, err := p.spool.recover()
	if err != nil {
		p.log.Error("audit_spool_not_recovered", "why", err.Error())
	}
	for _, kept := range p.spool.damaged {
		p.log.Error("audit_spool_damaged", "kept", kept)
	}
	records, before := 0, make([]unread, len(found))
	for i, one := range found {
		before[i] = unread{one, 0}
		records += one.records
	}
	p.mu.Lock()
	p.backlog = append(before, p.backlog...)
	p.recovering = false
	p.mu.Unlock()
	if records > 0 {
		p.log.Info("audit_spool_found", "events", records)
	}
}

// sendAll hands over what there is; how long to wait before what was given back is tried again.
func (p *publisher) sendAll(ctx context.Context) (time.Duration, error) {
	for ctx.Err() == nil {
		batch, pause, err := p.next()
		if err != nil || len(batch) == 0 {
			return pause, err
		}
		for i, one := range batch {
			if err := p.send(ctx, one); err != nil {
				p.putBack(batch[i:])
				return 0, err
			}
		}
	}
	return 0, nil
}

func (p *publisher) send(ctx context.Context, one *item) error {
	id, err := p.parts.ids.ask(ctx, one.stream.family)
	if err != nil {
		return err
	}
	value := one.record.Value
	value[0] = 0
	binary.BigEndian.PutUint32(value[1:], id)
	p.producer.Produce(context.Background(), &one.record, func(_ *kgo.Record, err error) { p.settle(one, err) })
	return nil
}

// next is what goes first: what was given back, then the queue, then the spool.
func (p *publisher) next() ([]*item, time.Duration, error) {
	p.mu.Lock()
	if wait := time.Until(p.retryAt); len(p.again) > 0 && wait > 0 {
		p.mu.Unlock()
		return nil, wait, nil
	}
	if batch := p.takeBatch(); batch != nil {
		p.mu.Unlock()
		return batch, 0, nil
	}
	if len(p.backlog) > 0 && p.heldBytes < p.bufferBytes {
		from := p.backlog[0]
		p.mu.Unlock()
		return nil, 0, p.readOn(from) // its records are in the queue then
	}
	if p.spool != nil && p.held == 0 && len(p.backlog) == 0 {
		p.spool.trim()
	}
	p.mu.Unlock()
	return nil, 0, nil
}

func (p *publisher) takeBatch() []*item {
	if len(p.again) > 0 {
		batch := p.again
		p.again = nil
		return batch
	}
	if len(p.queue) == 0 {
		return nil
	}
	p.activeAt = time.Now()
	count := min(len(p.queue), batchItems)
	batch := p.queue[:count:count]
	p.queue = p.queue[count:]
	return batch
}

// readOn puts the next records of the spool into the queue. The segment stays in the backlog meanwhile,
// so that events that are accepted now go behind it.
func (p *publisher) readOn(from unread) error {
	records, at, err := from.segment.read(from.start, p.spool.sizeOf(from.segment), readBytes)
	if err != nil {
		return errors.New("the spool cannot be read: " + plainError(err).Error())
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range records {
		if one := p.fromSpool(&records[i], now); one != nil {
			p.enqueue(one)
		}
	}
	// Nothing appends without this lock: what is not read now is behind at, or there is nothing.
	if len(records) > 0 && at < p.spool.sizeOf(from.segment) {
		p.backlog[0].start = at
	} else {
		p.backlog = p.backlog[1:]
	}
	p.wakeUp()
	return nil
}

func (p *publisher) fromSpool(one *spooled, now time.Time) *item {
	to, known := p.streams[one.family]
	if !known { // a newer SDK wrote it; its file stays for that one
		p.log.Error("audit_spool_family_unknown", "family", one.family)
		return nil
	}
	value := append(make([]byte, headerSize, headerSize+len(one.body)), one.body...)
	return &item{
		stream: to, delivery: Spool, sequence: noSequence, own: !one.segment.recovered, acceptedAt: now,
		record: kgo.Record{Topic: to.topic, Key: one.key, Value: value}, spooled: one,
	}
}

func (p *publisher) putBack(batch []*item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.again = append(append(make([]*item, 0, len(batch)+len(p.again)), batch...), p.again...)
}
