package auditsdk

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"time"
)

// identity is one producing process, from its start on.
type identity struct {
	service, version, environment, instance string
	epoch                                   int64 // microseconds since 1970 of the start
}

// identityOf is that of this process; without a name of its own it is host and process id.
func identityOf(s Settings, now time.Time) identity {
	instance := s.Instance
	if instance == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		instance = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	return identity{s.Service, s.Version, s.Environment, instance, now.UnixMicro()}
}

// producer is the event's record of that name, with a sequence number or what stands for one.
func (i identity) producer(sequence any) Event {
	producer := Event{"service": i.service, "instance": i.instance, "epoch": i.epoch, "sequence": sequence}
	if i.version != "" {
		producer["version"] = i.version
	}
	if i.environment != "" {
		producer["environment"] = i.environment
	}
	return producer
}

// random has randomness for many ids at once: asking the system costs more than the rest of an id.
var random randomness

type randomness struct {
	mu    sync.Mutex
	left  []byte
	block [4_000]byte
}

func (r *randomness) read(to []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.left) < len(to) {
		rand.Read(r.block[:]) // never fails: it ends the program instead
		r.left = r.block[:]
	}
	r.left = r.left[copy(to, r.left):]
}

// newID is a version 7 UUID of a time in microseconds since 1970. Source: RFC 9562 §5.7.
func newID(atUS int64) string {
	var id [16]byte
	var text [36]byte
	random.read(id[6:])
	ms := uint64(atUS / 1_000)
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = 0x70 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	hex.Encode(text[:8], id[:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:], id[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// folder is the name of this process's folder in a spool; names sort by the time of the start.
func (i identity) folder() string {
	return fmt.Sprintf("%d-%d", i.epoch, os.Getpid())
}
