package auditsdk

import "encoding/binary"

// Frame appends Confluent's wire format to out: magic byte 0, the schema id in four bytes, the body.
func Frame(out []byte, schemaID uint32, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(out, 0), schemaID), body...)
}

// RawKey is the Kafka key of an event: "tenant/actor id" of the actor's home tenant; "-" for an
// anonymous one.
func RawKey(event Event) []byte {
	return appendRawKey(nil, event["actor"])
}

func appendRawKey(out []byte, actor any) []byte {
	var tenant, id string
	switch actor := actor.(type) {
	case *Actor:
		tenant, id = actor.Tenant, actor.ID
	case map[string]any:
		tenant, _ = actor["tenant"].(string)
		id, _ = actor["id"].(string)
	}
	if id == "" { // no valid id is empty
		return append(out, '-')
	}
	return append(append(append(out, tenant...), '/'), id...)
}

// Murmur2 is Kafka's default partitioner's hash of a key, made positive. Source: Apache Kafka,
// Utils.murmur2.
func Murmur2(key []byte) int32 {
	const mix = 0x5bd1e995
	digest := uint32(0x9747b28c) ^ uint32(len(key))
	for len(key) >= 4 {
		part := binary.LittleEndian.Uint32(key) * mix
		part ^= part >> 24
		digest = digest*mix ^ part*mix
		key = key[4:]
	}
	for at := len(key) - 1; at >= 0; at-- {
		digest ^= uint32(key[at]) << (8 * at)
	}
	if len(key) > 0 {
		digest *= mix
	}
	digest = (digest ^ digest>>13) * mix
	return int32((digest ^ digest>>15) & 0x7fffffff)
}
