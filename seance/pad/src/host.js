// The state of the host as the relay reports it: online, resuming, away, unknown; "" without a report.
//
// An open WebSocket does not show that its other end is missing for a moment, and one that cannot be opened
// does not show why. The relay reports both at /c/ROOM/status, as a stream of events. A browser allows six
// such streams for one site, so a page keeps one only while it is visible.

/**
 * @param {string} address
 * @param {(host: { state: string, since: number }) => void} tell called when the state changes; "since" is
 *   the time of the change in milliseconds of this device's clock, 0 if unknown
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
      // The browser connects again by itself, unless the request was refused.
      if (stream.readyState === EventSource.CLOSED) again = setTimeout(watch, 5_000 + Math.random() * 5_000)
    }
  }
  document.addEventListener("visibilitychange", watch)
  watch()
}

/** Return the time since then in one unit: "7 s", "3 min", "2 h"; "" if it is unknown. */
export const lapse = (since, now = Date.now()) => {
  if (since === 0) return ""
  const seconds = Math.max(0, Math.round((now - since) / 1000))
  if (seconds < 60) return `${seconds} s`
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`
}
