// The recorded ResNet-20 in the page. Nothing is loaded before the reader asks for it,
// and no picture leaves the machine. The data come from live_model.py.
(() => {
  "use strict";

  const SIDE = 32; // pixels
  const LARGEST_FILE = 30e6; // bytes
  const MOST_PIXELS = 64e6;
  const KINDS = "image/png,image/jpeg,image/webp,image/gif,image/avif,image/bmp";

  for (const place of document.querySelectorAll(".live-model")) offer(place);

  function offer(place) {
    const start = make("button", { type: "button", className: "live-start" });
    start.textContent = "Classify a picture here";
    const note = make("p", { className: "live-note" });
    note.textContent =
      "Loads the network and its engine, 6 MB, once. " +
      "Your pictures stay on your machine.";
    place.append(start, note);
    start.addEventListener("click", async () => {
      start.disabled = true;
      start.textContent = "Loading the network …";
      try {
        const classify = await loadNetwork();
        place.replaceChildren();
        showPanel(place, classify);
      } catch (problem) {
        start.disabled = false;
        start.textContent = "Try again";
        note.textContent = `The network could not be loaded (${problem.message}).`;
      }
    });
  }

  // Returns a function from 32 x 32 pixels (RGBA) to the probabilities of the classes.
  async function loadNetwork() {
    const folder = document.documentElement.dataset.content_root + "_static/";
    await loadScript(folder + "ort.wasm.min.js");
    await loadScript(folder + "live_model_data.js");
    const data = window.liveModelData;
    const glue = new Blob([await unpack(data.glue)], { type: "text/javascript" });
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = await unpack(data.wasm);
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(glue) };
    const network = new Uint8Array(await unpack(data.model));
    const session = await ort.InferenceSession.create(network);
    return async (rgba) => {
      const pixels = new Float32Array(SIDE * SIDE * 3);
      for (let i = 0; i < SIDE * SIDE; i++)
        for (let c = 0; c < 3; c++) pixels[3 * i + c] = rgba[4 * i + c];
      const images = new ort.Tensor("float32", pixels, [1, SIDE, SIDE, 3]);
      return softmax([...(await session.run({ images })).logits.data]);
    };
  }

  function loadScript(address) {
    return new Promise((resolve, reject) => {
      const script = make("script", { src: address, onload: resolve });
      script.onerror = () => reject(new Error(`${address} is missing`));
      document.head.append(script);
    });
  }

  async function unpack(text) {
    const packed = await fetch(`data:application/octet-stream;base64,${text}`);
    const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  function softmax(logits) {
    const greatest = Math.max(...logits);
    const powers = logits.map((z) => Math.exp(z - greatest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((p) => p / sum);
  }

  function showPanel(place, classify) {
    const { classes, samples } = window.liveModelData;
    const input = make("input", { type: "file", accept: KINDS, className: "live-file" });
    const choose = make("label", { className: "live-drop" });
    choose.append("Choose a picture, or drop or paste one here", input);
    const strip = make("div", { className: "live-samples" });
    const seen = make("canvas", { width: SIDE, height: SIDE, className: "live-seen" });
    const pixels = seen.getContext("2d", { willReadFrequently: true });
    seen.setAttribute("role", "img");
    seen.setAttribute("aria-label", "The picture as the network sees it");
    const said = make("p", { className: "live-said" });
    said.setAttribute("role", "status");
    said.textContent =
      "Pick one of the ten test images, or bring a picture of your own: " +
      "the network sees its middle square as 32 × 32 pixels.";
    const bars = classes.map((name) => bar(name));
    const list = make("ul", { className: "live-bars" });
    list.append(...bars.map((b) => b.row));
    const left = make("div", { className: "live-left" });
    left.append(seen, choose);
    const panel = make("div", { className: "live-panel" });
    panel.append(strip, left, said, list);
    place.append(panel);

    // Shows what becomes of a promise of 32 x 32 pixels and a remark, unless the reader
    // has asked for something else meanwhile.
    let turn = 0;
    async function show(promise) {
      const mine = ++turn;
      try {
        const { rgba, remark } = await promise;
        const p = await classify(rgba);
        if (mine !== turn) return;
        pixels.putImageData(new ImageData(rgba, SIDE, SIDE), 0, 0);
        const first = p.indexOf(Math.max(...p));
        p.forEach((value, k) => bars[k].show(value, k === first));
        said.textContent = `${classes[first]}, ${percent(p[first])}. ${remark}`;
      } catch (problem) {
        if (mine !== turn) return;
        pixels.clearRect(0, 0, SIDE, SIDE);
        bars.forEach((b) => b.show(0, false));
        said.textContent = problem.message;
      }
    }

    samples.forEach((sample) => {
      const name = classes[sample.label];
      const button = make("button", { type: "button", title: name });
      const image = make("img", { src: `data:image/png;base64,${sample.png}` });
      image.alt = `test image ${sample.index}: ${name}`;
      image.width = image.height = SIDE;
      button.append(image);
      button.addEventListener("click", () => show(sampled(image, sample, name)));
      strip.append(button);
    });
    strip.firstChild.focus({ preventScroll: true });

    function take(data) {
      const files = [...(data?.files ?? [])];
      if (files.length === 1) show(shrunk(files[0]));
      else
        show(
          Promise.reject(
            new Error(
              files.length
                ? "These are several files: take one picture at a time."
                : "That is no file: save the picture, and choose or drop the file.",
            ),
          ),
        );
    }
    input.addEventListener("change", () => {
      if (input.files.length) take(input);
      input.value = ""; // so that the same file can be chosen again
    });
    addEventListener("paste", (event) => {
      if (event.clipboardData.files.length || panel.contains(document.activeElement))
        take(event.clipboardData);
    });
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
      place.addEventListener(kind, (event) => {
        event.preventDefault();
        choose.classList.toggle("live-over", kind === "dragenter" || kind === "dragover");
        if (kind === "drop") take(event.dataTransfer);
      });
  }

  async function sampled(image, sample, name) {
    await image.decode();
    const context = make("canvas", { width: SIDE, height: SIDE }).getContext("2d");
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, SIDE, SIDE).data;
    return { rgba, remark: `It is test image ${sample.index}, labelled ${name}.` };
  }

  function bar(name) {
    const row = make("li");
    const label = make("span", { className: "live-name", textContent: name });
    const track = make("span", { className: "live-track" });
    const fill = make("span", { className: "live-fill" });
    const value = make("span", { className: "live-value", textContent: "–" });
    track.append(fill);
    row.append(label, track, value);
    return {
      row,
      show(p, first) {
        fill.style.width = `${100 * p}%`;
        value.textContent = p ? percent(p) : "–";
        row.classList.toggle("live-first", first);
      },
    };
  }

  // Returns the middle square of a picture file as 32 x 32 pixels on white, each the mean
  // of those that it stands for, and a remark; support/photos.py does the same.
  async function shrunk(file) {
    if (file.size > LARGEST_FILE)
      throw new Error(`${file.name} has more than 30 MB: take a smaller picture.`);
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      throw new Error(
        `${file.name} is no picture that this browser can read: take a PNG, JPEG or WebP.`,
      );
    }
    const { width, height } = picture;
    if (width * height > MOST_PIXELS)
      throw new Error(`${file.name} has ${width} × ${height} pixels: take a smaller one.`);
    const side = Math.min(width, height);
    const [left, top] = [(width - side) >> 1, (height - side) >> 1];
    const rgba = new Uint8ClampedArray(4 * SIDE * SIDE).fill(255);
    const canvas = make("canvas", { width: side, height: Math.ceil(side / SIDE) + 1 });
    const strip = canvas.getContext("2d", { willReadFrequently: true });
    let transparent = false;
    for (let row = 0; row < SIDE; row++) {
      const [from, to] = span(row, side);
      strip.clearRect(0, 0, canvas.width, canvas.height);
      strip.drawImage(picture, left, top + from, side, to - from, 0, 0, side, to - from);
      const { data } = strip.getImageData(0, 0, side, to - from);
      for (let column = 0; column < SIDE; column++) {
        const [begin, end] = span(column, side);
        const sums = [0, 0, 0];
        for (let y = 0; y < to - from; y++)
          for (let x = begin; x < end; x++) {
            const at = 4 * (y * side + x);
            const share = data[at + 3] / 255;
            transparent ||= share < 1;
            for (let c = 0; c < 3; c++) sums[c] += share * data[at + c] + 255 * (1 - share);
          }
        const count = (to - from) * (end - begin);
        sums.forEach((sum, c) => (rgba[4 * (SIDE * row + column) + c] = sum / count));
      }
    }
    const how = side < SIDE ? "enlarged" : "shrunk";
    const remark =
      `The network saw the middle square, ${how} to 32 × 32 pixels. ` +
      (transparent ? "Transparent parts count as white. " : "") +
      "It knows these ten classes only, and calls anything one of them.";
    return { rgba, remark };
  }

  // The pixels, from the first to before the last, that number `i` of 32 stands for.
  function span(i, side) {
    const scale = side / SIDE;
    if (scale < 1) return [Math.floor((i + 0.5) * scale), Math.floor((i + 0.5) * scale) + 1];
    return [Math.floor(i * scale + 0.5), Math.floor((i + 1) * scale + 0.5)];
  }

  function percent(p) {
    return `${(100 * p).toFixed(1)} %`;
  }

  function make(tag, properties = {}) {
    return Object.assign(document.createElement(tag), properties);
  }
})();
