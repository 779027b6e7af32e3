// Formats numbers for display.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

const short = (value, digits) => {
  const text = value.toFixed(digits)
  return digits > 0 ? text.replace(/\.?0+$/, '') : text
}

export const bytes = count => {
  let size = Math.max(count, 0)
  let unit = 0
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1024
    unit += 1
  }
  return `${short(size, unit === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2)} ${UNITS[unit]}`
}

export const rate = perSecond => `${bytes(Math.round(perSecond))}/s`

export const count = value => Math.round(value).toLocaleString('en')

export const milliseconds = seconds => {
  const ms = seconds * 1000
  if (ms >= 10000) return `${short(seconds, 1)} s`
  return `${short(ms, ms >= 100 ? 0 : ms >= 10 ? 1 : 2)} ms`
}

export const span = seconds => {
  const whole = Math.floor(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min`
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`
}

export const many = (value, one, more = `${one}s`) => `${count(value)} ${value === 1 ? one : more}`

export const clock = date => date.toLocaleTimeString('en-GB')
