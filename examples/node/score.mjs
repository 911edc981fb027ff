// node score.mjs tcp://127.0.0.1:7301 [further addresses] < transactions.jsonl
// Prints one JSON line for each transaction, in their order: the answer, or {"error": code, "field": ..., "rule": ...}.

import { createInterface } from "node:readline";
import { Client } from "./client.mjs";

const client = new Client(process.argv.slice(2));
const results = [];
for await (const line of createInterface({ input: process.stdin })) {
  if (!line.trim()) continue;
  results.push(
    client.score(JSON.parse(line), { deadline: 10 }).catch(({ code, message, field, rule }) => ({
      error: code, detail: message, field, rule,
    })),
  );
}
for (const result of results) {
  const { scores, ...rest } = await result;
  // As a list of pairs, since a JSON object does not keep the order.
  console.log(JSON.stringify(scores ? { ...rest, scores: [...scores], score: [...scores.values()].at(-1) } : rest));
}
client.close();
