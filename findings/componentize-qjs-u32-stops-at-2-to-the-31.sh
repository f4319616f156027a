#!/usr/bin/env bash
# Seen with componentize-qjs 0.4.5 and jco-transpile 0.15.0 on Node.js 20.20.2, on 2026-11-29. It needs node and npm.
#
# Guess: a number of JavaScript between 0 and 2^32 - 1 that a function returns as a u32 of WIT reaches the caller as it is, since a
# double holds each of them exactly.
# Behaviour: a number from 2^31 on arrives as 2147483647, alone and in a list. No error is raised. The same number goes through
# unchanged if it came in as a u32 and was not computed with.
#
# Output seen:
#   came in as 3000000000: 3000000000
#   returned 2147483647: 2147483647
#   returned 2147483648: 2147483647
#   returned 3000000000: 2147483647
#   returned 4294967295: 2147483647
#   in a list: 2147483647,2147483647,2147483647,2147483647
#
# It matters: hashes and checksums of 32 bits that a component in JavaScript returns are wrong in half of the cases. A string or two
# halves of 16 bits arrive as they are.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund componentize-qjs@0.4.5 @bytecodealliance/jco-transpile@0.15.0 > npm.log 2>&1 ||
    { cat npm.log; exit 1; }
mkdir wit
cat > wit/world.wit <<'WIT'
package test:numbers;
world numbers {
    export back: func(value: u32) -> u32;
    export one: func(which: u32) -> u32;
    export several: func() -> list<u32>;
}
WIT
cat > guest.js <<'JS'
const values = [2147483647, 2147483648, 3000000000, 4294967295]
export function back(value) { return value }
export function one(which) { return values[which] }
export function several() { return values }
JS
npx componentize-qjs --wit wit -n numbers --js guest.js -o numbers.wasm --sync --stub-wasi > componentize.log 2>&1 ||
    { cat componentize.log; exit 1; }
cat > run.mjs <<'JS'
import { transpileBytes } from '@bytecodealliance/jco-transpile'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
const { files } = await transpileBytes(await readFile('numbers.wasm'), { name: 'numbers', noTypescript: true })
for (const [name, bytes] of Object.entries(files)) {
  const path = join('out', name)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, bytes)
}
await writeFile('out/package.json', '{"type":"module"}')
const numbers = await import('./out/numbers.js')
const values = [2147483647, 2147483648, 3000000000, 4294967295]
console.log(`came in as 3000000000: ${numbers.back(3000000000)}`)
const one = values.map((value, which) => {
  const found = numbers.one(which)
  console.log(`returned ${value}: ${found}`)
  return found
})
const several = [...numbers.several()]
console.log(`in a list: ${several}`)
const isCut = all => all.every(value => value === 2147483647)
process.exit(numbers.back(3000000000) === 3000000000 && isCut(one) && isCut(several) ? 0 : 1)
JS
# V8 of this Node reads the component's constants only with this.
node --experimental-wasm-extended-const run.mjs || { echo "this has changed: numbers arrive in another way"; exit 1; }
