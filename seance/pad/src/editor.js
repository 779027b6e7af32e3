// The text field: CodeMirror bound to the shared text, with some Markdown formatting.

import { defaultKeymap } from "@codemirror/commands"
import { insertNewlineContinueMarkup, markdownLanguage } from "@codemirror/lang-markdown"
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language"
import { EditorState, Prec } from "@codemirror/state"
import { EditorView, keymap, placeholder } from "@codemirror/view"
import { tags } from "@lezer/highlight"
import { StyleModule } from "style-mod"
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next"

// CodeMirror writes its rules into a <style> element, which the page's content security policy forbids: it
// allows one style by hash. A style sheet that a script constructs is not markup and is allowed.
const sheet = new CSSStyleSheet()
document.adoptedStyleSheets = [sheet]
StyleModule.mount = (_root, modules) => {
  sheet.replaceSync([modules].flat().map((module) => module.getRules()).join("\n"))
}

const looks = HighlightStyle.define([
  { tag: tags.heading1, class: "md-h1" },
  { tag: tags.heading2, class: "md-h2" },
  { tag: [tags.heading3, tags.heading4, tags.heading5, tags.heading6], class: "md-h3" },
  { tag: tags.strong, class: "md-strong" },
  { tag: tags.emphasis, class: "md-em" },
  { tag: tags.strikethrough, class: "md-strike" },
  { tag: tags.monospace, class: "md-code" },
  { tag: [tags.link, tags.url], class: "md-link" },
  { tag: tags.quote, class: "md-quote" },
  { tag: [tags.processingInstruction, tags.contentSeparator], class: "md-sign" },
])

/**
 * @param {HTMLElement} parent
 * @param {import("yjs").Text} text
 * @param {import("@codemirror/state").Extension} cursors
 */
export const makeEditor = (parent, text, cursors) => {
  const state = EditorState.create({
    doc: text.toString(),
    extensions: [
      // Positions in the shared text count "\r\n" as two characters, so CodeMirror must do the same.
      EditorState.lineSeparator.of("\n"),
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({
        "aria-label": "Shared text",
        spellcheck: "true",
        autocorrect: "on",
        autocapitalize: "sentences",
      }),
      placeholder("Write here. Everyone with the link sees the text as you type."),
      markdownLanguage,
      syntaxHighlighting(looks),
      yCollab(text, null),
      cursors,
      Prec.high(keymap.of([{ key: "Enter", run: insertNewlineContinueMarkup }])),
      keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
    ],
  })
  return new EditorView({ state, parent })
}
