/**
 * XML of a stranger as a tree of elements. What a definition of a VM has no need of is refused: a document type, with which
 * entities and files of the host come. Pure.
 */
import { XMLParser, XMLValidator } from 'fast-xml-parser'
import { UsageError } from '../../errors.ts'

/** The largest that libvirt's own tests have is 60 KB. A guess. */
export const MAX_FILE_CHARACTERS = 1 << 20
/** Of elements in elements. A guess; libvirt's own are below 12. */
const MAX_DEPTH = 64

export interface Element {
  /** With its prefix, if any. */
  readonly name: string
  readonly attributes: Readonly<Record<string, string>>
  readonly children: readonly Element[]
  /** Of the element itself, without space around it. */
  readonly text: string
}

/** The root. UsageError ADOPT_XML. */
export function parseXml(text: string): Element {
  if (text.length > MAX_FILE_CHARACTERS) throw invalid(`it has more than ${MAX_FILE_CHARACTERS} characters`)
  if (/<!\s*(DOCTYPE|ENTITY)/i.test(text)) throw invalid('it has a document type, which a VM has no need of: remove it')
  const depth = depthOf(text)
  if (depth > MAX_DEPTH) throw invalid(`it has elements in elements more than ${MAX_DEPTH} deep`)
  try {
    const checked = XMLValidator.validate(text, { allowBooleanAttributes: false })
    if (checked !== true) throw invalid(`line ${checked.err.line}: ${checked.err.msg}`)
    const nodes: unknown = parser.parse(text)
    const [root] = elementsOf(nodes)
    if (root === undefined) throw invalid('there is no element in it')
    return root
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw invalid(cause instanceof Error ? cause.message : String(cause), cause)
  }
}

export const childrenOf = (element: Element | undefined, name: string): Element[] =>
  element?.children.filter(child => child.name === name) ?? []

export const childOf = (element: Element | undefined, name: string): Element | undefined =>
  element?.children.find(child => child.name === name)

export const attributeOf = (element: Element | undefined, name: string): string | undefined =>
  element !== undefined && Object.hasOwn(element.attributes, name) ? element.attributes[name] : undefined

const ATTRIBUTES = ':@'
const TEXT = '#text'

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  processEntities: false,
  ignoreDeclaration: true,
  ignorePiTags: true
})

/** Opened and not closed at the same time, roughly: before anything recurses into the text. */
function depthOf(text: string): number {
  let depth = 0
  let deepest = 0
  for (const [, closes, , empty] of text.matchAll(/<(\/?)([a-zA-Z_][^\s/>]*)(?:[^<>"']|"[^"]*"|'[^']*')*?(\/?)>/g)) {
    if (closes) depth--
    else if (!empty) deepest = Math.max(deepest, ++depth)
  }
  return deepest
}

function elementsOf(nodes: unknown): Element[] {
  if (!Array.isArray(nodes)) return []
  return nodes.flatMap((node: unknown): Element[] => {
    if (!isRecord(node)) return []
    const name = Object.keys(node).find(key => key !== ATTRIBUTES && key !== TEXT)
    if (name === undefined) return []
    const inside = node[name]
    return [{ name, attributes: attributesIn(node[ATTRIBUTES]), children: elementsOf(inside), text: textIn(inside) }]
  })
}

function attributesIn(raw: unknown): Record<string, string> {
  if (!isRecord(raw)) return {}
  return Object.fromEntries(Object.entries(raw).map(([name, value]) => [name, decoded(String(value))]))
}

function textIn(nodes: unknown): string {
  if (!Array.isArray(nodes)) return ''
  const texts = nodes.map((node: unknown) => (isRecord(node) && TEXT in node ? String(node[TEXT]) : ''))
  return decoded(texts.join('')).trim()
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** The five entities that XML itself has, and characters by their number. */
function decoded(text: string): string {
  return text.replaceAll(/&(?:(amp|lt|gt|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));/g, (all, name, decimal, hex) => {
    if (name !== undefined) return NAMED[String(name)] ?? String(all)
    const code = decimal === undefined ? parseInt(String(hex), 16) : Number(decimal)
    return code <= 0x10ffff ? String.fromCodePoint(code) : String(all)
  })
}

function invalid(why: string, cause?: unknown): UsageError {
  return new UsageError('ADOPT_XML', `this is no XML that can be read: ${why}`, { cause })
}
