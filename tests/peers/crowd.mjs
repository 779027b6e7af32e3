// A process with many plain WebSocket clients (ws), for an echo server at the given URL.

import WebSocket from 'ws'

import { serve, until } from './questions.mjs'

const DIALS_AT_A_TIME = 50

const sockets = []

const dial = url => new Promise((resolve, reject) => {
  const socket = new WebSocket(url, { perMessageDeflate: false })
  socket.once('open', () => resolve(socket))
  socket.once('error', reject)
})

// One round trip: the answer must be exactly the message, and nothing else.
const echo = (socket, message) => new Promise((resolve, reject) => {
  const gone = code => reject(new Error(`closed with ${code} before the echo`))
  socket.once('close', gone)
  socket.once('message', answer => {
    socket.off('close', gone)
    resolve(Buffer.compare(answer, message) === 0)
  })
  socket.send(message)
})

const endings = {
  close: socket => socket.close(1000, 'done'),
  fin: socket => socket._socket.end(),
  reset: socket => socket._socket.resetAndDestroy()
}

serve({
  dial: async ({ url, count }) => {
    for (let started = 0; started < count; started += DIALS_AT_A_TIME) {
      const batch = Math.min(DIALS_AT_A_TIME, count - started)
      sockets.push(...await Promise.all(Array.from({ length: batch }, () => dial(url))))
    }
    return sockets.length
  },
  // All clients at the same time; returns the number of correct echoes.
  echo: async ({ bytes, rounds = 1 }) => {
    let right = 0
    for (let round = 0; round < rounds; round += 1) {
      const answers = sockets.map((socket, number) => {
        const message = Buffer.alloc(bytes, number + round)
        message.writeUInt32BE(number)
        return echo(socket, message)
      })
      right += (await Promise.all(answers)).filter(Boolean).length
    }
    return right
  },
  end: async ({ how, seconds }) => {
    for (const socket of sockets) {
      socket.on('error', () => {})
      endings[how](socket)
    }
    const closed = socket => socket.readyState === WebSocket.CLOSED
    const waited = await until(`all closed after ${how}`, seconds, () => sockets.every(closed))
    sockets.length = 0
    return waited
  }
})
