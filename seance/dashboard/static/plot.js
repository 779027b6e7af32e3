// Small plots: the last samples of one or two series, as lines and areas in an existing SVG element.
// One sample is one step on the x axis. The style sheet sets the colours.

const SVG = 'http://www.w3.org/2000/svg'
const HEIGHT = 100

export const element = (name, attributes = {}) => {
  const made = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

// Rounds up to 1, 2, 5, 10, 20, 50 ... units, so that the scale rarely changes.
const above = (value, base) => {
  const unit = base === 1 || value < 1 ? 1 : base ** Math.floor(Math.log(value) / Math.log(base))
  const power = unit * 10 ** Math.floor(Math.log10(value / unit))
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= value * 0.999)
}

export class Plot {
  // svg: the element; length: number of samples; least: smallest value of the full height; names: CSS classes
  // of the series; base: base of the unit prefixes, 1024 for bytes; format: formats the top of the scale, which
  // is not shown without it.
  constructor (svg, { length = 180, least = 1, names = ['only'], base = 1, format = null } = {}) {
    this.length = length
    this.least = least
    this.base = base
    this.format = format
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
    if (this.format !== null) this.svg.parentElement.dataset.top = this.format(top)
  }
}

// Computes a rate per second from a growing total. A total that has decreased (a restarted relay) gives 0.
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
