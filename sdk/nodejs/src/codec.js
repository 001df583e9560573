// From an event as an object to its Avro body, judged on the way.
//
// A schema is compiled once into nested functions. Each writes its value and notes what is wrong; a
// body is returned only if nothing is. Maps are written in the order of their keys' UTF-8 bytes, so that
// the same event has the same bytes from every SDK. Source: Avro 1.12 specification, "Binary Encoding".
import { Bytes } from "./bytes.js";
import { families, limits, patterns } from "./contract.js";
import { InvalidEvent } from "./errors.js";
import { characters, inByteOrder } from "./text.js";

// C0 except tab, line feed and carriage return; DEL; C1 with U+0085.
const CONTROL = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/;
const UUID = /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/;
const NIL = "00000000-0000-0000-0000-000000000000";
const LAST_US = 9_214_646_400_000_000; // the stores' times end before the year 2262
const encoders = new Map();
const scratch = new Bytes(); // of one event after the other: nothing waits in between

/**
 * The Avro body of an event, without the wire format's header. Fields that the event lacks get their
 * schema's default. Throws `InvalidEvent` with everything that is wrong, in the schema's order.
 */
export function encode(family, event) {
  const problems = validate(family, event);
  if (problems.length) throw new InvalidEvent(family, problems);
  return scratch.taken();
}

/** Everything that is wrong with an event: `{path, rule, detail}`; nothing: it may be sent. */
export function validate(family, event) {
  const problems = [];
  scratch.length = 0;
  encoder(family)(event, scratch, problems);
  return problems;
}

function encoder(family) {
  let known = encoders.get(family);
  if (known === undefined) {
    const found = families.get(family);
    if (found === undefined) {
      throw new RangeError(
        `no event family is named '${family}'; there are ${[...families.keys()].join(", ")}`,
      );
    }
    known = compileEvent(found);
    encoders.set(family, known);
  }
  return known;
}

function compileEvent({ schema, rules }) {
  const record = compileRecord(schema, "", new Map());
  return (event, out, problems) => {
    record(event, out, problems);
    if (!isRecord(event)) return;
    for (const rule of rules) RULES[rule.rule](rule, event, problems);
    if (out.length > limits.event_bytes) {
      note(problems, "", "event_bytes", `more than ${limits.event_bytes} bytes as Avro`);
    }
  };
}

function compile(schema, path, named) {
  if (Array.isArray(schema)) return compileUnion(schema, path, named);
  if (typeof schema === "string") {
    const known = named.get(schema.slice(schema.lastIndexOf(".") + 1));
    return known === undefined ? compilePlain(schema, path) : compile(known, path, named);
  }
  switch (schema.type) {
    case "record":
      named.set(schema.name, schema);
      return compileRecord(schema, path, named);
    case "enum":
      named.set(schema.name, schema);
      return compileEnum(schema.symbols, path);
    case "array":
      return compileArray(schema, path, named);
    case "map":
      return compileMap(path);
    default:
      return compilePlain(schema.type, path, schema.logicalType);
  }
}

function compilePlain(type, path, logical) {
  if (type === "string") return logical === "uuid" ? compileUuid(path) : compileText(path);
  if (type === "boolean") return compileBoolean(path);
  if (type === "int" || type === "long") return compileWhole(type === "int" ? 32 : 64, path, logical);
  throw new TypeError(`${path}: no event field has Avro type ${type}`);
}

function compileText(path) {
  const pattern = patterns.get(path);
  const limit = limits.text_chars;
  return (value, out, problems) => {
    if (typeof value !== "string") return note(problems, path, "type", "must be text");
    if (value === "") {
      note(problems, path, "empty", "is empty; leave it out instead");
    } else if (value.length > limit && characters(value) > limit) {
      note(problems, path, "text_chars", `longer than ${limit} characters`);
    } else if (pattern !== undefined && !pattern.match.test(value)) {
      note(problems, path, "pattern", `must be ${pattern.doc}`);
    }
    putText(value, path, out, problems);
  };
}

function compileUnion(branches, path, named) {
  const inner = compile(branches.find((branch) => branch !== "null"), path, named);
  const nullAt = 2 * branches.indexOf("null");
  const valueAt = 2 * branches.findIndex((branch) => branch !== "null");
  return (value, out, problems) => {
    if (value === null) {
      out.byte(nullAt);
    } else {
      out.byte(valueAt);
      inner(value, out, problems);
    }
  };
}

function compileArray(schema, path, named) {
  const inner = compile(schema.items, `${path}.*`, named);
  const rule = path === "changes" ? "changes" : "items";
  const limit = limits[rule];
  return (value, out, problems) => {
    if (!Array.isArray(value)) return note(problems, path, "type", "must be a list");
    if (value.length > limit) return note(problems, path, rule, `more than ${limit} elements`);
    if (value.length) {
      out.long(value.length);
      for (const part of value) inner(part, out, problems);
    }
    out.byte(0);
  };
}

function compileMap(path) {
  return (value, out, problems) => {
    if (!isRecord(value) || !Object.values(value).every((text) => typeof text === "string")) {
      return note(problems, path, "type", "must be a map of texts");
    }
    const names = Object.keys(value);
    if (names.length > limits.items) {
      return note(problems, path, "items", `more than ${limits.items} elements`);
    }
    if (names.length) {
      out.long(names.length);
      for (const [name, octets] of inByteOrder(names)) {
        if (name === "") note(problems, path, "empty", "a key is empty");
        if (octets.length > limits.label_key_bytes) {
          note(problems, path, "label_key_bytes", `a key is longer than ${limits.label_key_bytes} bytes`);
        }
        if (Buffer.byteLength(value[name]) > limits.label_value_bytes) {
          note(
            problems,
            path,
            "label_value_bytes",
            `a value is longer than ${limits.label_value_bytes} bytes`,
          );
        }
        putText(name, path, out, problems);
        putText(value[name], path, out, problems);
      }
    }
    out.byte(0);
  };
}

function compileRecord(schema, path, named) {
  const fields = schema.fields.map((field) => {
    const where = path ? `${path}.${field.name}` : field.name;
    const write = compile(field.type, where, named);
    let otherwise;
    if ("default" in field) {
      const out = new Bytes();
      write(field.default, out, []);
      otherwise = out.taken();
    }
    return { name: field.name, write, otherwise, where };
  });
  // Most fields of an event are not there, and of most of those the default is one byte: side by side.
  const octets = Int16Array.from(fields, ({ otherwise }) => (otherwise?.length === 1 ? otherwise[0] : -1));
  const places = new Map(fields.map((field, place) => [field.name, place]));
  const parts = new Array(fields.length); // by place; few of an event's fields are there
  return (value, out, problems) => {
    if (!isRecord(value)) return note(problems, path, "type", "must be a record");
    let unknown; // most events have none: no list and no sorting for them
    parts.fill(undefined);
    for (const name of Object.keys(value)) {
      const place = places.get(name);
      if (place !== undefined) parts[place] = value[name];
      else if (value[name] !== undefined) (unknown ??= []).push(name);
    }
    for (let place = 0; place < fields.length; place += 1) {
      const part = parts[place];
      if (part === undefined && octets[place] >= 0) {
        out.byte(octets[place]);
        continue;
      }
      const { write, otherwise, where } = fields[place];
      if (part === undefined || (part === null && otherwise === undefined)) {
        if (otherwise === undefined) note(problems, where, "required", "is missing");
        else out.bytes(otherwise);
      } else {
        write(part, out, problems);
      }
    }
    if (unknown === undefined) return;
    for (const [name] of inByteOrder(unknown)) {
      note(problems, path ? `${path}.${name}` : name, "unknown_field", "is no field of this family");
    }
  };
}

function compileEnum(symbols, path) {
  const codes = new Map(symbols.map((symbol, number) => [symbol, number]));
  return (value, out, problems) => {
    const code = codes.get(value);
    if (code === undefined) note(problems, path, "symbol", `must be one of ${symbols.join(", ")}`);
    else out.long(code);
  };
}

function compileBoolean(path) {
  return (value, out, problems) => {
    if (typeof value !== "boolean") note(problems, path, "type", "must be true or false");
    else out.byte(value ? 1 : 0);
  };
}

/** Whole numbers are numbers within ±(2^53 - 1), or of type bigint. */
function compileWhole(bits, path, logical) {
  const time = logical === "timestamp-micros";
  const least = time ? 0n : -(1n << BigInt(bits - 1));
  const most = time ? BigInt(LAST_US) : (1n << BigInt(bits - 1)) - 1n;
  const wanted = time
    ? "must be microseconds since 1970, before the year 2262"
    : `must fit into ${bits} bits`;
  const leastNumber = Math.max(Number(least), Number.MIN_SAFE_INTEGER);
  const mostNumber = Math.min(Number(most), Number.MAX_SAFE_INTEGER);
  return (value, out, problems) => {
    if (typeof value === "bigint") {
      if (value < least || value > most) note(problems, path, "range", wanted);
      else out.bigLong(value);
    } else if (typeof value !== "number" || !Number.isInteger(value)) {
      note(problems, path, "type", "must be a whole number");
    } else if (value < leastNumber || value > mostNumber) {
      note(problems, path, "range", wanted);
    } else {
      out.long(value);
    }
  };
}

function compileUuid(path) {
  return (value, out, problems) => {
    if (typeof value !== "string") note(problems, path, "type", "must be text");
    else if (!UUID.test(value) || value === NIL) {
      note(problems, path, "uuid", "must be a UUID, and not the nil one");
    } else out.shortAscii(value);
  };
}

const RULES = {
  required_if(rule, event, problems) {
    if (event[rule.when] === rule.is && isNothing(event[rule.path])) {
      note(problems, rule.path, "required_if", `is required when ${rule.when} is ${rule.is}`);
    }
  },
  at_least_one(rule, event, problems) {
    if (rule.paths.every((path) => isNothing(event[path]))) {
      const detail = `at least one of ${rule.paths.join(" and ")} is required`;
      note(problems, rule.paths[0], "at_least_one", detail);
    }
  },
};

function isNothing(value) {
  return !value || value.length === 0;
}

function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function note(problems, path, rule, detail) {
  problems.push({ path, rule, detail });
}

function putText(value, path, out, problems) {
  if (out.shortAscii(value)) return;
  if (CONTROL.test(value)) note(problems, path, "control_character", "has a control character");
  else if (!value.isWellFormed()) note(problems, path, "unicode", "has half of a surrogate pair");
  else out.text(value);
}
