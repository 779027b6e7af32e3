// How it stands with the host, as one word: connecting, live, resuming, away, offline, closed.
//
// The relay says whether the host is there. While it says nothing, "away" is a guess, because a browser
// hides why a WebSocket could not be opened, and a good one: the relay that served this page was there,
// hence it is the host that is missing. It is said after a dial failed, after a wait longer than a relay's
// own short pauses, and when nothing has come for longer than the echo of our own presence takes (every
// 15 s).

import { watchHost } from "./host.js"

const patience = 4_000
const silence = 30_000

/**
 * @param {import("y-websocket").WebsocketProvider} provider
 * @param {string} status where the relay says how it stands with the host
 * @param {(state: string, reason: string, host: { state: string, since: number }) => void} tell called when
 *   the word changes, or what the relay says, and each second
 */
export const watchConnection = (provider, status, tell) => {
  let host = { state: "", since: 0 }
  let failures = 0
  let waitingSince = Date.now()
  let wasLive = false
  let closed = null

  const current = () => {
    if (closed !== null) return "closed"
    const isHeard = provider.synced && Date.now() - provider.wsLastMessageReceived < silence
    if (isHeard && host.state !== "resuming") return "live"
    if (!navigator.onLine) return "offline"
    if (host.state === "resuming") return "resuming"
    if (host.state === "away" || host.state === "unknown") return "away"
    if (provider.synced || failures > 0 || Date.now() - waitingSince > patience) return "away"
    return wasLive ? "reconnecting" : "connecting"
  }
  const look = () => {
    const state = current()
    if (state === "live") wasLive = true
    tell(state, closed ?? "", host)
  }

  provider.on("sync", (isSynced) => {
    failures = 0
    if (!isSynced) waitingSince = Date.now()
    look()
  })
  provider.on("connection-close", () => {
    if (!provider.wsconnected) failures += 1
    setTimeout(look)
  })
  provider.on("closed", ({ reason }) => {
    closed = reason || "it gave no reason"
    look()
  })
  const dial = () => {
    if (closed === null && !document.hidden && navigator.onLine) provider.connect()
    look()
  }
  addEventListener("online", dial)
  addEventListener("offline", look)
  document.addEventListener("visibilitychange", dial)
  setInterval(look, 1_000)
  watchHost(status, (said) => {
    host = said
    look()
  })
  look()
}
