// The echo server from the examples of the ws package: it returns each message, text as text. PORT 0 picks a free
// port; DEFLATE=1 accepts permessage-deflate.

import { WebSocketServer } from 'ws'

const { HOST: host = '127.0.0.1', PORT: port = '1234', DEFLATE: deflate = '0' } = process.env

const server = new WebSocketServer({
  host,
  port: Number(port),
  perMessageDeflate: deflate === '1' ? { threshold: 0 } : false,
  handleProtocols: offered => (offered.has('y.chosen') ? 'y.chosen' : false)
})

server.on('connection', socket => {
  socket.on('error', console.error)
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }))
})

server.on('listening', () => console.log(`running at '${host}' on port ${server.address().port}`))
