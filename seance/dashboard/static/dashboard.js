// The dashboard: what the admin port tells once a second, as figures, plots and tables.
//
// Everything comes over one EventSource; rates are made here, from totals. A token that is for some rooms
// only brings no figures of the relay: then the cards are added up from the rooms, and the rest is hidden.

import * as ask from './ask.js'
import { bytes, clock, count, many, milliseconds, rate } from './format.js'
import { Plot, Rate } from './plot.js'
import { Rooms } from './rooms.js'

const MOST_EVENTS = 200
const AGAIN_MILLISECONDS = 5000
const SILENT_MILLISECONDS = 10000

// By this an agent is asked who it is, with each first dial: a question, and no refusal to anybody.
const PROOF = 'identity_question'

const find = id => document.getElementById(id)
const root = document.documentElement
const notice = find('notice')

const STATES = {
  connecting: 'Connecting',
  live: 'Live',
  draining: 'Stopping: agents and clients are sent away',
  lost: 'Not connected; trying again',
  closed: 'Not allowed in'
}

const setState = state => {
  if (root.dataset.state === state) return
  root.dataset.state = state
  find('state').textContent = STATES[state]
}

const tell = sentence => {
  notice.textContent = sentence
  notice.hidden = sentence === ''
}

class Card {
  constructor (id, options) {
    const card = find(id)
    this.name = card.querySelector('h2').textContent
    this.value = card.querySelector('.value strong')
    this.aside = card.querySelector('.aside')
    this.plot = new Plot(card.querySelector('.plot'), options)
  }

  show (value, aside, ...samples) {
    this.value.textContent = value
    if (aside !== null) this.aside.textContent = aside
    this.plot.add(...samples)
    this.plot.draw(`${this.name} in the last three minutes, now ${value}`)
  }
}

const cards = {
  clients: new Card('clients', { least: 4, say: count }),
  traffic: new Card('traffic', { least: 1024, base: 1024, names: ['to', 'from'], say: rate }),
  agents: new Card('agents', { least: 2 }),
  trip: new Card('trip', { least: 0.002 }),
  refused: new Card('refused', { least: 1 }),
  lag: new Card('lag', { least: 0.01 })
}

const rates = { received: new Rate(), sent: new Rate(), refused: new Rate(), opened: new Rate() }
const rooms = new Rooms(find('rooms').tBodies[0], tell)

// The rates that come between two samples belong to the time between them, whenever they are drawn.
const now = () => performance.now() / 1000

const perSecond = value => `${value === 0 ? 0 : value >= 10 ? count(value) : value.toFixed(1)}/s`

const sum = counts => Object.values(counts).reduce((all, one) => all + one, 0)

const showTraffic = (sent, received) => {
  const to = rates.sent.next(sent, now())
  const from = rates.received.next(received, now())
  cards.traffic.show(rate(to + from), null, to, from)
  const [there, back] = cards.traffic.aside.children
  there.textContent = `${rate(to)} to clients`
  back.textContent = `${rate(from)} from clients`
}

const showTrip = (median, worst) => {
  if (median === undefined) cards.trip.show('–', 'no ping was answered yet', 0)
  else cards.trip.show(milliseconds(median), `at worst ${milliseconds(worst)}`, worst)
}

const showBars = (id, counts) => {
  const list = find(id)
  const entries = Object.entries(counts).filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1])
  const most = Math.max(1, ...entries.map(([, value]) => value))
  while (list.children.length > entries.length) list.lastElementChild.remove()
  entries.forEach(([name, value], at) => {
    let item = list.children[at]
    if (item === undefined) {
      item = document.createElement('li')
      item.append(...['span', 'span', 'progress'].map(kind => document.createElement(kind)))
      list.append(item)
    }
    const [label, number, bar] = item.children
    label.textContent = name.replaceAll('_', ' ')
    number.textContent = count(value)
    bar.max = most
    bar.value = value
    bar.setAttribute('aria-hidden', 'true')
  })
}

let hasFigures = false
let roomsInAll = 0

const onFigures = figures => {
  hasFigures = true
  delete root.dataset.scope
  setState(figures.is_draining ? 'draining' : 'live')
  const waiting = [
    figures.pending > 0 && `${count(figures.pending)} waiting for the local server`,
    figures.parked > 0 && `${count(figures.parked)} waiting for their agent`
  ].filter(Boolean).join(', ')
  const opened = rates.opened.next(figures.streams_opened, now())
  const came = `${count(figures.streams_opened)} so far, ${perSecond(opened)} now`
  cards.clients.show(count(figures.clients), waiting || came, figures.clients)
  showTraffic(figures.sent_bytes, figures.received_bytes)
  const kept = `${count(figures.resuming)} away, ${bytes(figures.kept_bytes)} kept for them`
  const connections = many(figures.connections, 'open connection')
  cards.agents.show(count(figures.agents), figures.resuming > 0 ? kept : connections, figures.agents)
  showTrip(figures.round_trip_seconds.median, figures.round_trip_seconds.worst)
  const { [PROOF]: _, ...refusals } = figures.refusals
  const refused = rates.refused.next(sum(refusals), now())
  cards.refused.show(perSecond(refused), `${count(sum(refusals))} so far`, refused)
  const upgrade = figures.upgrades === 0 ? null : figures.upgrade_seconds / figures.upgrades
  const took = upgrade === null ? 'no client was let in yet' : `a client is let in within ${milliseconds(upgrade)}`
  cards.lag.show(milliseconds(figures.lag_seconds), took, figures.lag_seconds)
  roomsInAll = figures.rooms
  find('rooms-count').textContent = count(roomsInAll)
  showBars('refusals', refusals)
  showBars('resumptions', figures.resumptions)
  showBars('limits', figures.limits)
}

const onRooms = ({ rooms: shown }) => {
  if (!hasFigures) addUp(shown)
  rooms.show(shown, now())
  find('rooms').hidden = shown.length === 0
  find('no-rooms').hidden = shown.length > 0
  const isAll = !hasFigures || shown.length >= roomsInAll
  find('more-rooms').hidden = isAll
  find('more-rooms').textContent = isAll
    ? ''
    : `The ${shown.length} rooms with the most clients are shown; seance status lists all ${count(roomsInAll)}.`
}

// All that a token for some rooms lets us know.
const addUp = shown => {
  const total = key => shown.reduce((all, room) => all + room[key], 0)
  const trips = shown.map(room => room.round_trip_seconds).filter(trip => trip !== null).sort((a, b) => a - b)
  root.dataset.scope = 'some'
  setState('live')
  cards.clients.show(count(total('clients')), 'in the rooms that you may see', total('clients'))
  showTraffic(total('sent_bytes'), total('received_bytes'))
  const online = shown.filter(room => room.state === 'online').length
  cards.agents.show(count(online), 'in the rooms that you may see', online)
  showTrip(trips[trips.length >> 1], trips.at(-1))
  find('rooms-count').textContent = count(shown.length)
}

const note = (kind, room, text) => {
  const list = find('events')
  const item = document.createElement('li')
  item.className = kind
  const time = document.createElement('time')
  time.textContent = clock(new Date())
  const name = document.createElement('b')
  name.textContent = room
  item.append(time, name, document.createTextNode(text))
  list.prepend(item)
  while (list.children.length > MOST_EVENTS) list.lastElementChild.remove()
  find('no-events').hidden = true
}

const ROOM_WORDS = {
  online: 'is served', resuming: 'has lost its carrier; clients are kept', away: 'has no agent', gone: 'is forgotten'
}

const onRoom = ({ room, state, reason }) => {
  const back = state === 'online' && reason === 'resumed' ? 'is back; nobody noticed' : null
  const why = state === 'away' && reason ? ` (${reason.replaceAll('_', ' ')})` : ''
  note(state, room, `${back ?? ROOM_WORDS[state] ?? state}${why}`)
}

const onClient = client => {
  if (client.state === 'in') {
    note('in', client.room, `client ${client.client} came, let in after ${milliseconds(client.upgrade_seconds)}`)
  } else {
    const passed = `${bytes(client.sent_bytes)} to it, ${bytes(client.received_bytes)} from it`
    note('out', client.room, `client ${client.client} left: ${client.reason.replaceAll('_', ' ')}; ${passed}`)
  }
}

const onLimit = ({ limit }) => note('limit', '', `A limit was reached: ${limit.replaceAll('_', ' ')}`)

const HEARD = { figures: onFigures, rooms: onRooms, room: onRoom, client: onClient, limit: onLimit }

let source = null
let lastHeard = 0

const open = () => {
  source?.close()
  source = new EventSource(ask.EVENTS)
  lastHeard = performance.now()
  hasFigures = false
  for (const [name, hear] of Object.entries(HEARD)) {
    source.addEventListener(name, event => {
      lastHeard = performance.now()
      if (root.dataset.state !== 'draining') setState('live')
      if (notice.dataset.isOfConnection === 'yes') {
        notice.dataset.isOfConnection = 'no'
        tell('')
      }
      hear(JSON.parse(event.data))
    })
  }
  source.addEventListener('error', onError)
}

const REASONS = {
  401: 'This needs a token of role admin: reload the page, and give it as the password. Any name will do.',
  403: 'This token does not let you in here: reload the page with another one.',
  429: 'As many watch this relay as may. This page tries again.'
}

// A browser tries again by itself only where the connection broke, and not where it was refused.
const onError = async () => {
  setState('lost')
  if (source.readyState !== EventSource.CLOSED) return
  const status = await ask.whyNot()
  if (status in REASONS) {
    notice.dataset.isOfConnection = 'yes'
    tell(REASONS[status])
  }
  // Each attempt could have the browser ask for a password again.
  if (status === 401 || status === 403) setState('closed')
  else setTimeout(open, AGAIN_MILLISECONDS)
}

// A relay whose machine has gone does not say so: then the connection stays, and nothing comes.
setInterval(() => {
  if (source?.readyState === EventSource.OPEN && performance.now() - lastHeard > SILENT_MILLISECONDS) {
    setState('lost')
    open()
  }
}, 2000)

find('address').textContent = location.host
open()
