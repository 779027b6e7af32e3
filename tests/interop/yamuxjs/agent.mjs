// An agent in another language: a yamux library, a WebSocket library, and a loop that dials the local
// server for every stream and copies bytes both ways.
//
//     node agent.mjs ws://RELAY ROOM LOCAL_HOST LOCAL_PORT

import net from "node:net";
import { WebSocket } from "ws";
import { Client } from "yamux-js";

const [relay, room, host, port] = process.argv.slice(2);

const session = new Client({ logger: () => {} });
// The type says that only a Server is told of new streams; the session asks no such thing.
session.onStream = (stream) => {
  const local = net.connect(Number(port), host);
  stream.on("data", (chunk) => local.write(chunk));
  local.on("data", (chunk) => stream.write(chunk));
  // end() of a yamux-js stream says nothing to the peer; close() sends FIN.
  local.on("end", () => stream.close());
  local.on("error", () => stream.close());
};

const carrier = new WebSocket(`${relay}/agent?room=${room}`);
// yamux-js reads frames, not bytes: a message has to hold whole ones, and ours do.
carrier.on("message", (message) => session.write(message));
carrier.on("open", () => {
  session.on("data", (chunk) => carrier.send(chunk));
  console.log("connected");
});
carrier.on("close", () => process.exit(0));
