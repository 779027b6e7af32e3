// Chromium with the pad, driven by a test over standard input and output.
//
// Each person has a browser context: two tabs of one context would share storage and could sync without
// the tunnel. tests/peers/questions.mjs has the protocol; tests/pad/browser.py is the other end.

import { execFileSync } from 'node:child_process'
import { createRequire } from 'node:module'

import { serve } from '../peers/questions.mjs'

const require = createRequire(new URL('../../seance/pad/src/package.json', import.meta.url))
const { chromium } = require('playwright-core')

const executablePath = execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim()
const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'
  ]
})

const people = new Map()

const pageOf = who => {
  const person = people.get(who)
  if (person === undefined) throw new Error(`no person is called ${who}`)
  return person.page
}

// Runs in the page. The elements of the text also hold the names at the carets, which are left out.
const readText = () => [...document.querySelectorAll('.cm-line')].map(line => {
  const copy = line.cloneNode(true)
  for (const caret of copy.querySelectorAll('.caret, .cm-placeholder')) caret.remove()
  return copy.textContent
}).join('\n')

// Polled from outside, because the page's policy forbids what waitForFunction does in the page.
const wait = async (who, seconds, holds, argument) => {
  const end = performance.now() + seconds * 1000
  while (!await pageOf(who).evaluate(holds, argument)) {
    if (performance.now() > end) throw new Error(`after ${seconds} s still not, with ${argument}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

serve({
  open: async ({ who, url, seconds, ...options }) => {
    const context = await browser.newContext({ viewport: { width: 1120, height: 720 }, ...options })
    const page = await context.newPage()
    const notes = { requests: [], trouble: [], closes: 0 }
    page.on('request', request => { notes.requests.push(request.url()) })
    page.on('websocket', socket => {
      notes.requests.push(socket.url())
      socket.on('close', () => { notes.closes += 1 })
    })
    page.on('console', message => {
      if (message.type() === 'error' || message.type() === 'warning') notes.trouble.push(message.text())
    })
    page.on('pageerror', error => { notes.trouble.push(String(error)) })
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', event => {
        console.error(`the policy forbids ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`)
      })
    })
    people.set(who, { context, page, notes })
    const response = await page.goto(url)
    return response.status()
  },
  leave: async ({ who }) => {
    await people.get(who).context.close()
    people.delete(who)
  },
  reload: async ({ who }) => { await pageOf(who).reload() },
  notes: ({ who }) => people.get(who).notes,

  rename: async ({ who, name }) => {
    await pageOf(who).fill('#name', name)
    await pageOf(who).press('#name', 'Enter')
  },
  name: ({ who }) => pageOf(who).inputValue('#name'),
  focus: ({ who }) => pageOf(who).focus('.cm-content'),
  type: async ({ who, text }) => {
    await pageOf(who).focus('.cm-content')
    await pageOf(who).keyboard.type(text)
  },
  press: async ({ who, keys }) => {
    for (const key of keys) await pageOf(who).keyboard.press(key)
  },
  click: ({ who, on }) => pageOf(who).click(on),
  offline: ({ who, is }) => people.get(who).context.setOffline(is),

  text: ({ who }) => pageOf(who).evaluate(readText),
  content: ({ who, of }) => pageOf(who).textContent(of),
  evaluate: ({ who, expression }) => pageOf(who).evaluate(expression),
  when_text: ({ who, text, seconds }) => wait(who, seconds, `(${readText})() === ${JSON.stringify(text)}`, text),
  when_state: ({ who, state, seconds }) =>
    wait(who, seconds, wanted => document.documentElement.dataset.state === wanted, state),
  when_caret: ({ who, name, seconds }) => wait(who, seconds, wanted =>
    [...document.querySelectorAll('.caret-name')].some(label => label.textContent === wanted), name),
  when_no_caret: ({ who, name, seconds }) => wait(who, seconds, wanted =>
    ![...document.querySelectorAll('.caret-name')].some(label => label.textContent === wanted), name),
  when_people: ({ who, names, seconds }) => wait(who, seconds, wanted =>
    [...document.querySelectorAll('#people .face')].map(face => face.title).sort().join() === wanted,
    [...names].sort().join()),
  when_selected: ({ who, text, seconds }) => wait(who, seconds, wanted =>
    [...document.querySelectorAll('.chosen')].map(chosen => chosen.textContent).join('') === wanted, text),

  screenshot: async ({ who, path }) => { await pageOf(who).screenshot({ path }) }
})
