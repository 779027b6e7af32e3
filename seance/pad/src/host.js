// Whether the host is there, as the relay says it: online, resuming, away, unknown; "" if nobody says.
//
// A WebSocket that stays open does not tell that nobody is at its other end for the moment, and one that
// cannot be opened does not tell why. The relay does, at /c/ROOM/status, as a stream of events. A browser
// has six such streams for one site, so a page keeps one only while it is looked at.

/**
 * @param {string} address
 * @param {(host: { state: string, since: number }) => void} tell called when it changes; since when, in
 *   milliseconds of this device's clock
 */
export const watchHost = (address, tell) => {
  let stream = null
  let again = 0

  const watch = () => {
    clearTimeout(again)
    stream?.close()
    stream = null
    tell({ state: "", since: 0 })
    if (document.hidden) return
    stream = new EventSource(address)
    stream.onmessage = ({ data }) => {
      const { state, since } = JSON.parse(data)
      tell({ state, since: since === null ? 0 : Date.now() - since * 1000 })
    }
    stream.onerror = () => {
      tell({ state: "", since: 0 })
      // The browser dials again by itself, unless it was refused.
      if (stream.readyState === EventSource.CLOSED) again = setTimeout(watch, 5_000 + Math.random() * 5_000)
    }
  }
  document.addEventListener("visibilitychange", watch)
  watch()
}

/** How long ago that was, in one unit: "7 s", "3 min", "2 h"; "" if it is not known. */
export const lapse = (since, now = Date.now()) => {
  if (since === 0) return ""
  const seconds = Math.max(0, Math.round((now - since) / 1000))
  if (seconds < 60) return `${seconds} s`
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`
}
