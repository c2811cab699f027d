// Encrypts and decrypts with AWS's library on request: one JSON object per line in, one out.
//
// In:  {operation, keyring, input (base64), context?, suiteId?, frameLength?}
// Out: {output (base64), context?} or {error}
import {
  AlgorithmSuiteIdentifier,
  buildClient,
  CommitmentPolicy,
  KmsKeyringNode,
  RawAesKeyringNode,
  RawAesWrappingSuiteIdentifier,
} from '@aws-crypto/client-node'
import { KMS } from '@aws-sdk/client-kms'
import { createInterface } from 'node:readline'

const { encrypt, decrypt } = buildClient(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)

function keyringOf(settings) {
  if (settings.kind === 'kms') {
    const { endpoint, accessKeyId, secretAccessKey } = settings
    const clientProvider = (region) => new KMS({ region, endpoint, credentials: { accessKeyId, secretAccessKey } })
    return new KmsKeyringNode({ generatorKeyId: settings.keyArn, clientProvider })
  }
  const bytes = Buffer.from(settings.wrappingKey, 'base64')
  // The library wants a buffer of its own, not a slice of Node's pool.
  const unencryptedMasterKey = new Uint8Array(bytes.length)
  unencryptedMasterKey.set(bytes)
  return new RawAesKeyringNode({
    keyName: settings.name,
    keyNamespace: settings.namespace,
    unencryptedMasterKey,
    wrappingSuite: RawAesWrappingSuiteIdentifier.AES256_GCM_IV12_TAG16_NO_PADDING,
  })
}

async function answer(request) {
  const input = Buffer.from(request.input, 'base64')
  const keyring = keyringOf(request.keyring)
  if (request.operation === 'decrypt') {
    const { plaintext, messageHeader } = await decrypt(keyring, input)
    return { output: plaintext.toString('base64'), context: { ...messageHeader.encryptionContext } }
  }
  const { result } = await encrypt(keyring, input, {
    encryptionContext: request.context,
    suiteId: AlgorithmSuiteIdentifier[AlgorithmSuiteIdentifier[request.suiteId]],
    frameLength: request.frameLength,
  })
  return { output: result.toString('base64') }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let reply
  try {
    reply = await answer(JSON.parse(line))
  } catch (error) {
    reply = { error: String(error?.message ?? error) }
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`)
}
