/** Pieces of a text that comes in parts, in both forms in which the API streams. Pure. */

/** Text that comes in parts → whole lines. */
export function lineCutter(): (part: string) => string[] {
  let rest = ''
  return part => {
    const lines = (rest + part).split('\n')
    rest = lines.pop() ?? ''
    return lines.map(line => (line.endsWith('\r') ? line.slice(0, -1) : line))
  }
}

export interface ServerSent {
  readonly id: string | undefined
  readonly data: string
}

/** Lines of an event stream (WHATWG HTML, section 9.2.6) → its messages; comments, which keep it alive, give none. */
export function serverSentReader(): (line: string) => ServerSent | undefined {
  let data: string[] = []
  let id: string | undefined
  return line => {
    if (line === '') {
      const message = data.length === 0 ? undefined : { id, data: data.join('\n') }
      data = []
      return message
    }
    const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? []
    if (field === 'data') data.push(value)
    else if (field === 'id') id = value
    return undefined
  }
}
