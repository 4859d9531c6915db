/** The section about the API over TCP. Where a peer listens that says nothing: `listening.ts`. */
import { z } from 'zod'
import { pathSetting } from './paths.ts'

const path = pathSetting()

export const apiSchema = z.strictObject({
  /**
   * Where browsers and programs reach the API with a token (`diapause tokens new`): an address and a port, or "off". The socket in
   * the run folder is there whatever this says. Absent: 127.0.0.1 and the port of peer.listen + 80, if that is free.
   */
  listen: z
    .string()
    .refine(isPlace)
    .describe('"off", or an address and a port such as "127.0.0.1:7480" or "[::1]:7480"')
    .optional(),
  /** PEM files. They are read again when they have changed, so that a certificate can be renewed without a restart. */
  tls: z.strictObject({ certFile: path, keyFile: path }).optional(),
  /** Beyond this host also without TLS: whoever sees the network sees the tokens. For what ends TLS in front of the peer. */
  plaintext: z.boolean().default(false),
  /** By which browsers may call this peer, beside its addresses, its host's name and those of its certificate. */
  names: z
    .array(
      z
        .string()
        .regex(/^[A-Za-z0-9._-]{1,253}$/)
        .describe('the name of a host')
    )
    .max(20)
    .default([])
})
export type ApiSettings = z.output<typeof apiSchema>

function isPlace(text: string): boolean {
  const at = text.lastIndexOf(':')
  const host = text.slice(0, at)
  const digits = text.slice(at + 1)
  const address = host.startsWith('[') ? z.ipv6().safeParse(host.slice(1, -1)) : z.ipv4().safeParse(host)
  return text === 'off' || (address.success && /^[1-9]\d{0,4}$/.test(digits) && Number(digits) <= 65_535)
}
