// Our name and colour, and the list of the others.
//
// Colours are classes of a small palette (.hue-0 ... in pad.css) and not values: they suit light and dark
// pages and have enough contrast for a name, and the content security policy forbids style attributes.

export const hues = ["#b5305f", "#7247c4", "#1d66b8", "#0c7078", "#2d7533", "#8f5a00", "#b83a26", "#4d53c2"]

const first = ["Amber", "Quiet", "Silver", "Gentle", "Misty", "Velvet", "Lunar", "Mossy", "Coral", "Ivory", "Wandering", "Distant"]
const second = ["Otter", "Heron", "Moth", "Lynx", "Wren", "Fox", "Owl", "Hare", "Raven", "Badger", "Sparrow", "Newt"]

const anyOf = (list) => list[crypto.getRandomValues(new Uint32Array(1))[0] % list.length]

const memory = {
  get: (key) => {
    try {
      return localStorage.getItem(`seance.${key}`)
    } catch {
      return null
    }
  },
  set: (key, value) => {
    try {
      localStorage.setItem(`seance.${key}`, value)
    } catch {
      // Without storage, the name is lost when the page is closed.
    }
  },
}

const cleanName = (name) => (typeof name === "string" ? name.replace(/\s+/g, " ").trim().slice(0, 32) : "")

/** Return the name and colour of another editor, checked, because its state may hold anything. */
export const personFrom = (clientId, state) => {
  const user = state?.user ?? {}
  const hue = Number.isInteger(user.hue) ? Math.abs(user.hue) : clientId
  const since = Number.isFinite(user.since) ? user.since : 0
  return { clientId, name: cleanName(user.name) || "Anonymous", hue: hue % hues.length, since }
}

const peopleIn = (awareness, including) =>
  [...awareness.getStates()]
    .filter(([clientId]) => including || clientId !== awareness.clientID)
    .map(([clientId, state]) => personFrom(clientId, state))

/** Publish our name and colour, let the user edit the name, and change a colour that another had first. */
export const introduceMe = (awareness, input, swatch) => {
  let name = cleanName(memory.get("name")) || `${anyOf(first)} ${anyOf(second)}`
  let hue = Number(memory.get("hue") ?? anyOf([...hues.keys()])) % hues.length || 0
  const since = Date.now()

  const tell = () => {
    awareness.setLocalStateField("user", { name, hue, since, color: hues[hue], colorLight: `${hues[hue]}33` })
    swatch.className = `swatch hue-${hue}`
  }
  const rename = () => {
    name = cleanName(input.value) || name
    input.value = name
    memory.set("name", name)
    tell()
  }
  awareness.on("change", () => {
    const others = peopleIn(awareness, false)
    const taken = new Set(others.map((person) => person.hue))
    const wasFirst = (person) => (person.since - since || person.clientId - awareness.clientID) < 0
    const mustYield = others.some((person) => person.hue === hue && wasFirst(person))
    const free = [...hues.keys()].filter((one) => !taken.has(one))
    if (mustYield && free.length > 0) {
      hue = free[awareness.clientID % free.length]
      tell()
    }
  })
  input.value = name
  input.addEventListener("change", rename)
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "Escape") input.blur()
  })
  memory.set("name", name)
  memory.set("hue", hue)
  tell()
}

const shown = 5

/** Show the others and the number of people; a click on a name goes to its cursor. */
export const showPeople = (awareness, list, count, goTo) => {
  let before = ""
  const show = () => {
    const others = peopleIn(awareness, false).sort((one, other) => one.clientId - other.clientId)
    const now = JSON.stringify(others)
    if (now === before) return
    before = now
    count.textContent = others.length === 0 ? "just you" : `${others.length + 1} people`
    list.replaceChildren(...others.slice(0, shown).map((person) => item(person, goTo)))
    if (others.length > shown) {
      const more = document.createElement("li")
      more.className = "more"
      more.textContent = `+${others.length - shown}`
      more.title = others.slice(shown).map((person) => person.name).join(", ")
      list.append(more)
    }
  }
  awareness.on("change", show)
  show()
}

const item = (person, goTo) => {
  const button = document.createElement("button")
  button.type = "button"
  button.className = `face hue-${person.hue}`
  button.textContent = [...person.name][0].toUpperCase()
  button.title = person.name
  button.setAttribute("aria-label", `Go to ${person.name}’s cursor`)
  button.addEventListener("click", () => goTo(person.clientId))
  const entry = document.createElement("li")
  entry.append(button)
  return entry
}
