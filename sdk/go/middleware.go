package auditsdk

import (
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxRequestIDBytes bounds a caller's own request id.
const maxRequestIDBytes = 64

// Middleware gives every event of a request the request's facts: address, user agent, request id and W3C
// trace context, by the request's context. The address is that of the connection; X-Forwarded-For counts
// only if the connection comes from a trusted proxy. Who acts is not in a request until it is
// authenticated: name the actor with SetActor there.
func Middleware(next http.Handler, trustedProxies ...netip.Prefix) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, asked *http.Request) {
		request := Event{"id": requestID(asked.Header.Get("X-Request-Id"))}
		traceOf(asked.Header.Get("Traceparent"), request)
		fields := Event{"request": request}
		source := sourceOf(asked, trustedProxies)
		if agent := asked.UserAgent(); agent != "" && isPrintable(agent) {
			source["user_agent"] = firstRunes(agent, limits.TextChars)
		}
		if len(source) > 0 {
			fields["source"] = source
		}
		next.ServeHTTP(answer, asked.WithContext(WithContext(asked.Context(), fields)))
	})
}

// sourceOf is the nearest address that is no trusted proxy's, from the right.
func sourceOf(asked *http.Request, trusted []netip.Prefix) Event {
	line, err := netip.ParseAddrPort(asked.RemoteAddr)
	if err != nil {
		return Event{} // a Unix socket has none
	}
	nearest := plainAddress(line.Addr())
	if !isTrusted(nearest, trusted) {
		return Event{"ip": nearest.String(), "port": int(line.Port())}
	}
	hops := strings.Split(strings.Join(asked.Header.Values("X-Forwarded-For"), ","), ",")
	found := Event{"ip": nearest.String(), "port": int(line.Port())}
	for i := len(hops) - 1; i >= 0; i-- {
		text := strings.TrimSpace(hops[i])
		if text == "" {
			continue
		}
		hop, err := netip.ParseAddr(text)
		if err != nil {
			break
		}
		hop = plainAddress(hop)
		found = Event{"ip": hop.String()}
		if !isTrusted(hop, trusted) {
			break
		}
	}
	return found
}

// plainAddress has no zone, and is IPv4 where it is IPv4 in IPv6.
func plainAddress(address netip.Addr) netip.Addr {
	return address.Unmap().WithZone("")
}

func isTrusted(address netip.Addr, trusted []netip.Prefix) bool {
	for _, network := range trusted {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

func isPrintable(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, func(char rune) bool { return !unicode.IsPrint(char) }) < 0
}

func firstRunes(text string, most int) string {
	count := 0
	for at := range text {
		if count == most {
			return text[:at]
		}
		count++
	}
	return text
}

// requestID is the caller's, if it is one that may be kept in clear; else a new one.
func requestID(given string) string {
	for i := range len(given) {
		char := given[i] | 0x20
		isDigit := given[i] >= '0' && given[i] <= '9'
		if !isDigit && (char < 'a' || char > 'z') && given[i] != '-' && given[i] != '_' {
			return newID(time.Now().UnixMicro())
		}
	}
	if strings.Trim(given, "-_") == "" || len(given) > maxRequestIDBytes {
		return newID(time.Now().UnixMicro())
	}
	return given
}
