// Texts as the contract counts and orders them.

/** Characters as Unicode counts them: a surrogate pair is one. */
export function characters(value) {
  let count = 0;
  for (const _ of value) count += 1;
  return count;
}

/** [name, its UTF-8 bytes], in the order of those. */
export function inByteOrder(names) {
  return names.map((name) => [name, Buffer.from(name)]).sort((a, b) => Buffer.compare(a[1], b[1]));
}
