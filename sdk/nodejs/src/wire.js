// Confluent's wire format: magic byte 0, the schema id in four bytes, the Avro body.

export function frame(schemaId, body) {
  const header = Buffer.alloc(5);
  header.writeInt32BE(schemaId, 1);
  return Buffer.concat([header, body]);
}
