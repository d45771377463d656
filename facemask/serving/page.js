  "use strict";
  const at = id => document.getElementById(id);
  function make(tag, text = "", kind = "") {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = kind;
    return element;
  }
  function textOn(colour) {  // black or white, whichever is easier to read
    const [red, green, blue] = [1, 3, 5].map(place => parseInt(colour.slice(place, place + 2), 16));
    return .299 * red + .587 * green + .114 * blue > 140 ? "#000" : "#fff";
  }
  function fill(table, counts) {
    const rows = Object.entries(counts).sort((one, other) => other[1] - one[1]);
    table.replaceChildren(...(rows.length ? rows : [["none", ""]]).map(row => {
      const line = make("tr");
      for (const text of row) line.insertCell().textContent = text;
      return line;
    }));
  }
  function sum(counts) {
    const total = {};
    for (const count of counts) for (const [name, number] of Object.entries(count)) total[name] = (total[name] || 0) + number;
    return total;
  }
  function fillCounts(element, counts, colourOf) {
    element.replaceChildren(...Object.entries(counts).map(([name, number]) => {
      const count = make("span", `${number} ${name}`);
      count.style.background = colourOf(name);
      count.style.color = textOn(colourOf(name));
      return count;
    }));
  }

  // A figure with an image, whose boxes and labels the browser draws at the screen's resolution, and a caption.
  function makeTile(draw) {
    const tile = {figure: make("figure"), view: make("div", "", "view"), canvas: make("canvas"), notice: make("div", "", "notice"),
      caption: make("figcaption"), name: make("span", "", "name"), status: make("span", "", "status"), counts: make("span", "", "counts")};
    tile.canvas.setAttribute("role", "img");
    tile.view.append(tile.canvas, tile.notice);
    tile.caption.append(tile.name, tile.status, tile.counts);
    tile.figure.append(tile.view, tile.caption);
    new ResizeObserver(() => draw(tile)).observe(tile.view);
    return tile;
  }
  // Draws an image that stands for one of width x height px; returns where it lies, for the functions below.
  function drawImage(tile, image, imageWidth, imageHeight) {
    const {view, canvas} = tile;
    view.style.aspectRatio = `${imageWidth} / ${imageHeight}`;
    const dots = window.devicePixelRatio || 1, width = Math.round(view.clientWidth * dots), height = Math.round(view.clientHeight * dots);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    const scale = Math.min(width / imageWidth, height / imageHeight);
    const left = (width - scale * imageWidth) / 2, top = (height - scale * imageHeight) / 2;
    pen.imageSmoothingQuality = "high";
    pen.clearRect(0, 0, width, height);
    pen.drawImage(image, left, top, scale * imageWidth, scale * imageHeight);
    return {pen, dots, width, height, scale, left, top};
  }
  const placeBox = ({scale, left, top}, box) => box.map((side, index) => side * scale + (index % 2 ? top : left));
  function drawBox(sheet, face) {
    const {pen, dots} = sheet, [x1, y1, x2, y2] = placeBox(sheet, face.box);
    pen.strokeStyle = face.colour;
    pen.lineWidth = (face.unsure ? 1 : 2.5) * dots;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  function labelAbove(sheet, face, text = face.text) {
    const {pen, dots, width} = sheet, [x1, y1, x2] = placeBox(sheet, face.box);
    const size = Math.max(11, Math.min(18, (x2 - x1) / dots / 7)) * dots;
    pen.font = `600 ${size}px system-ui, sans-serif`;
    const wide = pen.measureText(text).width + .6 * size, high = 1.35 * size;
    return {text, size, wide, high, left: Math.max(0, Math.min(x1 - 1.25 * dots, width - wide)), top: Math.max(0, y1 - high)};
  }
  function drawLabel({pen}, {text, size, wide, high, left, top}, colour) {
    pen.fillStyle = colour;
    pen.fillRect(left, top, wide, high);
    pen.fillStyle = textOn(colour);
    pen.font = `600 ${size}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.fillText(text, left + .3 * size, top + high / 2);
  }
