// A common interface of the stock Yjs providers, so that a test only names the kind.
// Every provider uses a WebSocket class that records: dials, opens, closes, HTTP statuses of refused upgrades, and
// the largest message received. It repairs and retries nothing. BroadcastChannel is off in all of them: two documents
// of one process must meet on the server.

import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider'
import WebSocket from 'ws'
import { WebsocketProvider } from 'y-websocket'
import { WebsocketProvider as WebsocketProvider1 } from 'y-websocket-1'
import * as Y from 'yjs'

const tracedSocketClass = trace =>
  class extends WebSocket {
    constructor (url, protocols) {
      super(url, protocols ?? [])
      trace.dials += 1
      trace.urls.add(url)
      this.on('open', () => {
        trace.opens += 1
        trace.protocols.push(this.protocol)
      })
      this.on('message', message => {
        trace.largestMessage = Math.max(trace.largestMessage, message.byteLength)
      })
      this.on('close', code => trace.closes.push(code))
      this.on('error', error => {
        const status = /Unexpected server response: (\d+)/.exec(error.message)
        trace.refusals.push(status === null ? error.message : Number(status[1]))
      })
    }
  }

const newTrace = () => ({
  dials: 0,
  opens: 0,
  closes: [],
  refusals: [],
  protocols: [],
  largestMessage: 0,
  urls: new Set()
})

const cutSocket = socket => socket._socket.resetAndDestroy()

class YWebsocketClient {
  constructor (Provider, { url, doc, params = {}, protocols, offline = false }) {
    this.trace = newTrace()
    this.ydoc = new Y.Doc()
    this.provider = new Provider(url, doc, this.ydoc, {
      params,
      connect: !offline,
      disableBc: true,
      WebSocketPolyfill: tracedSocketClass(this.trace),
      ...(protocols === undefined ? {} : { protocols })
    })
    this.awareness = this.provider.awareness
  }

  get synced () { return this.provider.synced }
  get connected () { return this.provider.wsconnected }
  goOnline () { this.provider.connect() }
  goOffline () { this.provider.disconnect() }
  leave () { this.provider.destroy() }

  cut () {
    this.provider.shouldConnect = false
    cutSocket(this.provider.ws)
  }
}

class HocuspocusClient {
  constructor ({ url, doc, params = {}, token = null, offline = false }) {
    const query = new URLSearchParams(params).toString()
    this.trace = newTrace()
    this.ydoc = new Y.Doc()
    this.socket = new HocuspocusProviderWebsocket({
      url: query === '' ? url : `${url}${url.includes('?') ? '&' : '?'}${query}`,
      autoConnect: !offline,
      WebSocketPolyfill: tracedSocketClass(this.trace)
    })
    this.provider = new HocuspocusProvider({
      websocketProvider: this.socket,
      name: doc,
      document: this.ydoc,
      token,
      onAuthenticationFailed: ({ reason }) => this.trace.refusals.push(reason)
    })
    this.provider.attach()
    this.awareness = this.provider.awareness
  }

  get synced () { return this.provider.synced }
  get connected () { return this.socket.status === 'connected' }
  goOnline () { this.socket.connect() }
  goOffline () { this.socket.disconnect() }

  leave () {
    this.provider.destroy()
    this.socket.destroy()
  }

  cut () {
    this.socket.shouldConnect = false
    cutSocket(this.socket.webSocket)
  }
}

export const newClient = ({ kind, ...options }) => {
  switch (kind) {
    case 'y-websocket-3': return new YWebsocketClient(WebsocketProvider, options)
    case 'y-websocket-1': return new YWebsocketClient(WebsocketProvider1, options)
    case 'hocuspocus': return new HocuspocusClient(options)
    default: throw new Error(`no such kind of client: ${kind}`)
  }
}
