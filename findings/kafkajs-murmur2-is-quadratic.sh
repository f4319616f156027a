#!/usr/bin/env bash
# Seen with kafkajs 2.2.4 on Node.js 20.20.2, on 2026-11-29. It needs node and npm.
#
# Guess: the default partitioner hashes a key in a time proportional to its length, as Kafka's murmur2 does, and a key of 64 KiB costs
# well below a millisecond.
# Behaviour: the hash is kept in a BigInt that is never cut to 32 bits, so it grows by 31 bits with every four bytes of the key. Four
# times the length takes up to sixteen times the time. The result is right, since only its last 32 bits are returned. The event loop is
# blocked meanwhile.
#
# Output seen (the times vary with the machine):
#   4096 bytes: 1.1 ms
#   16384 bytes: 9.0 ms
#   65536 bytes: 179.3 ms
#   quadratic: true
#
# It matters: producers with long keys need their own partitioner, or a short key.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund kafkajs@2.2.4 > npm.log 2>&1 || { cat npm.log; exit 1; }
cat > measure.js <<'JS'
const { Partitioners } = require('kafkajs')
const partitioner = Partitioners.DefaultPartitioner()
const partitionMetadata = [{ partitionId: 0, leader: 1 }, { partitionId: 1, leader: 1 }]
// The least of five tries, in milliseconds.
function time(length) {
  const message = { key: Buffer.alloc(length, 'k') }
  let least = Infinity
  for (let attempt = 0; attempt < 5; attempt++) {
    const begun = process.hrtime.bigint()
    partitioner({ topic: 't', partitionMetadata, message })
    least = Math.min(least, Number(process.hrtime.bigint() - begun) / 1e6)
  }
  return least
}
time(1024)
const times = [4096, 16384, 65536].map(length => {
  const found = time(length)
  console.log(`${length} bytes: ${found.toFixed(1)} ms`)
  return found
})
const quadratic = times[2] / times[1] > 8
console.log(`quadratic: ${quadratic}`)
process.exit(quadratic ? 0 : 1)
JS
node measure.js || { echo "this has changed: the time is no longer quadratic"; exit 1; }
