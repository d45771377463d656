// The tile of the camera: the video as it comes, with the faces of the last frame that the networks have finished.

import {make} from "./shared.js";
import {ImageTile, Tile} from "./tile.js";

const FAST_SIZE = 320; // px, longest side of the face detector's input: a third of the pixels, and twice the smallest face
const AVERAGED = 10; // frames over which their rate is averaged

export class CameraTile extends Tile {
  /** `devices` are the cameras that there are. */
  constructor(page, stream, devices) {
    super(page, "Camera");
    this.stream = stream;
    this.video = Object.assign(make("video"), {srcObject: stream, muted: true, playsInline: true});
    this.addButton("Keep this image", () => this.keepImage()).className = "main";
    if (devices.length > 1) this.addButton("Next camera", () => this.openNext(devices));
    this.removing.textContent = "Stop";
    this.fast = Object.assign(make("input"), {type: "checkbox"});
    const label = make("label");
    label.append(this.fast, " fast, misses small faces");
    this.actions.append(label);
    this.isBusy = false;
    this.times = []; // ms, at which frames were finished
  }

  async run() {
    await this.video.play();
    this.show(this.video, this.video.videoWidth, this.video.videoHeight);
    this.stream.getVideoTracks()[0].onended = () => (this.notice.textContent = "the camera has stopped");
    this.next();
  }

  /** Draw the next frame of the video, and give it to the networks if they wait. A hidden page does neither. */
  next() {
    requestAnimationFrame(() => {
      if (!this.source) return;
      const {videoWidth, videoHeight} = this.video; // a phone that is turned changes them
      this.show(this.video, videoWidth, videoHeight);
      if (!this.isBusy && this.page.settings) this.detect();
      this.next();
    });
  }

  async detect() {
    this.isBusy = true;
    try {
      const frame = await createImageBitmap(this.video);
      const options = {tiles: false, turns: false, ...(this.fast.checked ? {size: FAST_SIZE} : {})};
      const {faces} = await this.page.detect(frame, options);
      if (!this.source) return;
      this.notice.textContent = "";
      this.times = [...this.times, performance.now()].slice(-AVERAGED);
      const span = this.times.at(-1) - this.times[0];
      this.setFaces(faces, span ? `live · ${((1000 * (this.times.length - 1)) / span).toFixed(1)} frames/s` : "live");
    } catch (error) {
      this.notice.textContent = error.message;
    } finally {
      this.isBusy = false;
    }
  }

  /** Make an image of the present frame, which is searched for small faces too. */
  async keepImage() {
    const {videoWidth: width, videoHeight: height} = this.video;
    const canvas = Object.assign(make("canvas"), {width, height});
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    const blob = await new Promise(resolve => canvas.toBlob(resolve, "image/png"));
    const clock = new Date(Date.now() - 60_000 * new Date().getTimezoneOffset()).toISOString().slice(0, 19);
    this.page.add(new ImageTile(this.page, blob, `camera-${clock.replace(/[:T]/g, "-")}.png`));
  }

  openNext(devices) {
    const {deviceId} = this.stream.getVideoTracks()[0].getSettings();
    const present = devices.findIndex(device => device.deviceId === deviceId);
    this.remove();
    this.page.openCamera(devices[(present + 1) % devices.length].deviceId);
  }

  remove() {
    this.stream.getTracks().forEach(track => track.stop());
    super.remove();
  }
}
