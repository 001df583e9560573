package auditsdk

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestAContextIsSeenByWhatWasGivenItAndByNothingElse(t *testing.T) {
	audit := newRecorded(t, Settings{})
	outer := WithContext(t.Context(), Event{"actor": ada.Fields(), "source": Event{"ip": "192.0.2.1"}})
	inner := WithContext(outer, Event{"source": Event{"port": 7}, "session": Event{"id": "s"}})
	audit.must(audit.Login(inner, Login{}))
	audit.must(audit.Login(outer, Login{Source: &Source{IP: "192.0.2.9"}}))
	if _, err := audit.Login(t.Context(), Login{}); err == nil || !strings.Contains(err.Error(), "actor: is missing") {
		t.Error(err)
	}
	if err := SetContext(t.Context(), Event{}); !errors.Is(err, ErrNoContext) {
		t.Error(err)
	}

	events := audit.events("authentication")
	if part(events[0], "source", "ip") != "192.0.2.1" || part(events[0], "source", "port") != int64(7) ||
		part(events[0], "session", "id") != "s" {
		t.Error(events[0])
	}
	if part(events[1], "source", "ip") != "192.0.2.9" || events[1]["session"] != nil {
		t.Error(events[1])
	}
}

func TestAnActorReplacesTheOuterOneWhole(t *testing.T) {
	audit := newRecorded(t, Settings{})
	ctx := WithContext(t.Context(), Event{"actor": Event{"name": "Ada", "email": "ada@example.com"}})
	audit.must(audit.Login(ctx, Login{Actor: ada}))
	if event := audit.events("authentication")[0]; part(event, "actor", "name") != nil {
		t.Error(event)
	}
}

// serve is a request through the middleware, whose handler is authenticated inside, in another goroutine.
func serve(audit recorded, headers http.Header, client string) Event {
	audit.t.Helper()
	login := http.HandlerFunc(func(_ http.ResponseWriter, asked *http.Request) {
		done := make(chan error)
		go func() { done <- SetActor(asked.Context(), "globex", *ada) }()
		if err := <-done; err != nil {
			audit.t.Error(err)
		}
		audit.must(audit.Login(asked.Context(), Login{}))
	})
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	asked := httptest.NewRequest(http.MethodGet, "/", nil)
	asked.Header, asked.RemoteAddr = headers, client
	Middleware(login, proxies...).ServeHTTP(httptest.NewRecorder(), asked)
	events := audit.events("authentication")
	return events[len(events)-1]
}

func TestTheMiddlewareCarriesTheRequestsFacts(t *testing.T) {
	headers := http.Header{"User-Agent": {"curl/8"}, "X-Request-Id": {"rq-1"}, "Traceparent": {trace}}
	event := serve(newRecorded(t, Settings{}), headers, "192.0.2.7:50000")

	for where, wanted := range map[[2]string]any{
		{"actor", "id"}: "u-1", {"source", "ip"}: "192.0.2.7", {"source", "port"}: int64(50_000),
		{"source", "user_agent"}: "curl/8", {"request", "id"}: "rq-1",
		{"request", "trace_id"}: "4bf92f3577b34da6a3ce929d0e0e4736", {"request", "span_id"}: "00f067aa0ba902b7",
	} {
		if found := part(event, where[0], where[1]); found != wanted {
			t.Error(where, found)
		}
	}
	if event["tenant"] != "globex" {
		t.Error(event)
	}
}

func TestAForwardedAddressCountsOnlyFromATrustedProxy(t *testing.T) {
	audit := newRecorded(t, Settings{})
	for _, one := range []struct {
		client, wanted string
		forwarded      []string
	}{
		{"192.0.2.7:1", "192.0.2.7", []string{"203.0.113.1"}}, // nobody's proxy: what it says counts nothing
		{"10.0.0.1:1", "203.0.113.1", []string{"203.0.113.1"}},
		{"10.0.0.1:1", "203.0.113.1", []string{"6.6.6.6, 203.0.113.1, 10.0.0.2"}},
		{"10.0.0.1:1", "203.0.113.1", []string{"6.6.6.6", "203.0.113.1, 10.0.0.2"}},
		{"10.0.0.1:1", "10.0.0.2", []string{"6.6.6.6, rubbish, 10.0.0.2"}},
		{"10.0.0.1:1", "10.0.0.1", nil},
		{"[fd00::1]:1", "2001:db8::1", []string{"2001:db8::1"}},
		{"[::ffff:10.0.0.1]:1", "203.0.113.1", []string{"::ffff:203.0.113.1"}},
		{"[fe80::1%eth0]:1", "fe80::1", nil},
	} {
		event := serve(audit, http.Header{"X-Forwarded-For": one.forwarded}, one.client)
		if found := part(event, "source", "ip"); found != one.wanted {
			t.Error(one, found)
		}
	}
}

func TestWhatAClientSendsSpoilsNoEvent(t *testing.T) {
	audit := newRecorded(t, Settings{})
	for _, headers := range []http.Header{
		{"User-Agent": {"a\x1b[31m"}},
		{"User-Agent": {"a\xff"}},
		{"User-Agent": {strings.Repeat("é", 5_000)}},
		{"X-Request-Id": {"ada@example.com"}},
		{"X-Request-Id": {strings.Repeat("x", 5_000)}},
		{"X-Request-Id": {"--"}},
		{"Traceparent": {"00-zz-yy-01"}},
		{"X-Forwarded-For": {"<script>"}},
	} {
		event := serve(audit, headers, "10.0.0.1:1")
		if id := part(event, "request", "id").(string); strings.Contains(id, "@") || len(id) != 36 {
			t.Error(headers, id)
		}
	}
}

func TestARequestWithoutAnAddressHasNone(t *testing.T) {
	if event := serve(newRecorded(t, Settings{}), http.Header{}, "@"); event["source"] != nil {
		t.Error(event)
	}
}

func TestATraceparentIsReadAsW3CHasIt(t *testing.T) {
	for text, isOne := range map[string]bool{
		trace: true,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be": true,
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":              false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":              false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":              false,
		"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01":               false,
		"00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01":              false,
		"": false,
	} {
		request := Event{}
		traceOf(text, request)
		if (len(request) == 2) != isOne {
			t.Error(text, request)
		}
	}
}

func TestAContextMayBeChangedWhileEventsAreMade(t *testing.T) {
	audit := newRecorded(t, Settings{})
	ctx := WithContext(context.Background(), Event{"actor": ada.Fields()})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			if err := SetContext(ctx, Event{"labels": map[string]string{"a": "b"}}); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 200 {
		audit.must(audit.Login(ctx, Login{Labels: map[string]string{"c": "d"}}))
	}
	<-done
	audit.must(audit.Login(ctx, Login{Labels: map[string]string{"c": "d"}}))
	events := audit.events("authentication")
	if last := events[len(events)-1]; part(last, "labels", "a") != "b" || part(last, "labels", "c") != "d" {
		t.Error(last)
	}
}
