// Which partition a key goes to: Kafka's default partitioner. Source: Apache Kafka, Utils.murmur2.

/** A hash of the bytes, made positive. */
export function murmur2(key) {
  const mix = 0x5bd1e995;
  let digest = 0x9747b28c ^ key.length;
  const whole = key.length & ~3;
  for (let at = 0; at < whole; at += 4) {
    let part = Math.imul(key.readInt32LE(at), mix);
    part ^= part >>> 24;
    digest = Math.imul(digest, mix) ^ Math.imul(part, mix);
  }
  const rest = key.length - whole;
  if (rest > 2) digest ^= key[whole + 2] << 16;
  if (rest > 1) digest ^= key[whole + 1] << 8;
  if (rest > 0) digest = Math.imul(digest ^ key[whole], mix);
  digest = Math.imul(digest ^ (digest >>> 13), mix);
  return (digest ^ (digest >>> 15)) & 0x7fffffff;
}

/** The Kafka key of an event: `tenant/actor id` of the actor's home tenant; `-` for an anonymous one. */
export function rawKey(event) {
  const { tenant, id } = event.actor;
  return Buffer.from(id === undefined || id === null ? "-" : `${tenant}/${id}`);
}
