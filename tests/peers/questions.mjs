// How a test drives a Node process: one JSON object a line in ({"id", "do", ...}), one a line out
// ({"id", "ok"} or {"id", "error"}). The process ends when its standard input does.

import { createInterface } from 'node:readline'

export const until = async (what, seconds, holds) => {
  const start = performance.now()
  while (!holds()) {
    if (performance.now() - start > seconds * 1000) throw new Error(`after ${seconds} s still not: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  return { ms: Math.round(performance.now() - start) }
}

const say = answer => process.stdout.write(`${JSON.stringify(answer)}\n`)

export const serve = answers => {
  createInterface({ input: process.stdin }).on('line', async line => {
    const { id, do: question, ...rest } = JSON.parse(line)
    try {
      say({ id, ok: (await answers[question](rest)) ?? null })
    } catch (error) {
      say({ id, error: String(error) })
    }
  }).on('close', () => process.exit(0))
  say({ ready: true })
}
