// Runs the networks apart from the page, so that it stays smooth. It receives {id, image, options}, a Blob of an image file or
// an ImageBitmap of a video, and answers {id, width, height, faces, milliseconds} or {id, error}.

import {createDetector} from "./networks.js";
import * as ort from "./ort.wasm.bundle.min.mjs";

const MAX_THREADS = 4; // more do not help networks so small
const STRIP = 1024; // rows of a canvas: browsers bound its area

/** Read the files of `downloads` and report the progress; returns the bytes of each by its key. */
async function download(downloads) {
  const total = Object.values(downloads).reduce((sum, file) => sum + file.bytes, 0);
  let received = 0;
  const read = async ([key, {name, bytes}]) => {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: cannot be downloaded (${answer.status}); load the page again`);
    const data = new Uint8Array(bytes), reader = answer.body.getReader();
    let at = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (at + part.value.length > bytes) throw new Error(`${name}: is another version; load the page again`);
      data.set(part.value, at);
      at += part.value.length;
      received += part.value.length;
      postMessage({received, total});
    }
    if (at !== bytes) throw new Error(`${name}: its download was cut off; load the page again`);
    return [key, data];
  };
  return Object.fromEntries(await Promise.all(Object.entries(downloads).map(read)));
}

async function start() {
  const settings = await (await fetch("settings.json")).json();
  const files = await download(settings.downloads);
  // Threads need memory that is shared, which browsers allow to pages with two headers alone (web/README.md).
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmBinary = files.runtime.buffer;
  const detector = await createDetector(ort, settings, files.face_detector, files.classifier);
  postMessage({ready: true, threads, settings});
  return detector;
}

/** Return the pixels of an image, transparent parts on white. */
function readPixels(bitmap) {
  const {width, height} = bitmap, data = new Uint8ClampedArray(4 * width * height);
  const canvas = new OffscreenCanvas(width, Math.min(height, STRIP));
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  for (let top = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, rows);
    pen.drawImage(bitmap, 0, -top);
    data.set(pen.getImageData(0, 0, width, rows).data, 4 * width * top);
  }
  return {width, height, data};
}

async function detect(detector, {image, options}) {
  if (!(image instanceof Blob)) {
    const pixels = readPixels(image);
    image.close();
    return {width: pixels.width, height: pixels.height, faces: await detector.detect(pixels, options)};
  }
  // As OpenCV does, without a colour profile.
  const bitmap = await createImageBitmap(image, {colorSpaceConversion: "none"});
  const pixels = readPixels(bitmap), head = new Uint8Array(await image.slice(0, 2).arrayBuffer());
  bitmap.close();
  const isJpeg = head[0] === 0xff && head[1] === 0xd8;
  return {width: pixels.width, height: pixels.height, faces: await detector.detectFile(pixels, isJpeg)};
}

const started = start();
started.catch(error => postMessage({failed: error.message}));
let last = started; // one after the other
onmessage = ({data}) => {
  last = last.catch(() => {}).then(async () => {
    const begin = performance.now();
    try {
      postMessage({id: data.id, ...await detect(await started, data), milliseconds: performance.now() - begin});
    } catch (error) {
      postMessage({id: data.id, error: error.message});
    }
  });
};
