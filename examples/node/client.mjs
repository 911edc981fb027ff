// A small client: several nodes, beats, deadlines, and asking elsewhere when a node refuses, fails or falls silent.
// It has no hedging, no budgets, no slow start, and does not keep to the newest release that it was told of while nodes
// change over one after another; docs/wire.md says what a client for production does beyond this.

import { Dealer } from "zeromq";
import { pack, unpack } from "./wire.mjs";

const BEAT_MS = 50;
const MISSES = 3;
const MOST_FAILURES = 3;
/** What another node may answer. */
const ELSEWHERE = new Set(["overloaded", "unknown_release", "no_node"]);
/** What no other node would answer otherwise. Codes that are neither are those of a node that failed. */
const FINAL = new Set(["bad_transaction", "too_large", "protocol", "refused", "code_failed"]);
const LATER = new Set(["deadline_exceeded", "node_failed", "unavailable"]);

/** An error as docs/wire.md names it: `code`, and where there is one `field`, `rule` and `retryAfter` (seconds). */
export class ScorewireError extends Error {
  constructor({ code, detail, field = "", rule = "", retry_after = 0 }) {
    super(detail);
    Object.assign(this, { code, field, rule, retryAfter: retry_after });
  }
}

class Node {
  constructor(address, client) {
    this.client = client;
    this.address = address;
    this.ready = false;
    this.unanswered = 0;
    this.busyUntil = 0;
    this.held = new Map();
    this.queue = Promise.resolve();
    // A request must not wait in the queue of a connection that is dead: without immediate, sending waits instead.
    this.socket = new Dealer({ linger: 0, immediate: true, reconnectInterval: 20, reconnectMaxInterval: 500, sendTimeout: 0 });
    this.socket.events.on("disconnect", () => this.lose());
    this.socket.connect(address);
    this.listen();
  }

  /** zeromq.js allows one send at a time. */
  send(frame) {
    this.queue = this.queue.then(() => this.socket.send(frame)).catch(() => {});
  }

  beat() {
    if (this.unanswered >= MISSES) this.lose();
    this.unanswered += 1;
    this.send(pack("ping", 0, 0n, {}));
  }

  /** Ask nothing more here until it speaks, and others what it holds. */
  lose() {
    this.ready = false;
    const held = [...this.held.values()];
    this.held.clear();
    for (const request of held) this.client.failed(request, "the node fell silent");
  }

  async listen() {
    try {
      for await (const [frame] of this.socket) this.take(frame);
    } catch (error) {
      if (!this.socket.closed) throw error;
    }
  }

  take(frame) {
    let message;
    try {
      message = unpack(frame);
    } catch {
      return; // junk harms nobody
    }
    this.unanswered = 0;
    if (message.kind === "pong") {
      this.ready = message.body.state === "ready";
      if (this.ready) this.client.askWaiting();
    } else if (message.kind === "goodbye") {
      this.ready = false;
    } else {
      const request = this.held.get(message.id);
      if (request === undefined) return; // answered elsewhere meanwhile, or too late
      this.held.delete(message.id);
      if (message.kind === "answer") this.client.finish(request, null, message.body);
      else this.client.refused(request, this, message.body);
    }
  }
}

export class Client {
  /** @param addresses the preprocessors, such as ["tcp://127.0.0.1:7301"] */
  constructor(addresses) {
    this.number = 0n;
    this.waiting = new Set();
    this.nodes = addresses.map((address) => new Node(address, this));
    this.timer = setInterval(() => this.nodes.forEach((node) => node.beat()), BEAT_MS);
    this.nodes.forEach((node) => node.beat());
  }

  /** Scores one transaction; rejects with a ScorewireError. `deadline` is in seconds. */
  score(transaction, { deadline = 1, release } = {}) {
    return new Promise((resolve, reject) => {
      const body = release === undefined ? { transaction } : { transaction, release };
      const request = { body, until: performance.now() + deadline * 1e3, tried: new Set(), failures: 0, resolve, reject };
      const detail = "no answer in time";
      request.timer = setTimeout(() => this.finish(request, { code: "deadline_exceeded", detail }), deadline * 1e3);
      this.ask(request);
    });
  }

  close() {
    clearInterval(this.timer);
    for (const node of this.nodes) {
      node.socket.close();
      for (const request of node.held.values()) this.finish(request, { code: "closed", detail: "the client was closed" });
    }
    for (const request of this.waiting) this.finish(request, { code: "closed", detail: "the client was closed" });
  }

  /** Ask the node that holds least; of those that were not tried yet, if there is one. */
  ask(request) {
    const now = performance.now();
    const ready = this.nodes.filter((node) => node.ready && node.busyUntil <= now);
    const fresh = ready.filter((node) => !request.tried.has(node));
    const node = (fresh.length ? fresh : ready).sort((a, b) => a.held.size - b.held.size)[0];
    if (node === undefined) {
      this.waiting.add(request);
      return;
    }
    this.number += 1n;
    request.tried.add(node);
    node.held.set(this.number, request);
    const budget = Math.max(1, Math.floor((request.until - now) * 1e3));
    node.send(pack("score", budget, this.number, request.body));
  }

  askWaiting() {
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const request of waiting) this.ask(request);
  }

  refused(request, node, error) {
    if (error.code === "overloaded") node.busyUntil = performance.now() + (error.retry_after ?? 0.02) * 1e3;
    if (FINAL.has(error.code) || LATER.has(error.code)) this.finish(request, error);
    else if (!ELSEWHERE.has(error.code)) this.failed(request, error.detail);
    else if (this.nodes.some((other) => other.ready && !request.tried.has(other))) this.ask(request);
    else this.finish(request, error);
  }

  failed(request, detail) {
    request.failures += 1;
    if (request.failures < MOST_FAILURES) this.ask(request);
    else this.finish(request, { code: "node_failed", detail });
  }

  finish(request, error, answer) {
    clearTimeout(request.timer);
    this.waiting.delete(request);
    for (const node of this.nodes) {
      for (const [number, held] of node.held) if (held === request) node.held.delete(number);
    }
    if (error) request.reject(new ScorewireError(error));
    else request.resolve(answer);
  }
}
