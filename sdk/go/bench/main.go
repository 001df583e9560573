// Bench tells what a call costs on the caller's goroutine, and how many events a process hands to the
// producer.
//
//	go run ./bench [-events N] [-rate PER_S] [-json FILE] [-cpuprofile FILE]
//
// It needs the broker and the registry that AUDIT_KAFKA_BOOTSTRAP and AUDIT_REGISTRY_URL name, and the
// tenant acme. It prints a table. The yardstick is SHA-256 of 1 KiB, so that figures of two machines compare:
// as fast as it goes, and in the same pauses as the timed calls, each after one of them. What the second
// one's p99 has more is the machine's doing (sleeping processors, other processes), in calls as well.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"time"

	"github.com/audit-trail/auditsdk"
)

const (
	timedCalls = 5_000
	flushFor   = time.Minute
)

var block [1024]byte

type figures struct {
	YardstickUS float64            `json:"yardstick_us"`
	Classes     map[string]*result `json:"classes"`
}

type result struct {
	CallP50US      float64 `json:"call_p50_us"`
	CallP99US      float64 `json:"call_p99_us"`
	YardstickP50US float64 `json:"yardstick_p50_us"`
	YardstickP99US float64 `json:"yardstick_p99_us"`
	AcceptedPerS   float64 `json:"accepted_per_s"`
	DeliveredPerS  float64 `json:"delivered_per_s"`
	AcceptedUS     float64 `json:"accepted_us"` // of a call as fast as it goes
	Left           int     `json:"left"`
}

func main() {
	events := flag.Int("events", 300_000, "handed over as fast as it goes")
	rate := flag.Float64("rate", 1_000, "of the calls that are timed, a second")
	to := flag.String("json", "", "also write the figures there")
	profile := flag.String("cpuprofile", "", "write a profile of the events there")
	flag.Parse()
	if err := run(*events, *rate, *to, *profile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(events int, rate float64, to, profile string) error {
	found := figures{YardstickUS: yardstick(), Classes: map[string]*result{}}
	if profile != "" {
		file, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Printf("yardstick %.2f us\n%-12s %8s %8s %20s %12s %13s\n", found.YardstickUS,
		"class", "p50 us", "p99 us", "yardstick p50 p99 us", "accepted/s", "delivered/s")
	for _, class := range []auditsdk.DeliveryClass{auditsdk.BestEffort, auditsdk.Spool} {
		one, err := measure(class, events, rate)
		if err != nil {
			return err
		}
		found.Classes[string(class)] = one
		fmt.Printf("%-12s %8.1f %8.1f %10.1f %9.1f %12.0f %13.0f\n", class, one.CallP50US, one.CallP99US,
			one.YardstickP50US, one.YardstickP99US, one.AcceptedPerS, one.DeliveredPerS)
	}
	if to == "" {
		return nil
	}
	content, err := json.MarshalIndent(found, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(to, append(content, '\n'), 0o644)
}

func measure(class auditsdk.DeliveryClass, events int, rate float64) (*result, error) {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	audit, err := auditsdk.New(auditsdk.Settings{
		Service: "bench", Tenant: "acme", SpoolDir: folder, BufferBytes: 1 << 30, SpoolMaxBytes: 2 << 30,
		Delivery: map[string]auditsdk.DeliveryClass{"data-access": class},
	})
	if err != nil {
		return nil, err
	}
	defer audit.Close()
	if err := call(audit, 0); err != nil {
		return nil, err
	}
	if left := audit.Flush(flushFor); left > 0 {
		return nil, fmt.Errorf("the broker has not the first event after %v", flushFor)
	}
	one := &result{}
	if err := one.timed(audit, rate); err != nil {
		return nil, err
	}
	return one, one.handedOver(audit, events)
}

func call(audit *auditsdk.Audit, number int) error {
	_, err := audit.DataAccess(context.Background(), auditsdk.DataAccess{
		Action: "record.read", Operation: auditsdk.DataOperationRead,
		Actor: &auditsdk.Actor{
			Type: auditsdk.ActorTypeUser, Tenant: "acme", IDType: "user_id", Name: "Ada Moreau",
			ID: "u-" + strconv.Itoa(number%5_000),
		},
		Source:    &auditsdk.Source{IP: "192.0.2.17", UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:143.0)"},
		Resources: []auditsdk.Resource{{Tenant: "acme", Type: "record", ID: "r-" + strconv.Itoa(number)}},
	})
	return err
}

// timed is single calls at a rate that leaves the machine room.
func (r *result) timed(audit *auditsdk.Audit, rate float64) error {
	calls, yardsticks := make([]time.Duration, timedCalls), make([]time.Duration, timedCalls)
	due, pause := time.Now(), time.Duration(float64(time.Second)/rate/2)
	for number := range calls {
		due = due.Add(pause)
		time.Sleep(time.Until(due))
		began := time.Now()
		if err := call(audit, number); err != nil {
			return err
		}
		calls[number] = time.Since(began)
		due = due.Add(pause)
		time.Sleep(time.Until(due))
		began = time.Now()
		block[0] = sha256.Sum256(block[:])[0]
		yardsticks[number] = time.Since(began)
	}
	r.CallP50US, r.CallP99US = quantiles(calls)
	r.YardstickP50US, r.YardstickP99US = quantiles(yardsticks)
	return nil
}

// quantiles are the median and the 99th percentile in microseconds.
func quantiles(took []time.Duration) (p50, p99 float64) {
	slices.Sort(took)
	us := func(at int) float64 { return float64(took[at].Nanoseconds()) / 1_000 }
	return us(len(took) / 2), us(len(took) * 99 / 100)
}

// handedOver is as fast as it goes: accepted, then on the broker.
func (r *result) handedOver(audit *auditsdk.Audit, events int) error {
	began := time.Now()
	for number := range events {
		if err := call(audit, number); err != nil {
			return err
		}
	}
	took := time.Since(began)
	r.AcceptedPerS = float64(events) / took.Seconds()
	r.AcceptedUS = float64(took.Microseconds()) / float64(events)
	r.Left = audit.Flush(flushFor)
	r.DeliveredPerS = float64(events-r.Left) / time.Since(began).Seconds()
	return nil
}

func yardstick() float64 {
	const rounds = 50_000
	began := time.Now()
	for range rounds {
		block[0] = sha256.Sum256(block[:])[0]
	}
	return float64(time.Since(began).Nanoseconds()) / rounds / 1_000
}
