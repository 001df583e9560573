package auditsdk

import (
	"errors"
	"time"
)

// settle is what became of an event; a goroutine of the Kafka client calls it.
func (p *publisher) settle(one *item, err error) {
	if err != nil && (one.spooled != nil || mayPass(err)) {
		p.giveBack(one, err)
		return
	}
	if one.spooled != nil {
		p.spool.confirm(one.spooled)
	}
	p.mu.Lock()
	p.held--
	p.heldBytes -= one.weight()
	switch {
	case err != nil:
		one.stream.dropped.add(one.sequence)
	case one.own:
		one.stream.delivered++
	}
	if p.held == 0 || len(p.backlog) > 0 {
		p.wakeUp()
	}
	p.mu.Unlock()
	if one.settled != nil {
		one.failure = err
		close(one.settled)
	}
	p.tellSettled(one, err)
}

// giveBack has an event sent again, after a while.
func (p *publisher) giveBack(one *item, err error) {
	p.mu.Lock()
	over := p.over
	if !over {
		p.again = append(p.again, one)
		p.retryAt = time.Now().Add(retryAfter)
		p.wakeUp()
	}
	p.mu.Unlock()
	if over {
		p.lose(one)
	}
	if !isClosing(err) {
		p.troubles.say(errors.New("broker: " + reasonOf(err)))
	}
}
