// Small plots: the last samples of one or two series, as lines over soft areas, in an SVG that is there.
//
// A plot knows neither time nor units: one sample is one step, and whoever draws says what the greatest
// value means. The colours are the style sheet's.

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 100

export const element = (name, attributes = {}) => {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

// The next of 1, 2, 5, 10, 20, 50 ... units at or above a value, so that the scale does not tremble.
const above = (value, base) => {
  const unit = base === 1 || value < 1 ? 1 : base ** Math.floor(Math.log(value) / Math.log(base))
  const power = unit * 10 ** Math.floor(Math.log10(value / unit))
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= value * 0.999)
}

export class Plot {
  // svg: where to draw; length: samples kept; least: the smallest value that the full height may mean;
  // names: of the series, as classes; base: of the units of what is shown, 1024 for bytes; say: turns the
  // top of the scale into text, if it is to be shown.
  constructor (svg, { length = 180, least = 1, names = ['only'], base = 1, say = null } = {}) {
    this.length = length
    this.least = least
    this.base = base
    this.say = say
    this.series = names.map(() => [])
    this.svg = svg
    svg.setAttribute('viewBox', `0 0 ${length - 1} ${HEIGHT}`)
    svg.setAttribute('preserveAspectRatio', 'none')
    this.shapes = names.map(name => {
      const area = element('path', { class: `area ${name}` })
      const line = element('path', { class: `line ${name}` })
      svg.append(area, line)
      return { area, line }
    })
  }

  add (...values) {
    values.forEach((value, index) => {
      const samples = this.series[index]
      samples.push(Number.isFinite(value) ? Math.max(value, 0) : 0)
      if (samples.length > this.length) samples.shift()
    })
  }

  get top () {
    return above(Math.max(this.least, ...this.series.flat()), this.base)
  }

  draw (label) {
    const top = this.top
    this.series.forEach((samples, index) => {
      const { area, line } = this.shapes[index]
      const first = this.length - samples.length
      const points = samples.map((value, at) => `${first + at} ${(HEIGHT * (1 - value / top * 0.94)).toFixed(1)}`)
      const path = points.length > 1 ? `M${points.join('L')}` : ''
      line.setAttribute('d', path)
      area.setAttribute('d', path && `${path}V${HEIGHT}H${first}Z`)
    })
    this.svg.setAttribute('aria-label', label)
    if (this.say !== null) this.svg.parentElement.dataset.top = this.say(top)
  }
}

// What grows, as its growth a second; a relay that was started anew begins at nothing.
export class Rate {
  #last = null
  #at = 0

  next (total, now) {
    const last = this.#last
    const seconds = now - this.#at
    this.#last = total
    this.#at = now
    return last === null || seconds <= 0 ? 0 : Math.max(total - last, 0) / seconds
  }
}
