// A document server that refuses every upgrade. As in many applications, its sockets have no `error` listener, so a
// reset ends the process. The path selects the way: /STATUS/MODE?delay=MS. It prints one line of JSON for the end of
// each socket.

import { createServer } from 'node:http'

const { PORT: port = '0' } = process.env
const CRLF = '\r\n'

const answers = {
  // Closes immediately, as the examples of ws do.
  end: (socket, status) => socket.end(`HTTP/1.1 ${status} No${CRLF}Connection: close${CRLF}Content-Length: 3${CRLF}${CRLF}no\n`),
  destroy: (socket, status) => { socket.write(`HTTP/1.1 ${status} No${CRLF}${CRLF}no\n`); socket.destroySoon() },
  // Sends Content-Length and waits for the client to close.
  wait: (socket, status) => socket.write(`HTTP/1.1 ${status} No${CRLF}Content-Length: 3${CRLF}${CRLF}no\n`),
  malformed: socket => socket.write(`this is no HTTP${CRLF}${CRLF}`),
  long: (socket, status) => socket.write(`HTTP/1.1 ${status} No${CRLF}X: ${'x'.repeat(100_000)}${CRLF}${CRLF}`),
  broken: (socket, status) => socket.write(`HTTP/1.1 ${status} No${CRLF}Transfer-Encoding: chunked${CRLF}${CRLF}zzz${CRLF}`),
  silent: () => {}
}

const server = createServer()
server.on('upgrade', (request, socket) => {
  const url = new URL(request.url, 'http://localhost')
  const [, status, mode] = url.pathname.split('/')
  socket.on('data', () => {})
  socket.on('end', () => { console.log(JSON.stringify({ ended: url.pathname })); if (mode !== 'keep') socket.end() })
  socket.on('close', hadError => console.log(JSON.stringify({ closed: url.pathname, hadError })))
  setTimeout(() => answers[mode](socket, status), Number(url.searchParams.get('delay') ?? 0))
})
server.listen(Number(port), '127.0.0.1', () => console.log(`running on port ${server.address().port}`))
