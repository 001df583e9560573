package auditsdk

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDroppedRangesHoldEachSequenceOnceInAnyOrder(t *testing.T) {
	for range 200 {
		var dropped Dropped
		there := map[int64]bool{}
		for range 40 {
			sequence := rand.Int64N(60)
			dropped.add(sequence)
			there[sequence] = true
		}
		var found []int64
		for i, one := range dropped.Ranges {
			if i > 0 && one.First <= dropped.Ranges[i-1].Last+1 {
				t.Fatal(dropped.Ranges)
			}
			for sequence := one.First; sequence <= one.Last; sequence++ {
				found = append(found, sequence)
			}
		}
		if len(found) != len(there) || slices.ContainsFunc(found, func(one int64) bool { return !there[one] }) {
			t.Fatal(dropped.Ranges, there)
		}
	}
}

func TestDroppedRangesAreBoundedAndTheOldestAreJoined(t *testing.T) {
	var dropped Dropped
	for sequence := int64(0); sequence < 1_000; sequence += 2 {
		dropped.add(sequence)
	}
	ends := len(dropped.Ranges) - 1
	if ends != limits.Items-1 || dropped.Ranges[0].First != 0 || dropped.Ranges[ends] != (Range{998, 998}) {
		t.Error(dropped.Ranges)
	}
	copied := dropped.clone()
	dropped.add(999)
	if copied.Ranges[limits.Items-1].Last != 998 {
		t.Error(copied.Ranges)
	}
}

func TestEachTroubleIsSaidOnceUntilItIsForgotten(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	found := newTroubles(slog.New(slog.NewTextHandler(&out, nil)))
	found.now = func() time.Time { return now }
	count := func() int { return strings.Count(out.String(), "audit_delivery_waits") }
	one, two := errors.New("one"), errors.New("two")
	for range 100 {
		found.say(one)
		found.say(two)
		now = now.Add(time.Second)
	}
	if count() != 2 || found.last() != "two" {
		t.Error(out.String())
	}
	found.over()
	if found.last() != "" {
		t.Error(found.last())
	}
	now = now.Add(forgetAfter + time.Second)
	found.say(one)
	if count() != 3 {
		t.Error(out.String())
	}
	for number := range 1_000 {
		found.say(errors.New(strings.Repeat("x", number)))
	}
	if len(found.met) > maxTroubles || count() > 2+maxTroubles {
		t.Error(len(found.met), count())
	}
}
