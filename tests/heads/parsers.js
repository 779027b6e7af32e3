// What Node's HTTP server, and so the `ws` package, makes of each head: JSON lists of base64 in and out.
const http = require("http");
const { Duplex } = require("stream");

async function seen(raw) {
  const server = http.createServer();
  const requests = [];
  const note = (request, head) =>
    requests.push({ method: request.method, url: request.url, headers: request.rawHeaders, rest: head.toString("latin1") });
  server.on("upgrade", (request, socket, head) => note(request, head));
  server.on("request", (request) => note(request, Buffer.alloc(0)));
  server.on("clientError", (error) => requests.push({ error: error.code }));
  const socket = new Duplex({ read() {}, write(chunk, encoding, done) { done(); } });
  server.emit("connection", socket);
  socket.push(Buffer.from(raw, "latin1"));
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  socket.destroy();
  return requests;
}

(async () => {
  let text = "";
  for await (const chunk of process.stdin) text += chunk;
  const results = [];
  for (const raw of JSON.parse(text)) results.push(await seen(raw));
  process.stdout.write(JSON.stringify(results), () => process.exit(0));
})();
