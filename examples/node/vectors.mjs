// node vectors.mjs FILE: checks this client against the golden messages: packs what callers send, and reads all.
// Exit code 1 if a byte differs.

import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { pack, unpack } from "./wire.mjs";

/** {"$hex": ...} stands for bytes. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  if ("$hex" in value) return new Uint8Array(Buffer.from(value.$hex, "hex"));
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]));
}

const golden = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wrong = [];
let packed = 0;
for (const { name, kind, number, id, body, outputs, hex } of golden.messages) {
  const expected = { kind, number, id: BigInt(id), body: plain(body) };
  if (["ping", "score", "vector"].includes(kind)) {
    packed += 1;
    const made = pack(kind, number, BigInt(id), expected.body).toString("hex");
    if (made !== hex) wrong.push(`${name}: packed ${made}, expected ${hex}`);
  }
  if (outputs) expected.body.scores = new Map(outputs.map((output) => [output, body.scores[output]]));
  const read = unpack(Buffer.from(hex, "hex"));
  if (!isDeepStrictEqual(read, expected)) wrong.push(`${name}: read as another message`);
  if (outputs && !isDeepStrictEqual([...read.body.scores.keys()], outputs)) wrong.push(`${name}: another order`);
}
for (const { rule, id, meaning, hex } of golden.refused) {
  try {
    unpack(Buffer.from(hex, "hex"));
    wrong.push(`${meaning}: was read`);
  } catch (error) {
    if (error.rule !== rule || error.id !== BigInt(id)) wrong.push(`${meaning}: ${error.rule} ${error.id}`);
  }
}
wrong.forEach((line) => console.error(line));
console.log(`${golden.messages.length} read, ${packed} packed, ${golden.refused.length} refused, ${wrong.length} wrong`);
process.exitCode = wrong.length ? 1 : 0;
