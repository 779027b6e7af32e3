// A process with stock Yjs clients that a test controls over standard input and output.
// Waits report how many milliseconds they took; the test decides whether that is too long. questions.mjs has the
// protocol, tests/e2e/peers.py is the other end, and peer.py answers the same requests with pycrdt.

import { createHash } from 'node:crypto'
import * as Y from 'yjs'

import { newClient } from './providers.mjs'
import { serve, until } from './questions.mjs'

const clients = new Map()

const named = name => {
  const client = clients.get(name)
  if (client === undefined) throw new Error(`no client is called ${name}`)
  return client
}

const digest = bytes => createHash('sha256').update(bytes).digest('hex')

// Different sketches mean different documents, and are cheap; equal sketches mean nothing.
const sketchOf = ydoc => `${digest(Y.encodeStateVector(ydoc))} ${ydoc.getText('text').length}`

const stateOf = ydoc => {
  const update = Y.encodeStateAsUpdate(ydoc)
  return { sha256: digest(update), bytes: update.byteLength, length: ydoc.getText('text').length }
}

const sha256Of = ydoc => stateOf(ydoc).sha256

// A small random generator: the same seed makes the same edits in every run.
const newDice = seed => sides => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return Math.floor((seed / 2 ** 32) * sides)
}

const edit = (ydoc, dice, name) => {
  const text = ydoc.getText('text')
  if (text.length > 20 && dice(4) === 0) text.delete(dice(text.length - 5), 1 + dice(5))
  else text.insert(dice(text.length + 1), `${name}${dice(1000)} `)
  ydoc.getMap('map').set(`key${dice(20)}`, `${name}${dice(1000)}`)
}

const statesSeenBy = client => [...client.awareness.getStates().values()].map(state => state.user)

const answers = {
  open: ({ name, seconds, ...options }) => { clients.set(name, newClient(options)) },
  leave: ({ name }) => { named(name).leave() },
  cut: ({ name }) => { named(name).cut() },
  offline: ({ name }) => { named(name).goOffline() },
  online: ({ name }) => { named(name).goOnline() },

  when_synced: ({ name, seconds }) => until(`${name} synced`, seconds, () => named(name).synced),
  when_unconnected: ({ name, seconds }) => until(`${name} unconnected`, seconds, () => !named(name).connected),
  when_equal: async ({ names, seconds }) => {
    const ydocs = names.map(name => named(name).ydoc)
    const allSame = of => new Set(ydocs.map(of)).size === 1
    const waited = await until(`${names} equal`, seconds, () => allSame(sketchOf) && allSame(sha256Of))
    return { ...waited, ...stateOf(ydocs[0]) }
  },
  when_length: ({ name, length, seconds }) =>
    until(`${name} holds ${length} characters`, seconds, () => named(name).ydoc.getText('text').length === length),
  when_text: ({ name, part, seconds }) =>
    until(`${name} reads ${part}`, seconds, () => named(name).ydoc.getText('text').toString().includes(part)),
  when_refused: ({ name, times, seconds }) =>
    until(`${name} refused ${times} times`, seconds, () => named(name).trace.refusals.length >= times),

  insert: ({ name, text, at = 0 }) => { named(name).ydoc.getText('text').insert(at, text) },
  // An edit and a reset during a download: the kernel sends RST for a socket that is closed with unread bytes.
  insert_and_cut: async ({ name, text, seconds }) => {
    const client = named(name)
    await until(`${name} connected`, seconds, () => client.connected)
    client.provider.ws._socket.pause()
    await new Promise(resolve => setTimeout(resolve, 200))
    client.ydoc.getText('text').insert(0, text)
    await new Promise(resolve => setTimeout(resolve, 5))
    client.provider.shouldConnect = false
    client.provider.ws._socket.destroy()
  },
  edits: async ({ names, count, seed = 1 }) => {
    const dice = newDice(seed)
    for (let done = 0; done < count; done += 1) {
      for (const name of names) edit(named(name).ydoc, dice, name)
      await new Promise(resolve => setImmediate(resolve))
    }
  },
  text: ({ name }) => named(name).ydoc.getText('text').toString(),
  state: ({ name }) => stateOf(named(name).ydoc),
  update: ({ name }) => Buffer.from(Y.encodeStateAsUpdate(named(name).ydoc)).toString('base64'),
  // The state of a document made from another client's update.
  read_update: ({ update }) => {
    const ydoc = new Y.Doc()
    Y.applyUpdate(ydoc, Buffer.from(update, 'base64'))
    ydoc.getText('text')
    return stateOf(ydoc)
  },

  announce: ({ name, user }) => { named(name).awareness.setLocalState(user === null ? null : { user }) },
  when_present: ({ name, user, seconds }) =>
    until(`${name} sees ${user}`, seconds, () => statesSeenBy(named(name)).includes(user)),
  when_absent: ({ name, user, seconds }) =>
    until(`${name} no longer sees ${user}`, seconds, () => !statesSeenBy(named(name)).includes(user)),

  trace: ({ name }) => {
    const { urls, ...rest } = named(name).trace
    return { ...rest, urls: [...urls] }
  }
}

serve(answers)
