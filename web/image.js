// Images as the networks receive them, computed as OpenCV does in Python: {width, height, data} with `data` RGBA, 4 bytes
// per pixel. Alpha is not used. The Python modules are facemask/models/center_face.py, facemask/boxes.py and facemask/turns.py.

const COEFFICIENT_BITS = 11; // of OpenCV's linear interpolation

/** Round to the nearest integer, halves to the even one, as Python and NumPy do. */
export function round(value) {
  const below = Math.floor(value);
  const part = value - below;
  return part > 0.5 || (part === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

export function newImage(width, height) {
  return {width, height, data: new Uint8ClampedArray(4 * width * height)};
}

/** Return the part of an image from x1, y1 to x2, y2, half-open. */
export function crop(image, x1, y1, x2, y2) {
  const part = newImage(x2 - x1, y2 - y1);
  for (let y = y1; y < y2; y++) {
    const start = 4 * (y * image.width + x1);
    part.data.set(image.data.subarray(start, start + 4 * part.width), 4 * part.width * (y - y1));
  }
  return part;
}

/** Turn an image to the left by quarter turns; negative ones turn it to the right. */
export function turnLeft(image, turns) {
  turns = ((turns % 4) + 4) % 4;
  if (!turns) return image;
  const {width, height} = image;
  const turned = turns === 2 ? newImage(width, height) : newImage(height, width);
  const from = new Uint32Array(image.data.buffer, image.data.byteOffset, width * height);
  const to = new Uint32Array(turned.data.buffer);
  let at = 0;
  for (let y = 0; y < turned.height; y++) {
    for (let x = 0; x < turned.width; x++) {
      if (turns === 1) to[at++] = from[x * width + width - 1 - y];
      else if (turns === 2) to[at++] = from[(height - 1 - y) * width + width - 1 - x];
      else to[at++] = from[(height - 1 - x) * width + y];
    }
  }
  return turned;
}

/** Return a box of an image of that size as one in the image that `turnLeft` makes of it. */
export function turnBox([x1, y1, x2, y2], turns, {width, height}) {
  switch (((turns % 4) + 4) % 4) {
    case 1: return [y1, width - x2, y2, width - x1];
    case 2: return [width - x2, height - y2, width - x1, height - y1];
    case 3: return [height - y2, x1, height - y1, x2];
    default: return [x1, y1, x2, y2];
  }
}

/** Halve both sides: each pixel is the mean of four. */
export function halve(image) {
  const half = newImage(image.width >> 1, image.height >> 1);
  const row = 4 * image.width;
  for (let y = 0; y < half.height; y++) {
    let from = 2 * y * row, to = 4 * y * half.width;
    for (let x = 0; x < half.width; x++, from += 8, to += 4) {
      for (let c = 0; c < 3; c++) {
        const at = from + c;
        half.data[to + c] = (image.data[at] + image.data[at + 4] + image.data[at + row] + image.data[at + row + 4] + 2) >> 2;
      }
    }
  }
  return half;
}

/** Blur with a Gaussian of that standard deviation in px, cut to 3 x 3; at the edge the image is mirrored. */
export function blur(image, sigma) {
  const {width, height, data} = image;
  const beside = Math.exp(-1 / (2 * sigma * sigma));
  const side = round((256 * beside) / (1 + 2 * beside)), middle = 256 - 2 * side;
  const across = y => {
    const sums = new Uint16Array(4 * width);
    const start = 4 * width * y;
    for (let x = 0; x < width; x++) {
      const left = start + 4 * (x ? x - 1 : Math.min(1, width - 1));
      const right = start + 4 * (x < width - 1 ? x + 1 : Math.max(width - 2, 0));
      for (let c = 0; c < 3; c++) sums[4 * x + c] = side * (data[left + c] + data[right + c]) + middle * data[start + 4 * x + c];
    }
    return sums;
  };
  const blurred = newImage(width, height);
  let here = across(0), below = across(Math.min(1, height - 1)), above = below;
  for (let y = 0; y < height; y++) {
    const start = 4 * width * y;
    for (let x = 0; x < 4 * width; x++) {
      blurred.data[start + x] = (side * (above[x] + below[x]) + middle * here[x] + 32768) >> 16;
    }
    [above, here] = [here, below];
    below = y + 2 < height ? across(y + 2) : above;
  }
  return blurred;
}

/** For each target pixel of a side: the source pixel before it, and the parts of it and the next one, of 2048. */
function linearSteps(from, to) {
  const one = 1 << COEFFICIENT_BITS, scale = from / to;
  const first = new Int32Array(to), next = new Int32Array(to), part = new Int32Array(to);
  for (let at = 0; at < to; at++) {
    const place = Math.fround((at + 0.5) * scale - 0.5);
    const before = Math.max(0, Math.min(Math.floor(place), from - 1));
    const after = Math.min(before + 1, from - 1);
    first[at] = before;
    next[at] = after;
    part[at] = place < 0 || before === after ? 0 : round((place - before) * one);
  }
  return {first, next, part};
}

/** Resize with linear interpolation. */
export function resizeLinear(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const one = 1 << COEFFICIENT_BITS;
  const columns = linearSteps(image.width, width), rows = linearSteps(image.height, height);
  const resized = newImage(width, height), {data} = image;
  const rowsDone = new Map();
  const across = y => {
    const sums = new Int32Array(4 * width);
    const start = 4 * image.width * y;
    for (let x = 0; x < width; x++) {
      const left = start + 4 * columns.first[x], right = start + 4 * columns.next[x], part = columns.part[x];
      for (let c = 0; c < 3; c++) sums[4 * x + c] = (data[left + c] * (one - part) + data[right + c] * part) >> 4;
    }
    return sums;
  };
  const row = y => {
    if (!rowsDone.has(y)) rowsDone.set(y, across(y));
    return rowsDone.get(y);
  };
  for (let y = 0; y < height; y++) {
    const upper = row(rows.first[y]), lower = row(rows.next[y]), part = rows.part[y];
    for (const done of rowsDone.keys()) if (done < rows.first[y]) rowsDone.delete(done);
    const start = 4 * width * y;
    for (let x = 0; x < 4 * width; x++) {
      resized.data[start + x] = (((upper[x] * (one - part)) >> 16) + ((lower[x] * part) >> 16) + 2) >> 2;
    }
  }
  return resized;
}

/** For each target pixel of a side: the source pixels that it covers, and their parts of it. */
function areaSteps(from, to) {
  const scale = from / to, steps = [];
  for (let at = 0; at < to; at++) {
    const start = at * scale, end = start + scale, covered = Math.min(scale, from - start);
    const last = Math.min(Math.floor(end), from - 1), first = Math.min(Math.ceil(start), last);
    const parts = [];
    if (first - start > 1e-3) parts.push([first - 1, (first - start) / covered]);
    for (let each = first; each < last; each++) parts.push([each, 1 / covered]);
    if (end - last > 1e-3) parts.push([last, Math.min(end - last, 1, covered) / covered]);
    steps.push(parts);
  }
  return steps;
}

/** Shrink both sides: each pixel is the mean of the area that it covers. */
export function resizeArea(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const columns = areaSteps(image.width, width), rows = areaSteps(image.height, height);
  const resized = newImage(width, height), sums = new Float64Array(3 * width);
  rows.forEach((parts, y) => {
    sums.fill(0);
    for (const [sourceY, partY] of parts) {
      const start = 4 * image.width * sourceY;
      for (let x = 0; x < width; x++) {
        for (const [sourceX, partX] of columns[x]) {
          const at = start + 4 * sourceX, part = partX * partY;
          sums[3 * x] += part * image.data[at];
          sums[3 * x + 1] += part * image.data[at + 1];
          sums[3 * x + 2] += part * image.data[at + 2];
        }
      }
    }
    for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) resized.data[4 * (width * y + x) + c] = sums[3 * x + c];
  });
  return resized;
}

/** Shrink an image so that its longest side is at most `side` px. */
export function shrink(image, side) {
  const scale = side / Math.max(image.width, image.height);
  if (scale >= 1) return image;
  return resizeArea(image, Math.max(1, round(image.width * scale)), Math.max(1, round(image.height * scale)));
}

/** Return images of one size as float32 (n, 3, height, width) RGB 0..255, padded with black on the right and below. */
export function toTensor(images, width = images[0].width, height = images[0].height) {
  const plane = width * height, values = new Float32Array(3 * plane * images.length);
  images.forEach((image, number) => {
    for (let y = 0; y < image.height; y++) {
      let from = 4 * y * image.width, to = 3 * plane * number + y * width;
      for (let x = 0; x < image.width; x++, from += 4, to++) {
        values[to] = image.data[from];
        values[to + plane] = image.data[from + 1];
        values[to + 2 * plane] = image.data[from + 2];
      }
    }
  });
  return {values, shape: [images.length, 3, height, width]};
}
