package auditsdk

import (
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestTheKafkaClientChoosesThePartitionOfTheVectors(t *testing.T) {
	all := readVectors(t)
	client, err := kgo.NewClient(producerOptions(Settings{Service: "x", Bootstrap: "127.0.0.1:9"}, func(error) {})...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	chosen := client.OptValue(kgo.RecordPartitioner).(kgo.Partitioner).ForTopic("any")
	for _, vector := range all.Valid {
		partition := chosen.Partition(&kgo.Record{Key: []byte(vector.Key)}, int(all.Partitions))
		if int32(partition) != vector.Partition {
			t.Errorf("%s: %d is not %d", vector.Name, partition, vector.Partition)
		}
	}
}

func TestWhatTheTrailNeedsWinsOverTheCallersOptions(t *testing.T) {
	given := Settings{
		Service: "x", Bootstrap: "127.0.0.1:9", BufferBytes: 1 << 20,
		Kafka: []kgo.Opt{
			kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.RecordRetries(3),
			kgo.MaxBufferedRecords(10), kgo.ClientID("mine"),
		},
	}
	client, err := kgo.NewClient(producerOptions(given, func(error) {})...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if acks := client.OptValue(kgo.RequiredAcks); acks != kgo.AllISRAcks() {
		t.Error(acks)
	}
	if retries := client.OptValue(kgo.RecordRetries).(int64); retries < 1<<40 {
		t.Error(retries)
	}
	if records := client.OptValue(kgo.MaxBufferedRecords).(int64); records < 1<<40 {
		t.Error(records)
	}
	if id := client.OptValue(kgo.ClientID); id != "mine" {
		t.Error(id)
	}
}

func TestATroubleOnALineIsSaidInTheSameWordsEachTime(t *testing.T) {
	far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	line := func(port int) error {
		near := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		write := &net.OpError{Op: "write", Net: "tcp", Source: near, Addr: far, Err: syscall.EPIPE}
		return &url.Error{Op: "Post", URL: "http://u@r", Err: &net.OpError{Op: "readfrom", Net: "tcp", Addr: near, Err: write}}
	}
	if one, two := reasonOf(line(1)), reasonOf(line(2)); one != two || one != "write 127.0.0.1:9: broken pipe" {
		t.Error(one, two)
	}
	if said := reasonOf(&url.Error{Op: "Post", URL: "http://u@r", Err: io.EOF}); strings.Contains(said, "u@r") {
		t.Error(said)
	}
}

func TestOnlyWhatABrokerRefusesForGoodIsDropped(t *testing.T) {
	for err, passes := range map[error]bool{
		kerr.TopicAuthorizationFailed: false, kerr.MessageTooLarge: false, kerr.InvalidRecord: false,
		kerr.UnknownTopicOrPartition: true, kerr.NotEnoughReplicas: true, kgo.ErrClientClosed: true,
		kgo.ErrRecordTimeout: true, errors.New("a line broke"): true,
	} {
		if mayPass(err) != passes {
			t.Error(err)
		}
	}
}
