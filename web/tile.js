// A tile of the page: an image with its boxes, the counts below it, and buttons.

import {countsHeight, drawCounts, drawFaces} from "./drawing.js";
import {countFaces, displayName} from "./labels.js";
import {drawImage, fillCounts, make, makeTile} from "./shared.js";

const SHOWN = 2048; // px: the longest side of an image as the page keeps it
const MAX_CANVAS = 16_700_000; // pixels: on phones a larger canvas stays empty
const IMAGE_PART = 0.9; // of it, for the image; the rest is for the counts below it

/** Let the browser save a Blob as a file. */
export function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export class Tile {
  /** `page` has the settings, once the networks are loaded, `changed()`, called when faces change, and `removed(tile)`. */
  constructor(page, name) {
    Object.assign(this, {page, faces: [], source: null, width: 0, height: 0}, makeTile(() => this.draw()));
    this.name.textContent = name;
    this.status.textContent = "waiting for the networks";
    this.actions = make("div", "", "actions");
    this.caption.append(this.actions);
    this.removing = this.addButton("Remove", () => this.remove());
    this.canvas.onclick = () => this.figure.classList.toggle("chosen", document.body.classList.toggle("solo"));
  }

  addButton(text, onclick) {
    const button = Object.assign(make("button", text), {type: "button", onclick});
    this.actions.insertBefore(button, this.removing ?? null); // Remove is the last one
    return button;
  }

  remove() {
    if (this.figure.classList.contains("chosen")) document.body.classList.remove("solo");
    this.source?.close?.();
    this.source = null;
    this.figure.remove();
    this.page.removed(this);
  }

  /** Show a source of pixels for canvases, which stands for an image so large. */
  show(source, width, height) {
    Object.assign(this, {source, width, height});
    this.draw();
  }

  fail(reason) {
    this.figure.classList.add("failed");
    this.status.textContent = "";
    this.notice.textContent = reason;
  }

  setFaces(faces, status) {
    this.faces = faces;
    this.status.textContent = status;
    const {counts, colours} = this.page.countsOf(faces);
    fillCounts(this.counts, counts, name => colours[name]);
    const texts = [...this.counts.children].map(each => each.textContent);
    this.canvas.setAttribute("aria-label", `${this.name.textContent}: ${texts.join(", ") || "no faces"}`);
    this.draw();
    this.page.changed();
  }

  draw() {
    if (!this.source || !this.view.clientWidth) return;
    const sheet = drawImage(this, this.source, this.width, this.height);
    if (this.faces.length) drawFaces(sheet, this.faces, this.page.settings);
  }
}

/** The tile of an image file. */
export class ImageTile extends Tile {
  constructor(page, file, name = file.name) {
    super(page, name);
    this.file = file;
    this.result = null;
  }

  get stem() {
    return this.name.textContent.replace(/\.[^.]*$/, "");
  }

  async run() {
    try {
      const whole = await createImageBitmap(this.file), {width, height} = whole;
      const scale = Math.min(1, SHOWN / Math.max(width, height));
      const [resizeWidth, resizeHeight] = [width, height].map(side => Math.max(1, Math.round(side * scale)));
      const shown = scale < 1 ? await createImageBitmap(whole, {resizeWidth, resizeHeight, resizeQuality: "high"}) : whole;
      if (scale < 1) whole.close();
      this.show(shown, width, height);
    } catch {
      this.fail("this browser cannot read it; give a JPEG, PNG or WebP image");
      return;
    }
    try {
      this.setResult(await this.page.detect(this.file));
    } catch (error) {
      this.fail(error.message);
    }
  }

  setResult(result) {
    if (!this.source) return; // removed meanwhile
    const {width, height, faces, milliseconds} = result;
    this.result = result;
    this.addButton("Annotated image", () => this.saveAnnotated());
    this.addButton("JSON", () => this.page.saveJson([this], this.stem));
    this.addButton("CSV", () => this.page.saveCsv([this], this.stem));
    this.setFaces(faces, `${width} × ${height} px · ${(milliseconds / 1000).toFixed(2)} s${faces.length ? "" : " · no face found"}`);
  }

  async saveAnnotated() {
    const blob = await this.annotate().catch(() => null);
    if (!blob) {
      this.notice.textContent = "the annotated image cannot be made: too large for this browser";
      return;
    }
    save(blob, `${this.stem}_annotated${blob.type === "image/png" ? ".png" : ".jpg"}`);
  }

  /** Return the image with boxes and labels as a Blob; where labels had no room, with the counts below it. */
  async annotate() {
    const {settings} = this.page, {faces} = this.result, image = await createImageBitmap(this.file);
    const scale = Math.min(1, Math.sqrt((MAX_CANVAS * IMAGE_PART) / (image.width * image.height)));
    const width = Math.round(image.width * scale), height = Math.round(image.height * scale);
    const dots = Math.max(1, Math.max(width, height) / settings.drawing.SCREEN);
    const canvas = Object.assign(make("canvas"), {width, height});
    const sheet = {pen: canvas.getContext("2d"), dots, width, height, scale, left: 0, top: 0};
    const paint = () => {
      sheet.pen.drawImage(image, 0, 0, width, height);
      return drawFaces(sheet, faces, settings);
    };
    if (paint()) {
      canvas.height = height + countsHeight(dots);
      paint();
      drawCounts(sheet, countFaces(faces), settings, height);
    }
    image.close();
    return new Promise(resolve => canvas.toBlob(resolve, this.file.type === "image/png" ? "image/png" : "image/jpeg", 0.92));
  }
}
