/** A box to type into that leaves out what does not fit. */
export const Filter = ({ label, text, setText }: { label: string; text: string; setText: (text: string) => void }) => (
  <input
    class="filter"
    type="search"
    aria-label={label}
    placeholder={label}
    value={text}
    onInput={event => setText(event.currentTarget.value)}
  />
)

/** Every word of `text` is in one of `fields`. */
export function fits(text: string, fields: readonly (string | undefined)[]): boolean {
  const words = text.toLowerCase().split(/\s+/)
  const all = fields.join(' ').toLowerCase()
  return words.every(word => all.includes(word))
}
