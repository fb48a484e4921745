// A small cache service in front of Azurite, Microsoft's emulator of Azure's storage, and a command that is run
// against it: node azurite.mjs COMMAND ARGS...
//
// Signed URLs are made by Azure's own library with the emulator's well-known account. Every token is a
// repository of its own.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import {
  BlobSASPermissions, BlobServiceClient, ContainerSASPermissions, StorageSharedKeyCredential,
  generateBlobSASQueryParameters
} from '@azure/storage-blob'

const ACCOUNT = 'devstoreaccount1'
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
const CONTAINER = 'actions-cache'

const azurite = spawn(process.execPath, [
  'node_modules/azurite/dist/src/blob/main.js', '--inMemoryPersistence', '--extentMemoryLimit', '2048',
  '--blobHost', '127.0.0.1', '--blobPort', '0', '--skipApiVersionCheck', '--silent', '--disableTelemetry'
], { stdio: ['ignore', 'pipe', 'inherit'] })
process.on('exit', () => azurite.kill())
let storage
for await (const line of createInterface({ input: azurite.stdout })) {
  storage = /successfully listens on (http:\S+)/.exec(line)?.[1]
  if (storage) break
}
assert.ok(storage, 'azurite did not start')
azurite.stdout.resume()
const credential = new StorageSharedKeyCredential(ACCOUNT, KEY)
const container = new BlobServiceClient(`${storage}/${ACCOUNT}`, credential).getContainerClient(CONTAINER)
await container.create()
// For the depots of `az:` URLs, a container of their own.
const DEPOT = 'depot'
await new BlobServiceClient(`${storage}/${ACCOUNT}`, credential).getContainerClient(DEPOT).create()
const depotToken = generateBlobSASQueryParameters({
  containerName: DEPOT,
  permissions: ContainerSASPermissions.parse('racwdl'),
  startsOn: new Date(Date.now() - 5000),
  expiresOn: new Date(Date.now() + 60 * 60000)
}, credential)

const signed = (blobName, permissions, minutes) => {
  const now = Date.now()
  const parameters = generateBlobSASQueryParameters({
    containerName: CONTAINER,
    blobName,
    permissions: BlobSASPermissions.parse(permissions),
    startsOn: new Date(now - 5000),
    expiresOn: new Date(now + minutes * 60000)
  }, credential)
  return `${container.getBlobClient(blobName).url}?${parameters}`
}

const entries = []
const find = (token, { key, version }) =>
  entries.find(entry => entry.token === token && entry.key === key && entry.version === version)
const methods = {
  CreateCacheEntry(token, request) {
    if (find(token, request)) return [409, { code: 'already_exists', msg: 'it exists' }]
    const blob = `${entries.length}-entry`
    entries.push({ token, ...request, blob, final: false })
    return [200, { ok: true, signed_upload_url: signed(blob, 'cw', 60) }]
  },
  async FinalizeCacheEntryUpload(token, request) {
    const entry = find(token, request)
    if (!entry) return [404, { code: 'not_found', msg: 'no such entry' }]
    const { contentLength } = await container.getBlobClient(entry.blob).getProperties()
    if (Number(request.size_bytes) !== contentLength) return [400, { code: 'invalid_argument', msg: 'size' }]
    entry.final = true
    return [200, { ok: true, entry_id: '1' }]
  },
  GetCacheEntryDownloadURL(token, { key, restore_keys, version }) {
    const seen = entries.filter(entry => entry.token === token && entry.version === version && entry.final)
    for (const asked of [key, ...restore_keys]) {
      const entry = seen.find(entry => entry.key === asked) ??
        seen.findLast(entry => entry.key.startsWith(asked))
      if (entry) {
        return [200, { ok: true, signed_download_url: signed(entry.blob, 'r', 10), matched_key: entry.key }]
      }
    }
    return [200, { ok: false }]
  }
}
const server = createServer(async (request, response) => {
  let body = ''
  for await (const chunk of request) body += chunk
  let answer = [404, { code: 'bad_route', msg: request.url }]
  try {
    const method = methods[/^\/twirp\/github\.actions\.results\.api\.v1\.CacheService\/(\w+)$/.exec(request.url)?.[1]]
    if (method) answer = await method(request.headers.authorization, JSON.parse(body))
  } catch (error) {
    answer = [500, { code: 'internal', msg: String(error) }]
  }
  response.writeHead(answer[0], { 'content-type': 'application/json' })
  response.end(JSON.stringify(answer[1]))
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')

const child = spawn(process.argv[2], process.argv.slice(3), {
  stdio: 'inherit',
  env: {
    ...process.env,
    PHOENIX_AZURITE_RESULTS_URL: `http://127.0.0.1:${server.address().port}`,
    PHOENIX_AZURITE_DEPOT_ENDPOINT: `${storage}/${ACCOUNT}`,
    PHOENIX_AZURITE_DEPOT_ACCOUNT_NAME: ACCOUNT,
    PHOENIX_AZURITE_DEPOT_ACCOUNT_KEY: KEY,
    PHOENIX_AZURITE_DEPOT_SAS_TOKEN: `${depotToken}`
  }
})
const [code] = await once(child, 'exit')
process.exit(code ?? 1)
