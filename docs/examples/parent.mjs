// Runs an agent as a child, as an Electron app's main process does, and follows it.
//
//   node parent.mjs [RELAY [ROOM [PORT]]]

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

const [relay = 'ws://localhost:8080', room = 'test-room', port = '1234'] = process.argv.slice(2)

const agent = spawn(
  'seance',
  ['agent', '--room', room, '--relay', relay, '--local', `localhost:${port}`, '--status-json'],
  // The log is on stderr. Somebody has to read it, or say that nobody wants it ('ignore').
  { stdio: ['ignore', 'pipe', 'inherit'] }
)

createInterface({ input: agent.stdout }).on('line', line => {
  const told = JSON.parse(line)
  if (told.type === 'clients') {
    console.log(`${told.clients} ${told.clients === 1 ? 'guest' : 'guests'}`)
  } else if (told.type === 'status' && told.state === 'connected') {
    console.log(`Share this: ${told.url}`)
  } else if (told.type === 'status') {
    const wait = told.retry_seconds === null ? '' : ` Next attempt in ${told.retry_seconds.toFixed(1)} s.`
    console.log(`${told.sentence}${wait}`)
  } // other types may come with later versions
})

agent.on('error', error => { console.error(`No agent: ${error.message}`) })
agent.on('exit', code => { process.exitCode = code ?? 1 })

// Whoever ends the app ends the agent, in order. Should the app crash, the agent notices and ends by itself.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => agent.kill('SIGTERM'))
