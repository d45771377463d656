// The page: loads the networks in a worker, takes images and the camera, and saves what was found.

import {CameraTile} from "./camera.js";
import {countFaces, displayName} from "./labels.js";
import {imageRecord, toCsv} from "./records.js";
import {at, fill} from "./shared.js";
import {ImageTile, save} from "./tile.js";

const NO_WORKER = "this page cannot start: it needs Chrome 91, Firefox 114 or Safari 16.4, and all of its files";
const PROBLEMS = {
  NotAllowedError: "the browser may not use it; allow it in the address bar",
  NotFoundError: "no camera was found; plug one in",
  NotReadableError: "another program uses it; close that",
};

class Page {
  constructor() {
    this.settings = null; // settings.json, once the networks are loaded
    this.tiles = [];
    this.waiting = new Map(); // calls of the worker by their number
    this.calls = 0;
    this.isOpening = false; // a camera
    this.worker = new Worker("worker.js", {type: "module"});
    this.worker.onmessage = ({data}) => this.receive(data);
    this.worker.onerror = () => this.fail(NO_WORKER);
  }

  receive(data) {
    if (data.ready) this.ready(data);
    else if (data.failed) this.fail(data.failed);
    else if (data.total) this.loading(data);
    else this.finish(data);
  }

  loading({received, total}) {
    const [done, all] = [received, total].map(bytes => Math.round(bytes / 1e6));
    at("progress").value = received / total;
    at("state").textContent = received < total ? `loading, ${done} of ${all} MB` : "starting";
  }

  ready({threads, settings}) {
    this.settings = settings;
    at("progress").hidden = true;
    at("state").textContent = `ready · ${threads} ${threads > 1 ? "threads" : "thread"}`;
    this.changed();
  }

  fail(message) {
    at("progress").hidden = true;
    at("state").textContent = message;
    at("state").className = "failed";
    this.failure = new Error(message);
    for (const {reject} of this.waiting.values()) reject(this.failure);
    this.waiting.clear();
  }

  finish({id, error, ...result}) {
    const {resolve, reject} = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(result);
  }

  /** Detect the faces in a Blob of an image file or an ImageBitmap, which is gone then; returns what the worker answers. */
  detect(image, options = {}) {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.calls, {resolve, reject});
      this.worker.postMessage({id: this.calls, image, options}, image instanceof Blob ? [] : [image]);
    });
  }

  add(tile) {
    this.tiles.push(tile);
    at("drop").after(tile.figure);
    return tile.run();
  }

  removed(tile) {
    this.tiles = this.tiles.filter(each => each !== tile);
    this.changed();
  }

  async openFiles(files) {
    for (const file of files) await this.add(new ImageTile(this, file));
  }

  async openCamera(device) {
    at("problem").textContent = "";
    if (this.isOpening || this.tiles.some(tile => tile instanceof CameraTile)) return;
    this.isOpening = true; // the browser may ask for a while
    try {
      if (!navigator.mediaDevices) throw new Error("browsers give it to https pages and to this machine's own alone");
      const wanted = device ? {deviceId: {exact: device}} : {facingMode: "user"};
      const video = {width: {ideal: 640}, height: {ideal: 480}, ...wanted};
      const stream = await navigator.mediaDevices.getUserMedia({video});
      const devices = await navigator.mediaDevices.enumerateDevices();
      const tile = new CameraTile(this, stream, devices.filter(each => each.kind === "videoinput"));
      await this.add(tile).catch(error => {
        tile.remove();
        throw error;
      });
    } catch (error) {
      at("problem").textContent = `Camera: ${PROBLEMS[error.name] ?? error.message}.`;
    } finally {
      this.isOpening = false;
    }
  }

  /** Return the numbers of faces by label as people read it, and the labels' colours. */
  countsOf(faces) {
    const {labels} = this.settings, counts = {}, colours = {};
    for (const {face, count} of countFaces(faces)) {
      const name = displayName(face, labels);
      counts[name] = count;
      colours[name] = labels[face.label].colour;
    }
    return {counts, colours};
  }

  /** Show the counts of all tiles, and allow to save what there is. */
  changed() {
    fill(at("faces"), this.settings ? this.countsOf(this.tiles.flatMap(tile => tile.faces)).counts : {});
    at("json").disabled = at("csv").disabled = !this.images.length;
  }

  /** Return the tiles of images whose faces are known. */
  get images() {
    return this.tiles.filter(tile => tile.result);
  }

  records(tiles) {
    return tiles.map(tile => imageRecord(tile.name.textContent, tile.result, this.settings.records));
  }

  saveJson(tiles, stem) {
    const lines = this.records(tiles).map(record => `${JSON.stringify(record)}\n`).join("");
    save(new Blob([lines], {type: "application/json"}), `${stem}.${tiles.length > 1 ? "jsonl" : "json"}`);
  }

  saveCsv(tiles, stem) {
    save(new Blob([toCsv(this.records(tiles), this.settings.records)], {type: "text/csv"}), `${stem}.csv`);
  }
}

const page = new Page();
window.page = page; // for the browser's console
fill(at("faces"), {});
at("choose").onclick = () => at("files").click();
at("files").onchange = () => {
  page.openFiles([...at("files").files]);
  at("files").value = ""; // so that the same file may be chosen again
};
at("start").onclick = () => page.openCamera();
at("json").onclick = () => page.saveJson(page.images, "faces");
at("csv").onclick = () => page.saveCsv(page.images, "faces");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault(); // otherwise the browser leaves this page for a dropped image
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", event => page.openFiles([...event.dataTransfer.files]));
document.addEventListener("paste", event => page.openFiles([...event.clipboardData.files]));
