// How a test controls a Node process: it writes one JSON object per line ({"id", "do", ...}) and gets one per line
// ({"id", "ok"} or {"id", "error"}). The process ends with its standard input.

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
