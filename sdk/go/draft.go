package auditsdk

import "sync"

// draft is an event that was found valid, with a gap where its sequence number belongs: numbers are given
// one by one, and that must not make callers wait for each other's encoding.
type draft struct {
	family string
	key    []byte
	body   state
	event  typedEvent // what is encoded, if it is a typed one
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// encode judges an event, which is an Event or a *typedEvent. The error is an *InvalidEvent.
func (d *draft) encode(family string, event any) error {
	d.family = family
	d.body = state{out: d.body.out[:0]}
	encoders[family](event, &d.body)
	if d.body.problems != nil {
		return &InvalidEvent{family, d.body.problems}
	}
	d.key = appendRawKey(d.key[:0], valueOf(event, "actor"))
	return nil
}

// finish is the record's key, and its value with room for the wire format's header, in one piece of
// memory. The error is an *InvalidEvent: with its number the event is too large.
func (d *draft) finish(sequence int64) (key, value []byte, err error) {
	const longest = 10 // bytes of a long
	out := make([]byte, 0, len(d.key)+headerSize+len(d.body.out)+longest)
	out = append(out, d.key...)
	out = append(out, make([]byte, headerSize)...)
	out = append(out, d.body.out[:d.body.gap]...)
	out = appendLong(out, sequence)
	out = append(out, d.body.out[d.body.gap:]...)
	key, value = out[:len(d.key):len(d.key)], out[len(d.key):]
	if len(value)-headerSize > limits.EventBytes {
		return nil, nil, &InvalidEvent{d.family, []Problem{tooManyBytes()}}
	}
	return key, value, nil
}

// stamp is the record producer of a family's events, written once. The error is a *ConfigurationError.
func stamp(family string, made identity) (*written, error) {
	var s state
	producers[family](made.producer(laterNumber{}), &s)
	if s.problems != nil {
		return nil, &ConfigurationError{(&InvalidEvent{family, s.problems}).Error()}
	}
	return &written{s.out, s.gap}, nil
}
