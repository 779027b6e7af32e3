// The API of the admin port, and the one question that is put to a person before something is ended.

// Relative, so that the page works below whatever path a proxy puts it under.
const url = (...parts) => `api/${parts.map(part => encodeURIComponent(part)).join('/')}`

export const EVENTS = url('events')

export const room = async name => {
  const answer = await fetch(url('rooms', name))
  if (answer.status === 404) return null
  if (!answer.ok) throw new Error(await sentence(answer))
  return answer.json()
}

export const end = async (...parts) => {
  // The field is what no page of another origin can send.
  const answer = await fetch(url('rooms', ...parts), { method: 'DELETE', headers: { 'Seance-Admin': 'dashboard' } })
  if (!answer.ok && answer.status !== 404) throw new Error(await sentence(answer))
}

// Why there are no events: an EventSource does not say.
export const whyNot = async () => {
  const leaving = new AbortController()
  try {
    return (await fetch(EVENTS, { signal: leaving.signal })).status
  } catch {
    return 0
  } finally {
    leaving.abort()
  }
}

const sentence = async answer => {
  try {
    return (await answer.json()).error
  } catch {
    return `The relay answered with ${answer.status}.`
  }
}

const dialog = document.getElementById('sure')
let decide = () => {}

// "close" comes later than the closing. By then the next question may be open, and is not answered by it.
dialog.addEventListener('close', () => { if (!dialog.open) decide(dialog.returnValue === 'yes') })
document.getElementById('sure-no').addEventListener('click', () => dialog.close(''))
document.getElementById('sure-yes').addEventListener('click', () => dialog.close('yes'))

export const sure = (title, text, yes) => new Promise(resolve => {
  document.getElementById('sure-title').textContent = title
  document.getElementById('sure-text').textContent = text
  document.getElementById('sure-yes').textContent = yes
  decide(dialog.returnValue === 'yes')
  dialog.returnValue = ''
  decide = resolve
  dialog.showModal()
})
