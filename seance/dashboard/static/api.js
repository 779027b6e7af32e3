// The API of the admin port, and the confirmation dialog.

// Relative, so that the page works below any path prefix of a proxy.
const url = (...parts) => `api/${parts.map(part => encodeURIComponent(part)).join('/')}`

export const EVENTS = url('events')

export const room = async name => {
  const response = await fetch(url('rooms', name))
  if (response.status === 404) return null
  if (!response.ok) throw new Error(await errorMessage(response))
  return response.json()
}

export const disconnect = async (...parts) => {
  // A page of another origin cannot send this header field.
  const response = await fetch(url('rooms', ...parts), { method: 'DELETE', headers: { 'Seance-Admin': 'dashboard' } })
  if (!response.ok && response.status !== 404) throw new Error(await errorMessage(response))
}

// Returns the status of the event stream, which EventSource does not expose; 0 without a response.
export const eventsStatus = async () => {
  const controller = new AbortController()
  try {
    return (await fetch(EVENTS, { signal: controller.signal })).status
  } catch {
    return 0
  } finally {
    controller.abort()
  }
}

const errorMessage = async response => {
  try {
    return (await response.json()).error
  } catch {
    return `The relay answered with status ${response.status}.`
  }
}

const dialog = document.getElementById('confirm')
let decide = () => {}

// The "close" event is asynchronous: if the next dialog is open by then, the event must not answer it.
dialog.addEventListener('close', () => { if (!dialog.open) decide(dialog.returnValue === 'yes') })
document.getElementById('confirm-no').addEventListener('click', () => dialog.close(''))
document.getElementById('confirm-yes').addEventListener('click', () => dialog.close('yes'))

export const confirm = (title, text, yes) => new Promise(resolve => {
  document.getElementById('confirm-title').textContent = title
  document.getElementById('confirm-text').textContent = text
  document.getElementById('confirm-yes').textContent = yes
  decide(dialog.returnValue === 'yes')
  dialog.returnValue = ''
  decide = resolve
  dialog.showModal()
})
