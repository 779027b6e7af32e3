// The page: a document, its connection, the editor, the people, the state line.

import { WebsocketProvider } from "y-websocket"
import * as Y from "yjs"
import { addressFrom } from "./address.js"
import { watchConnection } from "./connection.js"
import { remoteCursors } from "./cursors.js"
import { makeEditor } from "./editor.js"
import { lapse } from "./host.js"
import { introduceMe, showPeople } from "./people.js"

const element = (id) => document.getElementById(id)

const stateTexts = {
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  live: "Live",
  resuming: "Host reconnecting",
  away: "Host offline",
  offline: "You are offline",
  closed: "Closed by the host",
}
const hosts = {
  online: "Host online",
  resuming: "Host reconnecting",
  away: "Host offline",
  unknown: "Host not connected yet",
}
const notices = {
  away: "The host is not connected. Keep writing and keep this tab open: your text is sent when the host is back.",
  offline: "This device has no network. Keep writing and keep this tab open: your text is sent when the network is back.",
}

const { base, name, params, link, status } = addressFrom(location)
const doc = new Y.Doc()
const text = doc.getText("text")
const provider = new WebsocketProvider(base, name, doc, {
  params,
  // Without this, tabs of one browser would sync with each other and look live while the host is offline.
  disableBc: true,
  // y-websocket has no jitter: without this, many clients would reconnect at the same times.
  maxBackoffTime: 2000 + Math.random() * 1500,
})
const { awareness } = provider

const cursors = remoteCursors(text, awareness)
const view = makeEditor(element("editor"), text, cursors.extension)
introduceMe(awareness, element("name"), element("swatch"))
showPeople(awareness, element("people"), element("count"), (clientId) => cursors.goTo(view, clientId))

provider.on("status", ({ status }) => {
  // The others removed our state when the last connection ended; only a newer clock brings it back.
  if (status === "connected") awareness.setLocalState(awareness.getLocalState())
})

let isUnsent = false
doc.on("update", (_update, origin) => {
  isUnsent ||= origin !== provider && !provider.synced
  countWords()
})
provider.on("sync", (isSynced) => {
  if (isSynced) isUnsent = false
})
addEventListener("beforeunload", (event) => {
  if (isUnsent) event.preventDefault()
})

const show = (id, text) => {
  // Only if it is new, because a screen reader reads out each change.
  if (element(id).textContent !== text) element(id).textContent = text
}

watchConnection(provider, status, (state, reason, host) => {
  const { dataset } = document.documentElement
  dataset.state = state
  dataset.host = host.state
  show("state", stateTexts[state])
  const time = state === host.state ? lapse(host.since) : ""
  show("since", time && `for ${time}`)
  show("host", hosts[host.state] ?? "")
  const notice = state === "closed" ? `The host closed this pad: ${reason}. Reload to try again.` : notices[state]
  element("notice").hidden = !notice
  show("notice", notice ?? "")
  document.title = state === "live" ? "Seance pad" : `${stateTexts[state]} · Seance pad`
})

let counting = 0
const countWords = () => {
  clearTimeout(counting)
  counting = setTimeout(() => {
    const count = text.toString().match(/\S+/g)?.length ?? 0
    element("words").textContent = count === 1 ? "1 word" : `${count} words`
  }, 300)
}
countWords()

const copy = async () => {
  try {
    await navigator.clipboard.writeText(link)
    return "Link copied"
  } catch {
    // Not a secure context: plain http on a local network. The old interface still works there.
    const field = document.createElement("textarea")
    field.value = link
    field.className = "visually-hidden"
    document.body.append(field)
    field.select()
    const isCopied = document.execCommand("copy")
    field.remove()
    return isCopied ? "Link copied" : "Copy it from the address bar"
  }
}
let copied = 0
element("copy").addEventListener("click", async () => {
  element("copy-text").textContent = await copy()
  clearTimeout(copied)
  copied = setTimeout(() => (element("copy-text").textContent = "Copy link"), 2500)
})

// Focus the editor on devices with a pointer; on others, the keyboard on the screen would open.
if (matchMedia("(hover: hover)").matches) view.focus()
