// A local server that prints a line of JSON for each request and each end of a connection. MODE selects how it
// handles upgrades: "ws" passes them to the ws package, "refuse" lets ws refuse them, and "plain" is Node without ws,
// which answers them as any request and keeps the connection open.

import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'

const { MODE: mode = 'ws' } = process.env
const say = seen => console.log(JSON.stringify(seen))

const http = createServer((request, response) => {
  request.socket.requests += 1
  say({ saw: 'request', method: request.method, url: request.url })
  response.end('hello')
})
http.on('connection', socket => {
  socket.requests = 0
  socket.on('close', () => say({ saw: 'end', requests: socket.requests }))
})
http.on('clientError', (error, socket) => {
  say({ saw: 'error', code: error.code })
  socket.destroy()
})
if (mode !== 'plain') {
  http.on('upgrade', (request, socket, head) => {
    socket.requests += 1
    const offered = request.headers['sec-websocket-protocol'] ?? ''
    say({ saw: 'upgrade', method: request.method, url: request.url, offered, glued: head.length })
  })
  const server = new WebSocketServer({ server: http, verifyClient: () => mode === 'ws' })
  server.on('connection', socket => {
    socket.on('error', () => {})
    socket.on('message', message => socket.send(String(message)))
  })
}
http.listen(0, '127.0.0.1', () => console.log(`running on port ${http.address().port}`))
