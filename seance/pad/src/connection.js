// The state of the connection: connecting, reconnecting, live, resuming, away, offline, closed.
//
// The relay reports whether the host is connected. Without a report, "away" is an assumption, because a
// browser hides why a WebSocket could not be opened. It is likely: the relay served this page, so the host is
// missing. It is shown after a failed connection attempt, after 4 s, which is longer than a relay's short
// pauses, and after 30 s without a message (the server returns our own awareness state every 15 s).

import { watchHost } from "./host.js"

const waitMilliseconds = 4_000
const silenceMilliseconds = 30_000

/**
 * @param {import("y-websocket").WebsocketProvider} provider
 * @param {string} status the address at which the relay reports the state of the host
 * @param {(state: string, reason: string, host: { state: string, since: number }) => void} tell called when
 *   the state or the relay's report changes, and each second
 */
export const watchConnection = (provider, status, tell) => {
  let host = { state: "", since: 0 }
  let failures = 0
  let waitingSince = Date.now()
  let wasLive = false
  let closed = null

  const current = () => {
    if (closed !== null) return "closed"
    const isHeard = provider.synced && Date.now() - provider.wsLastMessageReceived < silenceMilliseconds
    if (isHeard && host.state !== "resuming") return "live"
    if (!navigator.onLine) return "offline"
    if (host.state === "resuming") return "resuming"
    if (host.state === "away" || host.state === "unknown") return "away"
    if (provider.synced || failures > 0 || Date.now() - waitingSince > waitMilliseconds) return "away"
    return wasLive ? "reconnecting" : "connecting"
  }
  const update = () => {
    const state = current()
    if (state === "live") wasLive = true
    tell(state, closed ?? "", host)
  }

  provider.on("sync", (isSynced) => {
    failures = 0
    if (!isSynced) waitingSince = Date.now()
    update()
  })
  provider.on("connection-close", () => {
    if (!provider.wsconnected) failures += 1
    setTimeout(update)
  })
  provider.on("closed", ({ reason }) => {
    closed = reason || "no reason given"
    update()
  })
  const connect = () => {
    if (closed === null && !document.hidden && navigator.onLine) provider.connect()
    update()
  }
  addEventListener("online", connect)
  addEventListener("offline", update)
  document.addEventListener("visibilitychange", connect)
  setInterval(update, 1_000)
  watchHost(status, (report) => {
    host = report
    update()
  })
  update()
}
