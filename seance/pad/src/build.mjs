// Builds ../pad.html: the page, its style and its script in one file without references to others.
//
//   npm ci && node build.mjs           write the file
//   npm ci && node build.mjs --check   check that the file is the result of these sources
//
// The result contains code of other projects, so it ends with their names and licences.

import { build } from "esbuild"
import { readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { Script } from "node:vm"

const here = dirname(fileURLToPath(import.meta.url))
const target = join(here, "..", "pad.html")
const limit = 600_000

const bundle = async (entry, options = {}) => {
  const result = await build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    charset: "utf8",
    legalComments: "none",
    target: ["es2022", "safari16.4"],
    ...options,
  })
  const [{ inputs }] = Object.values(result.metafile.outputs)
  return {
    text: result.outputFiles[0].text.trim(),
    inputs: Object.keys(inputs).filter((path) => inputs[path].bytesInOutput > 0),
  }
}

const packagesOf = (inputs) => {
  const names = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
  return [...new Set(names.filter(Boolean))].sort()
}

const notice = (inputs) => {
  const texts = new Map()
  for (const name of packagesOf(inputs)) {
    const { version, license } = JSON.parse(readFileSync(join(here, "node_modules", name, "package.json")))
    const text = readFileSync(join(here, "node_modules", name, "LICENSE"), "utf8").trim()
    const [, copyright, terms] = /(Copyright.*?)(Permission is hereby granted.*)/s.exec(text.replace(/\s+/g, " ")) ?? []
    if (license !== "MIT" || !copyright) throw new Error(`check the licence of ${name}: it is not MIT, or its text has another form`)
    texts.set(terms, [...(texts.get(terms) ?? []), `${name} ${version}: ${copyright.trim()}`])
  }
  const parts = [...texts].map(([terms, users]) => `${users.join("\n")}\n\n${terms}`)
  const notice = `This page contains, under the MIT licence:\n\n${parts.join("\n\n")}`
  if (notice.includes("--")) throw new Error("a licence would end its comment")
  return `<!--\n${notice}\n-->`
}

const script = await bundle("pad.js", { format: "iife" })
const style = await bundle("pad.css")
// "<!--" in a script starts a comment in HTML. It occurs only in string and regular expression literals;
// otherwise Script fails to compile the result. esbuild escapes "</script".
const code = script.text.replaceAll("<!--", "\\x3C!--")
new Script(code)
const parts = { style: style.text, script: code, notice: notice(script.inputs) }
const page = readFileSync(join(here, "pad.html"), "utf8").replace(/\{\{(\w+)\}\}/g, (_, name) => parts[name])
if (page.length > limit) throw new Error(`the page has ${page.length} bytes, more than ${limit}`)

if (process.argv.includes("--check")) {
  const same = readFileSync(target, "utf8") === page
  console.log(same ? "pad.html is up to date" : "pad.html differs from its sources: run node build.mjs")
  process.exitCode = same ? 0 : 1
} else {
  writeFileSync(target, page)
  console.log(`pad.html: ${Buffer.byteLength(page)} bytes`)
}
