// The wire format of Scorewire (docs/wire.md): a header of 16 bytes, and a msgpack map.

import { Decoder, Encoder } from "@msgpack/msgpack";

export const KINDS = { score: 1, vector: 2, answer: 3, error: 4, ping: 5, pong: 6, goodbye: 7 };
const NAMES = Object.fromEntries(Object.entries(KINDS).map(([name, kind]) => [kind, name]));
const HEADER = 16;
const VERSION = 1;

const encoder = new Encoder();
// Objects put names such as "0" before all others, but the order of scores has a meaning: names are marked until
// they are in a Map.
const MARK = "\0";
const decoder = new Decoder({ maxExtLength: 0, mapKeyConverter: (name) => MARK + name });

function unmarked(value) {
  if (Array.isArray(value)) return value.map(unmarked);
  if (value === null || typeof value !== "object" || value instanceof Uint8Array) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name.slice(1), unmarked(one)]));
}

/** A frame that cannot be read; `rule` says why, `id` is its number where the header could be read. */
export class UnreadableError extends Error {
  constructor(message, rule, id = 0n) {
    super(message);
    this.rule = rule;
    this.id = id;
  }
}

/** Packs one message. `number` is a request's budget in microseconds, a reply's activation; `id` a BigInt of 64 bits. */
export function pack(kind, number, id, body) {
  const header = Buffer.alloc(HEADER);
  header.write("SW", 0, "latin1");
  header.writeUInt8(VERSION, 2);
  header.writeUInt8(KINDS[kind], 3);
  header.writeUInt32LE(Math.min(number, 0xffffffff), 4);
  header.writeBigUInt64LE(id, 8);
  return Buffer.concat([header, encoder.encode(body)]);
}

/** Unpacks one message, or throws an UnreadableError. `scores` are a Map in their order: the last one is the score. */
export function unpack(frame) {
  const raw = Buffer.from(frame);
  if (raw.length < HEADER) throw new UnreadableError("too short for a header", "header");
  if (raw.toString("latin1", 0, 2) !== "SW") throw new UnreadableError("another magic", "magic");
  const id = raw.readBigUInt64LE(8);
  if (raw.readUInt8(2) !== VERSION) throw new UnreadableError("another version", "version", id);
  const kind = NAMES[raw.readUInt8(3)];
  if (kind === undefined) throw new UnreadableError("an unknown kind", "kind", id);
  let body;
  try {
    body = decoder.decode(new Uint8Array(raw.buffer, raw.byteOffset + HEADER, raw.length - HEADER));
  } catch (error) {
    throw new UnreadableError(`no msgpack: ${error.message}`, "msgpack", id);
  }
  if (body === null || typeof body !== "object" || Array.isArray(body)) {
    throw new UnreadableError("the body is no map", "map", id);
  }
  const scores = body[`${MARK}scores`];
  body = unmarked(body);
  if (scores && !Array.isArray(scores)) body.scores = new Map(Object.entries(scores).map(([name, one]) => [name.slice(1), one]));
  return { kind, number: raw.readUInt32LE(4), id, body };
}
