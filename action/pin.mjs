// Pins the actions to a release: `node action/pin.mjs VERSION FOLDER`, with the programs as FOLDER/phoenix-MACHINE.
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const [version, folder] = process.argv.slice(2)
if (!/^\d+\.\d+\.\d+$/.test(version ?? '') || !folder) throw new Error('usage: node action/pin.mjs VERSION FOLDER')
const file = new URL('release.json', import.meta.url)
const release = JSON.parse(readFileSync(file, 'utf8'))
const programs = readdirSync(folder).filter((name) => name.startsWith('phoenix-')).sort()
if (programs.length === 0) throw new Error(`there is no phoenix-MACHINE in ${folder}`)
const sha256 = (name) => createHash('sha256').update(readFileSync(join(folder, name))).digest('hex')
release.version = version
release.sha256 = Object.fromEntries(programs.map((name) => [name.slice('phoenix-'.length), sha256(name)]))
writeFileSync(file, `${JSON.stringify(release, null, 2)}\n`)
