/** An S3 server of its own for a test: files in a folder behind HTTP, which checks signatures. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** What of it is used: it comes without types. */
interface Server {
  run(): Promise<{ port: number }>
  close(): Promise<void>
}
export type ServerClass = new (options: {
  port: number
  address: string
  directory: string
  silent: boolean
  configureBuckets: { name: string }[]
}) => Server

export const BUCKET = 'epochs'
/** The only account that the server knows. */
export const CREDENTIALS = { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' }

export class S3Server {
  readonly endpoint: string
  /** What it stores. */
  readonly directory: string
  readonly #server: Server

  private constructor(server: Server, endpoint: string, directory: string) {
    this.#server = server
    this.endpoint = endpoint
    this.directory = directory
  }

  static async start(): Promise<S3Server> {
    const S3rver = createRequire(import.meta.url)('@20minutes/s3rver') as ServerClass
    const directory = await mkdtemp(join(tmpdir(), 'diapause-s3-'))
    const buckets = [{ name: BUCKET }]
    const server = new S3rver({ port: 0, address: '127.0.0.1', directory, silent: true, configureBuckets: buckets })
    const { port } = await server.run()
    return new S3Server(server, `http://127.0.0.1:${port}`, directory)
  }

  url(prefix: string): string {
    return `s3://${BUCKET}/${prefix}?endpoint=${this.endpoint}`
  }

  async stop(): Promise<void> {
    await this.#server.close()
    await rm(this.directory, { recursive: true, force: true })
  }
}
