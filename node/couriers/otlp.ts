/**
 * Spans to an OpenTelemetry collector: OTLP over HTTP as JSON (opentelemetry-proto, docs/specification.md: ids in hex, 64-bit
 * numbers as texts). Written here because that is a page, and the exporter's own packages bring a tracer that this has no use for.
 */
import type { TraceSettings } from '../../config/traces.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Span, SpanSink } from '../ports.ts'
import { readSecret } from './secret.ts'

/** A collector that has not answered in so long has not taken them. OTEL_EXPORTER_OTLP_TIMEOUT's default. */
const TIMEOUT_MS = 10_000
/** opentelemetry-proto, trace.proto: SPAN_KIND_INTERNAL, STATUS_CODE_ERROR. */
const INTERNAL = 1
const ERROR = 2

export interface TracingPeer {
  readonly name: string
  readonly id: string
  readonly cluster: string
  readonly version: string
}

export function otlpSink({ endpoint, tokenFile }: TraceSettings, peer: TracingPeer): SpanSink {
  const url = new URL(endpoint)
  return {
    async send(spans, signal) {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)])
      const token = tokenFile === undefined ? {} : { authorization: `Bearer ${await tokenOf(tokenFile)}` }
      const headers = { 'content-type': 'application/json', 'user-agent': 'diapause', ...token }
      const body = JSON.stringify(exportRequest(spans, peer))
      let response: Response
      try {
        response = await fetch(url, { method: 'POST', headers, body, redirect: 'manual', signal: limit })
      } catch {
        throw failed(`${url.host} cannot be reached`)
      }
      await response.body?.cancel().catch(() => {})
      const { status } = response
      if (status < 200 || status > 299)
        throw new DiapauseError(codeOf(status), `${NOT_TAKEN}: ${url.host} answered ${status}`)
    }
  }
}

const NOT_TAKEN = 'traces were not taken'
const failed = (why: string): DiapauseError => new DiapauseError('TRACES_FAILED', `${NOT_TAKEN}: ${why}`)

/** OTLP has a client drop what was refused; 408 and 429 are of the moment (opentelemetry-proto, docs/specification.md: Failures). */
export function codeOf(status: number): 'TRACES_FAILED' | 'TRACES_REFUSED' | 'TRACES_TOO_LARGE' {
  if (status === 413) return 'TRACES_TOO_LARGE'
  return status >= 400 && status < 500 && status !== 408 && status !== 429 ? 'TRACES_REFUSED' : 'TRACES_FAILED'
}

async function tokenOf(file: string): Promise<string> {
  try {
    return await readSecret(file)
  } catch (error) {
    throw failed(messageOf(error))
  }
}

function exportRequest(spans: readonly Span[], { name, id, cluster, version }: TracingPeer): object {
  const resource = {
    'service.name': 'diapause',
    'service.version': version,
    'service.namespace': cluster,
    'service.instance.id': id,
    'host.name': name
  }
  return {
    resourceSpans: [
      {
        resource: { attributes: attributesOf(resource) },
        scopeSpans: [{ scope: { name: 'diapause', version }, spans: spans.map(spanOf) }]
      }
    ]
  }
}

function spanOf({ traceId, spanId, parentSpanId, name, startMs, endMs, attributes, error }: Span): object {
  return {
    traceId,
    spanId,
    ...(parentSpanId === undefined ? {} : { parentSpanId }),
    name,
    kind: INTERNAL,
    startTimeUnixNano: nanos(startMs),
    endTimeUnixNano: nanos(endMs),
    attributes: attributesOf(attributes),
    ...(error === undefined ? {} : { status: { code: ERROR, message: error } })
  }
}

const attributesOf = (attributes: Span['attributes']): object[] =>
  Object.entries(attributes).map(([key, value]) => ({ key, value: valueOf(value) }))

function valueOf(value: string | number | boolean): object {
  if (typeof value === 'string') return { stringValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  return Number.isSafeInteger(value) ? { intValue: `${value}` } : { doubleValue: value }
}

/** Microseconds are what a double of milliseconds since 1970 still tells apart. */
const nanos = (ms: number): string => `${BigInt(Math.round(ms * 1_000)) * 1_000n}`
