// Bench tells what a call costs on the caller's goroutine, and how many events a process hands to the
// producer.
//
//	go run ./bench [-events N] [-rate PER_S] [-json FILE] [-cpuprofile FILE]
//
// It needs the broker and the registry that AUDIT_KAFKA_BOOTSTRAP and AUDIT_REGISTRY_URL name, and the
// tenant acme. It prints a table. Calls are timed in two kinds of service: a busy one, whose goroutine works
// on 4 MiB of its own between two calls, and an idle one, which sleeps. The yardstick is SHA-256 of 1 KiB,
// so that figures of two machines compare: as fast as it goes, and in the pauses of the timed calls, each
// after one of them. What its p99 has more there is the machine's doing (sleeping processors, other
// processes), in calls as well.
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
	workBytes  = 4 << 20 // what a busy service has in its processor's caches
	pieceBytes = 16 << 10
)

var (
	block [1024]byte
	work  [workBytes]byte
	at    int
)

type figures struct {
	YardstickUS float64            `json:"yardstick_us"`
	Classes     map[string]*result `json:"classes"`
}

type result struct {
	Busy, Idle    calls
	AcceptedPerS  float64 `json:"accepted_per_s"`
	DeliveredPerS float64 `json:"delivered_per_s"`
	AcceptedUS    float64 `json:"accepted_us"` // of a call as fast as it goes
	Left          int     `json:"left"`
}

// calls are of a service that is busy between them, or idle.
type calls struct {
	CallP50US      float64 `json:"call_p50_us"`
	CallP99US      float64 `json:"call_p99_us"`
	YardstickP50US float64 `json:"yardstick_p50_us"`
	YardstickP99US float64 `json:"yardstick_p99_us"`
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
	fmt.Printf("yardstick %.2f us\n%-12s %-5s %8s %8s %20s %12s %13s\n", found.YardstickUS,
		"class", "", "p50 us", "p99 us", "yardstick p50 p99 us", "accepted/s", "delivered/s")
	for _, class := range []auditsdk.DeliveryClass{auditsdk.BestEffort, auditsdk.Spool} {
		one, err := measure(class, events, rate)
		if err != nil {
			return err
		}
		found.Classes[string(class)] = one
		one.Busy.print(class, "busy")
		one.Idle.print(class, "idle")
		fmt.Printf("%-12s %57.0f %13.0f\n", class, one.AcceptedPerS, one.DeliveredPerS)
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
	if one.Busy, err = timed(audit, rate, beBusy); err != nil {
		return nil, err
	}
	if one.Idle, err = timed(audit, rate, func(due time.Time) { time.Sleep(time.Until(due)) }); err != nil {
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

// timed is single calls at a rate that leaves the machine room; between them the caller waits.
func timed(audit *auditsdk.Audit, rate float64, wait func(due time.Time)) (found calls, err error) {
	took, yardsticks := make([]time.Duration, timedCalls), make([]time.Duration, timedCalls)
	due, pause := time.Now(), time.Duration(float64(time.Second)/rate/2)
	for number := range took {
		due = due.Add(pause)
		wait(due)
		began := time.Now()
		if err := call(audit, number); err != nil {
			return found, err
		}
		took[number] = time.Since(began)
		due = due.Add(pause)
		wait(due)
		began = time.Now()
		block[0] = sha256.Sum256(block[:])[0]
		yardsticks[number] = time.Since(began)
	}
	found.CallP50US, found.CallP99US = quantiles(took)
	found.YardstickP50US, found.YardstickP99US = quantiles(yardsticks)
	return found, nil
}

func beBusy(due time.Time) {
	for time.Now().Before(due) {
		sha256.Sum256(work[at : at+pieceBytes])
		at = (at + pieceBytes) % workBytes
	}
}

func (c calls) print(class auditsdk.DeliveryClass, service string) {
	fmt.Printf("%-12s %-5s %8.1f %8.1f %10.1f %9.1f\n", class, service, c.CallP50US, c.CallP99US,
		c.YardstickP50US, c.YardstickP99US)
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
