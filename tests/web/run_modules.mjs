// Runs the page's modules on the cases of a test: node run_modules.mjs DIST CASES.json RESULTS.json
// An image of a case is {width, height, file}, the file RGBA; one of a result is written beside its input.

import {readFileSync, writeFileSync} from "node:fs";
import {join, resolve} from "node:path";
import {pathToFileURL} from "node:url";

const [dist, casesFile, resultsFile] = process.argv.slice(2);
const load = name => import(pathToFileURL(resolve(dist, name)));
const image = await load("image.js"), boxes = await load("boxes.js"), labels = await load("labels.js");
const records = await load("records.js"), settings = JSON.parse(readFileSync(join(dist, "settings.json"), "utf8"));
const read = ({width, height, file}) => ({width, height, data: new Uint8ClampedArray(readFileSync(file))});
let detector = null;

/** Load the detector of settings.json with other files of the networks. */
async function openDetector(networks) {
  const ort = await load("ort.wasm.bundle.min.mjs"), {createDetector} = await load("networks.js");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = readFileSync(join(dist, settings.downloads.runtime.name));
  return createDetector(ort, settings, ...networks.map(file => readFileSync(file)));
}

const OPERATIONS = {
  detect: async each => (detector ??= await openDetector(each.networks)).detect(read(each), each.options),
  detectFile: async each => (detector ??= await openDetector(each.networks)).detectFile(read(each), true),
  percent: each => each.values.map(labels.percent),
  csv: each => records.toCsv([records.imageRecord(each.name, each.result, settings.records)], settings.records),
  cropFace: each => boxes.cropFace(read(each), ...each.arguments),
};

const results = [];
for (const each of JSON.parse(readFileSync(casesFile, "utf8"))) {
  const operation = OPERATIONS[each.operation] ?? (given => image[given.operation](read(given), ...given.arguments));
  const result = await operation(each);
  if (result.data) writeFileSync(`${each.file}.${results.length}`, result.data);
  results.push(result.data ? {width: result.width, height: result.height, file: `${each.file}.${results.length}`} : result);
}
writeFileSync(resultsFile, JSON.stringify(results));
