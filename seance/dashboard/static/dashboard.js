// The dashboard: shows the events of the admin port as figures, plots and tables.
//
// One EventSource delivers all data; rates are computed here from totals. With a token for some rooms there are
// no figures of the relay: then the cards show sums over the rooms, and the other cards are hidden.

import * as api from './api.js'
import { bytes, clock, count, many, milliseconds, rate } from './format.js'
import { Plot, Rate } from './plot.js'
import { Rooms } from './rooms.js'

const MAX_EVENTS = 200
const RETRY_MILLISECONDS = 5000
const SILENT_MILLISECONDS = 10000

// The relay's response to the first request of each agent asks for proof of its identity: not a refusal.
const IDENTITY_CODE = 'identity_question'

const find = id => document.getElementById(id)
const root = document.documentElement
const notice = find('notice')

const STATES = {
  connecting: 'Connecting',
  live: 'Live',
  draining: 'Stopping: disconnecting agents and clients',
  lost: 'Not connected; retrying',
  closed: 'Access denied'
}

const setState = state => {
  if (root.dataset.state === state) return
  root.dataset.state = state
  find('state').textContent = STATES[state]
}

const showNotice = message => {
  notice.textContent = message
  notice.hidden = message === ''
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
  clients: new Card('clients', { least: 4, format: count }),
  traffic: new Card('traffic', { least: 1024, base: 1024, names: ['to', 'from'], format: rate }),
  agents: new Card('agents', { least: 2 }),
  trip: new Card('trip', { least: 0.002 }),
  refused: new Card('refused', { least: 1 }),
  lag: new Card('lag', { least: 0.01 })
}

const rates = { received: new Rate(), sent: new Rate(), refused: new Rate(), opened: new Rate() }
const rooms = new Rooms(find('rooms').tBodies[0], showNotice)

// A rate is the difference of two totals divided by the time between their events.
const now = () => performance.now() / 1000

const perSecond = value => `${value === 0 ? 0 : value >= 10 ? count(value) : value.toFixed(1)}/s`

const sum = counts => Object.values(counts).reduce((all, one) => all + one, 0)

const showTraffic = (sent, received) => {
  const to = rates.sent.next(sent, now())
  const from = rates.received.next(received, now())
  cards.traffic.show(rate(to + from), null, to, from)
  const [toLabel, fromLabel] = cards.traffic.aside.children
  toLabel.textContent = `${rate(to)} to clients`
  fromLabel.textContent = `${rate(from)} from clients`
}

const showTrip = (median, worst) => {
  if (median === undefined) cards.trip.show('–', 'no measurement yet', 0)
  else cards.trip.show(milliseconds(median), `worst ${milliseconds(worst)}`, worst)
}

const showBars = (id, counts) => {
  const list = find(id)
  const entries = Object.entries(counts).filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1])
  const max = Math.max(1, ...entries.map(([, value]) => value))
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
    bar.max = max
    bar.value = value
    bar.setAttribute('aria-hidden', 'true')
  })
}

let hasFigures = false
let roomCount = 0

const onFigures = figures => {
  hasFigures = true
  delete root.dataset.scope
  setState(figures.is_draining ? 'draining' : 'live')
  const waiting = [
    figures.pending > 0 && `${count(figures.pending)} waiting for the local server`,
    figures.parked > 0 && `${count(figures.parked)} waiting for their agent`
  ].filter(Boolean).join(', ')
  const opened = rates.opened.next(figures.streams_opened, now())
  const total = `${count(figures.streams_opened)} in total, ${perSecond(opened)}`
  cards.clients.show(count(figures.clients), waiting || total, figures.clients)
  showTraffic(figures.sent_bytes, figures.received_bytes)
  const kept = `${count(figures.resuming)} reconnecting, ${bytes(figures.kept_bytes)} buffered`
  const connections = many(figures.connections, 'open connection')
  cards.agents.show(count(figures.agents), figures.resuming > 0 ? kept : connections, figures.agents)
  showTrip(figures.round_trip_seconds.median, figures.round_trip_seconds.worst)
  const { [IDENTITY_CODE]: _, ...refusals } = figures.refusals
  const refused = rates.refused.next(sum(refusals), now())
  cards.refused.show(perSecond(refused), `${count(sum(refusals))} in total`, refused)
  const upgrade = figures.upgrades === 0 ? null : figures.upgrade_seconds / figures.upgrades
  const average = upgrade === null ? 'no upgrades yet' : `average upgrade ${milliseconds(upgrade)}`
  cards.lag.show(milliseconds(figures.lag_seconds), average, figures.lag_seconds)
  roomCount = figures.rooms
  find('rooms-count').textContent = count(roomCount)
  showBars('refusals', refusals)
  showBars('resumptions', figures.resumptions)
  showBars('limits', figures.limits)
}

const onRooms = ({ rooms: shown }) => {
  if (!hasFigures) showSums(shown)
  rooms.show(shown, now())
  find('rooms').hidden = shown.length === 0
  find('no-rooms').hidden = shown.length > 0
  const isAll = !hasFigures || shown.length >= roomCount
  find('more-rooms').hidden = isAll
  find('more-rooms').textContent = isAll
    ? ''
    : `The ${shown.length} rooms with the most clients are shown; seance status lists all ${count(roomCount)}.`
}

// Sums for a token that is limited to some rooms.
const showSums = shown => {
  const total = key => shown.reduce((all, room) => all + room[key], 0)
  const trips = shown.map(room => room.round_trip_seconds).filter(trip => trip !== null).sort((a, b) => a - b)
  root.dataset.scope = 'some'
  setState('live')
  cards.clients.show(count(total('clients')), 'in your rooms', total('clients'))
  showTraffic(total('sent_bytes'), total('received_bytes'))
  const online = shown.filter(room => room.state === 'online').length
  cards.agents.show(count(online), 'in your rooms', online)
  showTrip(trips[trips.length >> 1], trips.at(-1))
  find('rooms-count').textContent = count(shown.length)
}

const addEvent = (kind, room, text) => {
  const list = find('events')
  const item = document.createElement('li')
  item.className = kind
  const time = document.createElement('time')
  time.textContent = clock(new Date())
  const name = document.createElement('b')
  name.textContent = room
  item.append(time, name, document.createTextNode(text))
  list.prepend(item)
  while (list.children.length > MAX_EVENTS) list.lastElementChild.remove()
  find('no-events').hidden = true
}

const ROOM_EVENTS = {
  online: 'agent connected',
  resuming: 'agent lost its connection; its clients stay connected',
  away: 'agent disconnected',
  gone: 'room removed'
}

// Descriptions of reasons; reasons without one are shown as they are.
const REASONS = {
  ended: 'both sides finished',
  near_gone: 'client closed the connection',
  far_gone: 'local server or agent closed the connection',
  sent_away: 'by an operator or an expired token',
  seen_off: 'agent or relay stopped',
  left: 'agent stopped',
  cut: 'timeout',
  failed: 'connection lost',
  no_memory: 'memory limit'
}

const describe = reason => REASONS[reason] ?? reason.replaceAll('_', ' ')

const onRoom = ({ room, state, reason }) => {
  const resumed = state === 'online' && reason === 'resumed' ? 'agent reconnected; its clients stayed connected' : null
  const cause = state === 'away' && reason ? ` (${describe(reason)})` : ''
  addEvent(state, room, `${resumed ?? ROOM_EVENTS[state] ?? state}${cause}`)
}

const onClient = client => {
  if (client.state === 'in') {
    addEvent('in', client.room, `client ${client.client} connected in ${milliseconds(client.upgrade_seconds)}`)
  } else {
    const traffic = `${bytes(client.sent_bytes)} sent, ${bytes(client.received_bytes)} received`
    addEvent('out', client.room, `client ${client.client} disconnected (${describe(client.reason)}); ${traffic}`)
  }
}

const onLimit = ({ limit }) => addEvent('limit', '', `limit reached: ${limit.replaceAll('_', ' ')}`)

const HANDLERS = { figures: onFigures, rooms: onRooms, room: onRoom, client: onClient, limit: onLimit }

let source = null
let lastEventAt = 0

const open = () => {
  source?.close()
  source = new EventSource(api.EVENTS)
  lastEventAt = performance.now()
  hasFigures = false
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, event => {
      lastEventAt = performance.now()
      if (root.dataset.state !== 'draining') setState('live')
      if (notice.dataset.isOfConnection === 'yes') {
        notice.dataset.isOfConnection = 'no'
        showNotice('')
      }
      handle(JSON.parse(event.data))
    })
  }
  source.addEventListener('error', onError)
}

const STATUS_NOTICES = {
  401: 'A token of role admin is required: reload the page and enter it as the password, with any user name.',
  403: 'This token does not give access: reload the page and enter another one.',
  429: 'Too many open dashboards on this relay. This page retries.'
}

// EventSource reconnects by itself after a lost connection, but not after an error status.
const onError = async () => {
  setState('lost')
  if (source.readyState !== EventSource.CLOSED) return
  const status = await api.eventsStatus()
  if (status in STATUS_NOTICES) {
    notice.dataset.isOfConnection = 'yes'
    showNotice(STATUS_NOTICES[status])
  }
  // A retry could open the password dialog of the browser again.
  if (status === 401 || status === 403) setState('closed')
  else setTimeout(open, RETRY_MILLISECONDS)
}

// If the relay's machine or network fails, the connection stays open without events.
setInterval(() => {
  if (source?.readyState === EventSource.OPEN && performance.now() - lastEventAt > SILENT_MILLISECONDS) {
    setState('lost')
    open()
  }
}, 2000)

find('address').textContent = location.host
open()
