// How it stands with the host, as one word: connecting, live, away, offline, closed.
//
// A browser hides why a WebSocket could not be opened, so "away" is a guess, and a good one: the
// relay that served this page was there, hence it is the host that is missing. It is said after a
// dial failed, after a wait longer than a relay's own short pauses, and when nothing has come for
// longer than the echo of our own presence takes (every 15 s).

const patience = 4_000
const silence = 30_000

/**
 * @param {import("y-websocket").WebsocketProvider} provider
 * @param {(state: string, reason: string) => void} tell called when the word changes
 */
export const watchConnection = (provider, tell) => {
  let failures = 0
  let waitingSince = Date.now()
  let wasLive = false
  let closed = null
  let last = ""

  const current = () => {
    if (closed !== null) return "closed"
    if (provider.synced && Date.now() - provider.wsLastMessageReceived < silence) return "live"
    if (!navigator.onLine) return "offline"
    if (provider.synced || failures > 0 || Date.now() - waitingSince > patience) return "away"
    return wasLive ? "reconnecting" : "connecting"
  }
  const look = () => {
    const state = current()
    if (state === "live") wasLive = true
    if (state !== last) tell((last = state), closed ?? "")
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
  look()
}
