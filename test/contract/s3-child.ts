/** An S3 server in a process of its own, which can be killed: `node s3-child.ts FOLDER PORT`. Prints its port when it listens. */
import { createRequire } from 'node:module'
import { BUCKET, type ServerClass } from './s3-server.ts'

const S3rver = createRequire(import.meta.url)('@20minutes/s3rver') as ServerClass
const [, , directory = '', port = '0'] = process.argv
const options = { address: '127.0.0.1', directory, silent: true, configureBuckets: [{ name: BUCKET }] }
const server = new S3rver({ ...options, port: Number(port) })
process.stdout.write(`${(await server.run()).port}\n`)
