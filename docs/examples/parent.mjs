// Runs an agent as a child process, as an Electron app's main process does, and reads its status.
//
//   node parent.mjs [RELAY [ROOM [PORT]]]

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

const [relay = 'ws://localhost:8080', room = 'test-room', port = '1234'] = process.argv.slice(2)

const agent = spawn(
  'seance',
  ['agent', '--room', room, '--relay', relay, '--local', `localhost:${port}`, '--status-json'],
  // The log is on stderr: read it, or use 'ignore'.
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
  } // later versions may add types
})

agent.on('error', error => { console.error(`No agent: ${error.message}`) })
agent.on('exit', code => { process.exitCode = code ?? 1 })

// Stop the agent in order when the app stops. If the app crashes, the agent notices and stops by itself.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => agent.kill('SIGTERM'))
