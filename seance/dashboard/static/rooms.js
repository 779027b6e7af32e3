// The table of rooms. A room keeps its row element while it is shown, so that updates preserve the focus and
// an open list of clients. A row is moved only if its position has changed.

import * as api from './api.js'
import { bytes, count, many, milliseconds, rate, span } from './format.js'
import { Plot, Rate, element } from './plot.js'

const STATES = { online: 'online', resuming: 'reconnecting', away: 'offline', unknown: 'unknown' }
const CLIENTS_INTERVAL_MILLISECONDS = 2000
const SAMPLES = 60

const make = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties)
  made.append(...children)
  return made
}

const button = (text, does, properties = {}) => {
  const made = make('button', { type: 'button', textContent: text, ...properties })
  made.addEventListener('click', does)
  return made
}

// A cell; narrow screens show the label instead of a column header.
const cell = (label, className = '') => {
  const made = make('td', { className })
  made.dataset.label = label
  return made
}

export class Rooms {
  #rows = new Map()
  #body
  #showNotice

  // body: the tbody element; showNotice: shows an error message.
  constructor (body, showNotice) {
    this.#body = body
    this.#showNotice = showNotice
  }

  show (rooms, now) {
    const present = new Set(rooms.map(room => room.room))
    for (const [name, row] of this.#rows) {
      if (!present.has(name)) {
        row.remove()
        this.#rows.delete(name)
      }
    }
    const active = document.activeElement
    let next = this.#body.firstElementChild
    for (const room of rooms) {
      let row = this.#rows.get(room.room)
      if (row === undefined) {
        row = new Row(room.room, this.#showNotice)
        this.#rows.set(room.room, row)
      }
      row.show(room, now)
      for (const part of row.parts) {
        if (part === next) next = next.nextElementSibling
        else this.#body.insertBefore(part, next)
      }
    }
    if (active !== document.activeElement && active.isConnected) active.focus()
  }
}

class Row {
  constructor (name, showNotice) {
    this.name = name
    this.showNotice = showNotice
    this.received = new Rate()
    this.sent = new Rate()
    this.timer = null
    this.clients = 0
    this.state = cell('State', 'state-cell')
    this.number = cell('Clients', 'number')
    this.to = cell('To clients', 'number')
    this.from = cell('From clients', 'number')
    this.trip = cell('Round trip', 'number')
    this.agent = cell('Agent address', 'mono')
    const svg = element('svg', { class: 'plot small', role: 'img' })
    this.plot = new Plot(svg, { length: SAMPLES, least: 1024, base: 1024, names: ['to', 'from'] })
    const plotted = cell('Last minute', 'plotted')
    plotted.append(svg)
    this.list = make('ul', { className: 'clients' })
    this.more = make('p', { className: 'more', hidden: true })
    this.detail = make('tr', { className: 'detail', hidden: true },
      make('td', { colSpan: 9 }, this.list, this.more))
    this.toggle = button('Clients', () => this.open(this.detail.hidden))
    this.toggle.setAttribute('aria-expanded', 'false')
    this.toggle.setAttribute('aria-label', `Clients of ${name}`)
    const close = button('Close', () => this.close(), { className: 'danger' })
    close.setAttribute('aria-label', `Close room ${name}`)
    this.row = make('tr', { className: 'room' },
      make('th', { scope: 'row', className: 'mono', textContent: name, title: name }),
      this.state, this.number, this.to, this.from, plotted, this.trip, this.agent,
      make('td', { className: 'actions' }, this.toggle, close))
    this.row.dataset.room = name
    this.parts = [this.row, this.detail]
  }

  show (room, now) {
    const to = this.sent.next(room.sent_bytes, now)
    const from = this.received.next(room.received_bytes, now)
    const state = STATES[room.state] ?? room.state
    const kept = room.kept_bytes > 0 && room.state === 'resuming' ? `, ${bytes(room.kept_bytes)} buffered` : ''
    this.clients = room.clients
    this.row.dataset.state = room.state
    this.state.textContent = state === 'online' ? state : `${state} for ${span(room.since_seconds)}${kept}`
    this.number.textContent = count(room.clients)
    this.to.textContent = rate(to)
    this.from.textContent = rate(from)
    this.trip.textContent = room.round_trip_seconds === null ? '–' : milliseconds(room.round_trip_seconds)
    this.agent.textContent = room.agent_address || '–'
    this.plot.add(to, from)
    this.plot.draw(`Traffic of ${this.name} in the last minute, now ${rate(to)} to clients and ${rate(from)} from them`)
  }

  remove () {
    this.open(false)
    for (const part of this.parts) part.remove()
  }

  open (is) {
    this.detail.hidden = !is
    this.toggle.setAttribute('aria-expanded', String(is))
    clearTimeout(this.timer)
    if (is) this.refresh()
  }

  async refresh () {
    try {
      const room = await api.room(this.name)
      if (room !== null && !this.detail.hidden) this.showClients(room)
    } catch (error) {
      this.showNotice(error.message)
    }
    if (!this.detail.hidden) {
      clearTimeout(this.timer)
      this.timer = setTimeout(() => this.refresh(), CLIENTS_INTERVAL_MILLISECONDS)
    }
  }

  showClients (room) {
    const shown = new Map([...this.list.children].map(item => [item.dataset.client, item]))
    for (const client of room.list) {
      const key = String(client.client)
      let item = shown.get(key)
      if (item === undefined) {
        const disconnect = button('Disconnect', () => this.disconnect(client), { className: 'danger' })
        disconnect.setAttribute('aria-label', `Disconnect client ${key}`)
        item = make('li', {}, make('span', { className: 'who' }), make('span', { className: 'what' }), disconnect)
        item.dataset.client = key
        this.list.append(item)
      }
      shown.delete(key)
      const where = client.address === '' ? '' : ` from ${client.address}`
      const state = client.state === 'pending' ? 'waiting for the local server' : `for ${span(client.seconds)}`
      item.children[0].textContent = `Client ${key}${where}`
      item.children[1].textContent =
        `${state} · ${bytes(client.sent_bytes)} sent, ${bytes(client.received_bytes)} received`
    }
    for (const item of shown.values()) item.remove()
    const rest = room.clients - room.list.length
    this.more.hidden = rest <= 0 && room.clients > 0
    this.more.textContent = room.clients === 0 ? 'No clients.' : `And ${many(rest, 'more client')}.`
  }

  async disconnect (client) {
    const title = `Disconnect client ${client.client}?`
    if (await api.confirm(title, `It may reconnect to room ${this.name}.`, 'Disconnect')) {
      await this.do(this.name, 'clients', String(client.client))
      this.refresh()
    }
  }

  async close () {
    const text = `Its agent and ${many(this.clients, 'client')} are disconnected. They may reconnect.`
    if (await api.confirm(`Close room ${this.name}?`, text, 'Close room')) await this.do(this.name)
  }

  async do (...parts) {
    try {
      await api.disconnect(...parts)
    } catch (error) {
      this.showNotice(error.message)
    }
  }
}
