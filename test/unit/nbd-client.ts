/** What NBD clients say, byte by byte; written from the protocol's document and not from `node/nbd`. */

type Part = string | Uint8Array | readonly [bytes: 2 | 4 | 8, value: number | bigint]

export const bytesOf = (...parts: readonly Part[]): Buffer =>
  Buffer.concat(
    parts.map(part => {
      if (typeof part === 'string' || part instanceof Uint8Array) return Buffer.from(part)
      const [bytes, value] = part
      return Buffer.from(
        BigInt(value)
          .toString(16)
          .padStart(2 * bytes, '0'),
        'hex'
      )
    })
  )

const text = (value: string): Buffer => bytesOf([4, Buffer.byteLength(value)], value)

/** Fixed newstyle, no zeroes. */
export const hello = (flags = 3): Buffer => bytesOf([4, flags])

export const option = (number: number, data: Uint8Array = new Uint8Array(0)): Buffer =>
  bytesOf('IHAVEOPT', [4, number], [4, data.length], data)

export const structured = (): Buffer => option(8)
export const list = (): Buffer => option(3)
export const go = (name: string, infos: readonly number[] = [], number = 7): Buffer =>
  option(number, bytesOf(text(name), [2, infos.length], ...infos.map((info): Part => [2, info])))
export const meta = (name: string, queries: readonly string[], number = 10): Buffer =>
  option(number, bytesOf(text(name), [4, queries.length], ...queries.map(text)))

export const request = (
  command: number,
  {
    offset = 0,
    length = 0,
    flags = 0,
    cookie = 77
  }: { offset?: number; length?: number; flags?: number; cookie?: number }
): Buffer => bytesOf([4, 0x25609513], [2, flags], [2, command], [8, cookie], [8, offset], [4, length])

/** One that chooses disk `name`, with or without structured replies and block status. */
export const opening = (name: string, all = true): Buffer =>
  Buffer.concat([hello(), ...(all ? [structured(), meta(name, ['base:allocation'])] : []), go(name, [3])])

export interface OptionAnswer {
  readonly option: number
  readonly type: number
  readonly data: Buffer
}

/** The answers to options, behind the greeting. Throws where they are none. */
export function optionAnswers(bytes: Uint8Array): OptionAnswer[] {
  const buffer = Buffer.from(bytes)
  const answers: OptionAnswer[] = []
  for (let at = 0; at < buffer.length; ) {
    if (buffer.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`no answer to an option at ${at}`)
    const length = buffer.readUInt32BE(at + 16)
    const data = buffer.subarray(at + 20, at + 20 + length)
    if (data.length !== length) throw new Error('an answer is cut off')
    answers.push({ option: buffer.readUInt32BE(at + 8), type: buffer.readUInt32BE(at + 12), data })
    at += 20 + length
  }
  return answers
}
