// The plug-ins of the tests: `MILLSTREAM_PLUGINS` names the folder that the tests of Millstream write.

import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';

import { transpile } from '../transpile.js';

const scratch = mkdtempSync(path.join(os.tmpdir(), 'millstream-stage-'));
const transpiled = new Map();
after(() => rmSync(scratch, { recursive: true }));

/** Loads a plug-in of the tests; each is transpiled once. */
export async function load(Kind, name, config, options) {
  if (!transpiled.has(name)) {
    const folder = path.join(scratch, name);
    transpiled.set(name, transpile(path.join(process.env.MILLSTREAM_PLUGINS, `${name}.wasm`), folder).then(() => folder));
  }
  return Kind.load(await transpiled.get(name), config, { log() {}, ...options });
}
