// The cursors and selections of the others in the text, and ours for them.
//
// y-codemirror.next has a plugin for this. Ours uses the same format (a "cursor" field with relative
// positions), so users of both see each other. It draws classes of a palette instead of style attributes
// from messages, and shows a name only while its cursor moves.

import { Annotation, RangeSet } from "@codemirror/state"
import { Decoration, EditorView, ViewPlugin, WidgetType } from "@codemirror/view"
import * as Y from "yjs"
import { personFrom } from "./people.js"

const othersMoved = Annotation.define()

class Caret extends WidgetType {
  constructor(person, stamp) {
    super()
    this.person = person
    this.stamp = stamp
  }

  eq(other) {
    const { name, hue } = this.person
    return other.stamp === this.stamp && other.person.name === name && other.person.hue === hue
  }

  toDOM() {
    const caret = document.createElement("span")
    caret.className = `caret hue-${this.person.hue}`
    caret.setAttribute("aria-hidden", "true")
    const name = document.createElement("span")
    name.className = "caret-name"
    name.textContent = this.person.name
    // A word joiner on each side prevents a line break at the caret.
    caret.append("\u2060", name, "\u2060")
    return caret
  }

  ignoreEvent() {
    return true
  }
}

class Cursors {
  constructor(view, text, awareness) {
    this.view = view
    this.text = text
    this.awareness = awareness
    this.stamps = new Map()
    this.heads = new Map()
    this.decorations = RangeSet.empty
    this.listener = ({ added, updated, removed }) => {
      if ([...added, ...updated, ...removed].some((one) => one !== awareness.clientID)) {
        view.dispatch({ annotations: othersMoved.of(true) })
      }
    }
    awareness.on("change", this.listener)
    this.draw()
  }

  destroy() {
    this.awareness.off("change", this.listener)
  }

  update(update) {
    if (update.selectionSet || update.focusChanged || update.docChanged) this.tell(update.state.selection.main)
    if (update.docChanged || update.transactions.some((one) => one.annotation(othersMoved))) this.draw()
  }

  tell({ anchor, head }) {
    if (!this.view.hasFocus) return
    const cursor = {
      anchor: Y.createRelativePositionFromTypeIndex(this.text, anchor),
      head: Y.createRelativePositionFromTypeIndex(this.text, head),
    }
    const before = this.awareness.getLocalState()?.cursor
    if (JSON.stringify(before) !== JSON.stringify(cursor)) this.awareness.setLocalStateField("cursor", cursor)
  }

  draw() {
    const decorations = []
    this.heads.clear()
    for (const [clientId, state] of this.awareness.getStates()) {
      const range = clientId === this.awareness.clientID ? null : this.rangeOf(state.cursor)
      if (range === null) continue
      const person = personFrom(clientId, state)
      const [from, to] = [Math.min(range.anchor, range.head), Math.max(range.anchor, range.head)]
      if (from < to) decorations.push(Decoration.mark({ class: `chosen hue-${person.hue}` }).range(from, to))
      const side = range.head > range.anchor ? -1 : 1
      const stamp = JSON.stringify(state.cursor)
      decorations.push(Decoration.widget({ side, widget: new Caret(person, stamp) }).range(range.head))
      this.heads.set(clientId, range.head)
    }
    this.decorations = Decoration.set(decorations, true)
  }

  rangeOf(cursor) {
    try {
      const [anchor, head] = [cursor.anchor, cursor.head].map((json) => {
        const position = Y.createRelativePositionFromJSON(json)
        return Y.createAbsolutePositionFromRelativePosition(position, this.text.doc)
      })
      if (anchor.type !== this.text || head.type !== this.text) return null
      const end = this.view.state.doc.length
      return { anchor: Math.min(anchor.index, end), head: Math.min(head.index, end) }
    } catch {
      return null // no cursor, or a cursor in another text
    }
  }
}

/**
 * @param {Y.Text} text
 * @param {import("y-protocols/awareness").Awareness} awareness
 * @return the extension, and a function that scrolls to a client's cursor
 */
export const remoteCursors = (text, awareness) => {
  const plugin = ViewPlugin.define((view) => new Cursors(view, text, awareness), {
    decorations: (cursors) => cursors.decorations,
  })
  const goTo = (view, clientId) => {
    const head = view.plugin(plugin)?.heads.get(clientId)
    if (head !== undefined) view.dispatch({ effects: EditorView.scrollIntoView(head, { y: "center" }) })
  }
  return { extension: plugin, goTo }
}
