package auditsdk

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// A record in a segment is a head (the length and the CRC-32 of the rest, 4 bytes each, big endian), then
// the lengths of family (1 byte) and key (2 bytes), family, key and Avro body. That is the Python SDK's
// format as well.
const (
	recordHead    = 8
	recordLengths = 3
)

var recordBuffers = sync.Pool{New: func() any { return new([]byte) }}

// spooled is one record, and where it stands.
type spooled struct {
	family     string
	key, body  []byte // of one that was read back
	segment    *segment
	start, end int64
}

func recordSize(family string, key, body []byte) int {
	return recordHead + recordLengths + len(family) + len(key) + len(body)
}

func appendRecord(out []byte, family string, key, body []byte) []byte {
	start := len(out)
	rest := recordSize(family, key, body) - recordHead
	out = binary.BigEndian.AppendUint32(out, uint32(rest))
	out = append(out, 0, 0, 0, 0, byte(len(family)))
	out = binary.BigEndian.AppendUint16(out, uint16(len(key)))
	out = append(out, family...)
	out = append(out, key...)
	out = append(out, body...)
	sum := crc32.ChecksumIEEE(out[start+recordHead:])
	binary.BigEndian.PutUint32(out[start+4:], sum)
	return out
}

// readRecord is the record that content begins with, and its size; 0: there is none, or it is cut or
// damaged.
func readRecord(content []byte) (spooled, int) {
	if len(content) < recordHead {
		return spooled{}, 0
	}
	size := uint64(binary.BigEndian.Uint32(content))
	if size < recordLengths || size > uint64(len(content)-recordHead) {
		return spooled{}, 0
	}
	rest := content[recordHead : recordHead+size]
	if crc32.ChecksumIEEE(rest) != binary.BigEndian.Uint32(content[4:]) {
		return spooled{}, 0
	}
	keyAt := recordLengths + int(rest[0])
	bodyAt := keyAt + int(binary.BigEndian.Uint16(rest[1:]))
	if bodyAt > len(rest) {
		return spooled{}, 0
	}
	return spooled{
		family: string(rest[recordLengths:keyAt]), key: rest[keyAt:bodyAt], body: rest[bodyAt:],
	}, recordHead + int(size)
}

// wholeRecords is how many whole records content begins with, and their bytes.
func wholeRecords(content []byte) (records, whole int) {
	for {
		_, size := readRecord(content[whole:])
		if size == 0 {
			return records, whole
		}
		records, whole = records+1, whole+size
	}
}

// isCut is whether what follows a segment's last whole record is one that a crash cut.
func isCut(rest []byte) bool {
	return len(rest) < recordHead || uint64(len(rest)-recordHead) < uint64(binary.BigEndian.Uint32(rest))
}

// read is the records of a segment of this process from an offset on, about maxBytes of them and one at
// least, and the offset where they end. Records beyond end are not looked at.
func (one *segment) read(start, end, maxBytes int64) ([]spooled, int64, error) {
	file, err := os.Open(one.path)
	if err != nil {
		return nil, start, err
	}
	defer file.Close()
	// A record has at most the limit of an event, its key and a few bytes more.
	content := make([]byte, min(end-start, maxBytes+int64(limits.EventBytes)+1<<17))
	if _, err := file.ReadAt(content, start); err != nil && err != io.EOF {
		return nil, start, err
	}
	var found []spooled
	at := start
	for at-start < maxBytes {
		record, size := readRecord(content[at-start:])
		if size == 0 {
			break
		}
		record.segment, record.start, record.end = one, at, at+int64(size)
		at = record.end
		found = append(found, record)
	}
	return found, at, nil
}
