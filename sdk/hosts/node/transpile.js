#!/usr/bin/env node
// Makes a folder of JavaScript and core modules of a component, by jco. Only a build needs jco, an application does not.

import { realpathSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Writes the folder of a component, for `Filter.load` and `Partitioner.load`. */
export async function transpile(component, folder) {
  const jco = await import('@bytecodealliance/jco-transpile');
  const options = { outDir: folder, name: 'plugin', instantiation: 'sync', emitTypescriptDeclarations: false };
  const { files } = await jco.transpile(component, options);
  await jco.writeFiles(files);
  // Lets Node take the folder for modules, whatever the application is.
  writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }\n');
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [component, folder] = process.argv.slice(2);
  if (!folder) {
    console.error('usage: millstream-transpile COMPONENT.wasm FOLDER');
    process.exit(2);
  }
  await transpile(component, folder);
}
