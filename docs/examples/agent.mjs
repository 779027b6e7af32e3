// An agent for a Seance relay in one file: its own yamux, and `ws` as the only dependency. Node 20 or newer.
//
//     npm install ws
//     node agent.mjs wss://relay.example my-room localhost:1234
//
// The token is SEANCE_TOKEN, or the content of SEANCE_TOKEN_FILE, which may change.
// The agent speaks link control but cannot resume: a lost carrier disconnects its clients. docs/protocol.md
// describes the wire; the comments below name its sections.

import { readFileSync, watchFile } from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";

const [relay, room, local = "localhost:1234"] = process.argv.slice(2);
if (!relay || !room) {
  console.error("usage: node agent.mjs ws://RELAY ROOM [HOST:PORT]");
  process.exit(2);
}
const [, host, port] = /^(.*):(\d+)$/.exec(local);

const [DATA, WINDOW, PING, GO_AWAY] = [0, 1, 2, 3]; // types of frames
const [SYN, ACK, FIN, RST] = [1, 2, 4, 8]; // their flags
const WINDOW_BYTES = 256 * 1024; // of each stream, in each direction
const FRAME_BYTES = 16 * 1024; // maximum data frame that we send
const MESSAGE_BYTES = 64 * 1024; // maximum message that we send
const QUEUE_BYTES = 256 * 1024; // queued for the carrier before local servers are paused
const [DIAL_MS, STOP_MS] = [5_000, 2_000]; // for the local server to accept a connection; for stopping
const SILENCE_MS = 5_000; // after three times this without a byte the carrier is dead ("Keepalive")
const log = (text) => console.log(`${new Date().toISOString()} ${text}`);

/** The rule that the relay broke, as a code of "Errors that end the session". */
class BrokenRule extends Error {}

/** One client: a yamux stream joined with a connection to the local server ("Content of a stream"). */
class Stream {
  sendWindow = WINDOW_BYTES; // bytes that we may send
  receiveWindow = WINDOW_BYTES; // bytes that the relay may send
  taken = 0; // bytes that the local server accepted, without credit to the relay yet
  queue = []; // bytes of the local server that wait for the window or the carrier
  hasEnded = false; // the local server has ended its side
  hasFailed = false; // the local server has reset the connection, or never accepted it
  isFinSent = false;
  isFinReceived = false;

  constructor(link, id) {
    this.link = link;
    this.id = id;
    link.send(WINDOW, ACK, id, 0);
    // Without allowHalfOpen, Node closes both directions at the first FIN.
    this.local = net.connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true, timeout: DIAL_MS });
    this.local.once("connect", () => this.local.setTimeout(0));
    this.local.once("timeout", () => this.local.destroy(new Error("the local server does not answer")));
    this.local.on("data", (bytes) => {
      this.queue.push(bytes);
      this.local.pause();
      this.pump();
    });
    this.local.on("end", () => {
      this.hasEnded = true;
      this.pump();
    });
    this.local.on("error", (error) => {
      if (error.code === "ECONNREFUSED") log(`the local server at ${local} does not accept connections`);
      this.hasFailed = true;
      this.pump();
    });
  }

  /** Sends what may leave. FIN and RST come after everything that the local server wrote before its end. */
  pump() {
    if (this.link.streams.get(this.id) !== this) return;
    while (this.queue.length && this.sendWindow) {
      if (this.link.isFull) return void this.link.waiting.add(this);
      const size = Math.min(this.queue[0].length, FRAME_BYTES, this.sendWindow);
      this.link.send(DATA, 0, this.id, size, this.queue[0].subarray(0, size));
      this.sendWindow -= size;
      if (size === this.queue[0].length) this.queue.shift();
      else this.queue[0] = this.queue[0].subarray(size);
    }
    if (this.queue.length) return;
    if (this.hasFailed) {
      this.link.send(WINDOW, RST, this.id, 0);
      this.cut();
    } else if (!this.hasEnded) {
      this.local.resume();
    } else if (!this.isFinSent) {
      this.isFinSent = true;
      this.link.send(WINDOW, FIN, this.id, 0);
      if (this.isFinReceived) this.link.forget(this);
    }
  }

  /** Takes data of the client. The relay gets credit once the local server has taken the bytes. */
  take(bytes) {
    this.receiveWindow -= bytes.length;
    if (this.receiveWindow < 0) throw new BrokenRule("window_exceeded");
    this.local.write(bytes, () => {
      this.taken += bytes.length;
      if (this.taken < WINDOW_BYTES / 2 || this.isFinReceived) return;
      if (this.link.streams.get(this.id) === this) this.link.send(WINDOW, 0, this.id, this.taken);
      this.receiveWindow += this.taken;
      this.taken = 0;
    });
  }

  /** The client has ended: FIN, after what is queued. The way back stays open. */
  endLocal() {
    this.isFinReceived = true;
    this.local.end();
    if (this.isFinSent) this.link.forget(this);
  }

  cut() {
    this.link.forget(this);
    this.local.resetAndDestroy();
  }
}

/** One carrier and the yamux session over it. The relay opens the streams. */
class Link {
  streams = new Map();
  waiting = new Set(); // streams that wait for space in the carrier
  frames = []; // frames of this turn of the event loop
  frameBytes = 0;
  rest = Buffer.alloc(0); // the beginning of a frame that is not complete
  isLeaving = false;
  silentTurns = 0;

  constructor(socket) {
    this.socket = socket;
    this.over = new Promise((resolve) => (this.end = resolve)); // with a sentence
    socket.on("message", (message, isBinary) => {
      this.silentTurns = 0;
      try {
        if (isBinary) this.receive(message);
        else this.control(message);
      } catch (error) {
        if (!(error instanceof BrokenRule)) throw error;
        this.close(4400, error.message, 1);
      }
    });
    for (const event of ["ping", "pong"]) socket.on(event, () => (this.silentTurns = 0)); // ws answers pings
    const timer = setInterval(() => (++this.silentTurns > 3 ? socket.terminate() : socket.ping()), SILENCE_MS);
    socket.on("close", (code, reason) => {
      clearInterval(timer);
      for (const stream of [...this.streams.values()]) stream.cut();
      this.end(`the carrier was closed with ${code} ${reason}`.trim());
    });
  }

  get isFull() {
    return this.socket.bufferedAmount + this.frameBytes > QUEUE_BYTES;
  }

  send(type, flags, id, length, body = Buffer.alloc(0)) {
    const head = Buffer.alloc(12);
    head.writeUInt8(type, 1);
    head.writeUInt16BE(flags, 2);
    head.writeUInt32BE(id, 4);
    head.writeUInt32BE(length, 8);
    if (!this.frames.length) setImmediate(() => this.flush());
    this.frames.push(Buffer.concat([head, body]));
    this.frameBytes += 12 + body.length;
  }

  /** Sends the frames of this turn together, whole frames in each message. */
  flush() {
    const frames = this.frames;
    [this.frames, this.frameBytes] = [[], 0];
    if (this.socket.readyState !== WebSocket.OPEN) return;
    while (frames.length) {
      let [count, bytes] = [0, 0];
      while (count < frames.length && bytes + frames[count].length <= MESSAGE_BYTES) bytes += frames[count++].length;
      this.socket.send(Buffer.concat(frames.splice(0, count)), () => this.drained());
    }
  }

  drained() {
    if (this.isFull) return;
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const stream of waiting) stream.pump();
  }

  /** Takes a message. Its borders mean nothing: a frame may span several. */
  receive(message) {
    let bytes = this.rest.length ? Buffer.concat([this.rest, message]) : message;
    while (bytes.length >= 12 && this.socket.readyState === WebSocket.OPEN) {
      const [version, type, flags] = [bytes[0], bytes[1], bytes.readUInt16BE(2)];
      const [id, length] = [bytes.readUInt32BE(4), bytes.readUInt32BE(8)];
      if (version || type > GO_AWAY) throw new BrokenRule(version ? "bad_version" : "bad_type");
      if (type === DATA && length > WINDOW_BYTES) throw new BrokenRule("window_exceeded");
      const end = 12 + (type === DATA ? length : 0);
      if (bytes.length < end) break;
      this.take(type, flags, id, length, bytes.subarray(12, end));
      bytes = bytes.subarray(end);
    }
    this.rest = bytes;
  }

  take(type, flags, id, length, body) {
    if (type === PING) return void (flags & SYN && this.send(PING, ACK, 0, length));
    if (type === GO_AWAY) return void (length && this.close(4410, `your GoAway ${length} has ended the session`));
    if (flags & SYN && this.isLeaving) this.send(WINDOW, RST, id, 0);
    else if (flags & SYN) this.streams.set(id, new Stream(this, id));
    const stream = this.streams.get(id);
    if (!stream) return; // the stream has ended; frames in flight for it are ignored
    if (flags & RST) return stream.cut();
    if (type === DATA && length) stream.take(body);
    if (type === WINDOW) stream.sendWindow += length;
    if (flags & FIN) stream.endLocal();
    stream.pump();
  }

  /** Takes a message of link control. Unknown words are ignored. */
  control(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.close(1002, "a text message must be JSON");
    }
    if (message?.t === "drain") void move(this, message);
  }

  forget(stream) {
    this.streams.delete(stream.id);
    this.waiting.delete(stream);
    if (this.isLeaving && !this.streams.size) this.close(1000, "the agent has moved");
  }

  goAway(code = 0) {
    this.isLeaving = true;
    this.send(GO_AWAY, 0, 0, code);
    this.flush();
  }

  close(code, reason, goAwayCode) {
    if (goAwayCode) this.goAway(goAwayCode);
    this.socket.close(code, reason);
    setTimeout(() => this.socket.terminate(), STOP_MS).unref();
  }
}

let current = null; // the link that takes new clients
let isStopping = false;

const tokenFile = process.env.SEANCE_TOKEN_FILE;
const readToken = () => (tokenFile ? readFileSync(tokenFile, "utf8") : (process.env.SEANCE_TOKEN ?? "")).trim();

/** Opens a carrier. Rejects with a sentence, and with `retryAfter` in seconds where the relay has named a time. */
function dial() {
  const token = readToken();
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers, perMessageDeflate: false, handshakeTimeout: 20_000 };
  log(`connecting to ${relay}`);
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${relay}/agent?room=${encodeURIComponent(room)}`, ["seance.link.v1"], options);
    socket.on("error", reject); // after the first event of these three it has no effect
    socket.once("open", () => resolve(new Link(socket)));
    socket.once("unexpected-response", async (request, response) => {
      let text = ""; // one sentence for a person
      setTimeout(() => request.destroy(), DIAL_MS).unref();
      try {
        for await (const bytes of response) if ((text += bytes).length > 1024) break;
      } catch {} // the connection was cut: use the part that arrived
      const error = new Error(`the relay answered ${response.statusCode}: ${text.trim().slice(0, 1024)}`);
      error.retryAfter = Math.min(Number(response.headers["retry-after"]) || 0, 60);
      reject(error);
      request.destroy();
    });
  });
}

/** The relay stops: connects to its successor, then serves the last clients of the old link ("Stopping"). */
async function move(old, { in: wait = 0, try: seconds = 5 }) {
  await sleep(wait * 1000);
  const deadline = Date.now() + seconds * 1000;
  while (Date.now() < deadline && !isStopping && current === old) {
    try {
      current = await dial();
      old.goAway();
      log("moved to another relay");
      old.end("the relay stops");
      if (!old.streams.size) old.close(1000, "the agent has moved");
    } catch {
      await sleep(100 + Math.random() * 400);
    }
  }
}

async function run() {
  for (let bound = 500; !isStopping; ) {
    let [began, retryAfter, why] = [Date.now(), 0, ""];
    try {
      const link = (current ??= await dial());
      log(`connected to ${relay} for room ${room}`);
      began = Date.now();
      why = await link.over;
      if (current !== link) continue;
      current = null;
    } catch (error) {
      // A 409 too leads to another attempt: the agent that has the room may leave.
      [why, retryAfter] = [error.message, error.retryAfter ?? 0];
    }
    if (Date.now() - began > 30_000) bound = 500;
    const pause = Math.max(Math.random() * bound, retryAfter * 1000 * (1 + Math.random() / 4));
    bound = Math.min(bound * 2, 10_000);
    log(`${why}; next attempt in ${(pause / 1000).toFixed(1)} s`);
    await sleep(pause);
  }
}

/** GoAway, so that the relay opens nothing more; then what is queued; then the close frame. */
async function stop() {
  if (isStopping) process.exit(1);
  isStopping = true;
  const [link, deadline] = [current, Date.now() + STOP_MS];
  if (link) {
    link.goAway();
    const isQueued = () => link.isFull || [...link.streams.values()].some((stream) => stream.queue.length);
    do await sleep(50);
    while ((isQueued() || link.socket.bufferedAmount) && Date.now() < deadline);
    link.close(1001, "the agent is stopping");
    await Promise.race([link.over, sleep(STOP_MS / 2)]);
  }
  log("stopped");
  process.exit(0);
}

/** A link ends with its token, unless the relay gets a new one in time ("Link control"). */
function passTokenOn() {
  try {
    current?.socket.send(JSON.stringify({ t: "token", token: readToken() }));
  } catch (error) {
    log(`the token cannot be passed on: ${error.message}`); // the next attempt reads the file again
  }
}

if (tokenFile) watchFile(tokenFile, { interval: 2_000 }, passTokenOn);
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
await run();
