// A relay written by a third party: Node's `ws` for the agents, its own yamux code, one room.
//
//     node ws_relay.mjs PORT [HOW]
//
// HOW sets the choice of the subprotocol: "default" leaves it to `ws`, which selects the first one offered; "last"
// selects the last one; "none" selects none.

import http from "node:http";
import { WebSocketServer } from "ws";

const [port, how = "default"] = process.argv.slice(2);
const choices = { default: undefined, last: (offered) => [...offered].at(-1), none: () => false };
const agents = new WebSocketServer({ noServer: true, handleProtocols: choices[how] });
const streams = new Map();
let agent = null;
let nextId = 2;

function send(type, flags, id, length, body = Buffer.alloc(0)) {
  const head = Buffer.alloc(12);
  head.writeUInt8(type, 1);
  head.writeUInt16BE(flags, 2);
  head.writeUInt32BE(id, 4);
  head.writeUInt32BE(length, 8);
  agent?.send(Buffer.concat([head, body]));
}

agents.on("connection", (socket) => {
  let rest = Buffer.alloc(0);
  agent = socket;
  console.log(`agent with ${socket.protocol || "no subprotocol"}`);
  socket.on("message", (message, isBinary) => {
    if (!isBinary) console.log(`text: ${message}`);
    rest = Buffer.concat([rest, message]); // as libraries do: every message is taken for yamux
    while (rest.length >= 12) {
      const [type, flags, id, length] = [rest[1], rest.readUInt16BE(2), rest.readUInt32BE(4), rest.readUInt32BE(8)];
      if (rest[0] !== 0) return socket.close(1002, "not yamux");
      const end = 12 + (type === 0 ? length : 0);
      if (rest.length < end) return;
      const body = rest.subarray(12, end);
      rest = rest.subarray(end);
      const client = streams.get(id);
      if (type === 2 && flags & 1) send(2, 2, 0, length);
      if (type === 0 && client) {
        client.write(body);
        send(1, 0, id, body.length);
      }
      if (flags & 4) client?.end();
      if (flags & 8) client?.destroy();
    }
  });
  socket.on("close", (code) => {
    console.log(`agent gone: ${code}`);
    if (agent !== socket) return;
    agent = null;
    for (const client of streams.values()) client.destroy();
    streams.clear();
  });
});

const server = http.createServer((request, response) => response.writeHead(404).end());
server.on("upgrade", (request, socket, head) => {
  if (request.url.startsWith("/agent")) {
    agents.handleUpgrade(request, socket, head, (webSocket) => agents.emit("connection", webSocket, request));
    return;
  }
  if (!agent) return socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  const id = nextId;
  nextId += 2;
  streams.set(id, socket);
  const fields = [];
  for (let at = 0; at < request.rawHeaders.length; at += 2) fields.push(request.rawHeaders.slice(at, at + 2).join(": "));
  const text = Buffer.from(`GET / HTTP/1.1\r\n${fields.join("\r\n")}\r\n\r\n`, "latin1");
  send(1, 1, id, 0);
  send(0, 0, id, text.length, text);
  if (head.length) send(0, 0, id, head.length, head);
  socket.on("data", (bytes) => send(0, 0, id, bytes.length, bytes));
  socket.on("end", () => send(1, 4, id, 0));
  socket.on("error", () => send(1, 8, id, 0));
});
server.listen(Number(port), "127.0.0.1", () => console.log(`relay on ${server.address().port}`));
