/** What names objects may have, so that each is the same object in a bucket and in a directory. Pure. */

const PART = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}$/
/** S3 allows 1,024. */
const MAX_NAME_BYTES = 900

/** What else lies in a bucket or folder (`.DS_Store`, `@eaDir`, markers of folders) is not ours. */
export const isName = (name: string): boolean =>
  name.length <= MAX_NAME_BYTES && name.split('/').every(part => PART.test(part))

/** TypeError for anything else: names are made by this program. */
export function checkName(name: string): void {
  if (!isName(name)) throw new TypeError(`${JSON.stringify(name)} is no name of an object`)
}
