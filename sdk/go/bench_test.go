package auditsdk

import (
	"context"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// nowhere confirms everything at once.
type nowhere struct{}

func (nowhere) Produce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error)) {
	promise(record, nil)
}

func (nowhere) Close() {}

// seven is a registry whose ids are all alike.
type seven struct{}

func (seven) ask(context.Context, string) (uint32, error) { return 7, nil }

func BenchmarkCall(b *testing.B) {
	for _, class := range []DeliveryClass{BestEffort, Spool} {
		b.Run(string(class), func(b *testing.B) {
			given, err := Settings{
				Service: "bench", Tenant: "acme", Heartbeat: -1, BufferBytes: 1 << 30, SpoolDir: b.TempDir(),
				SpoolMaxBytes: 1 << 40, Delivery: map[string]DeliveryClass{"data-access": class},
			}.complete()
			if err != nil {
				b.Fatal(err)
			}
			audit := &Audit{settings: given}
			made := parts{ids: seven{}, makeProducer: func() (producer, error) { return nowhere{}, nil }}
			if err := audit.assemble(made); err != nil {
				b.Fatal(err)
			}
			defer audit.Close()
			b.ReportAllocs()
			for number := 0; b.Loop(); number++ {
				_, err := audit.DataAccess(context.Background(), DataAccess{
					Action: "record.read", Operation: DataOperationRead,
					Actor: &Actor{
						Type: ActorTypeUser, Tenant: "acme", IDType: "user_id", Name: "Ada Moreau",
						ID: "u-" + strconv.Itoa(number%5_000),
					},
					Source:    &Source{IP: "192.0.2.17", UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:143.0)"},
					Resources: []Resource{{Tenant: "acme", Type: "record", ID: "r-" + strconv.Itoa(number)}},
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
