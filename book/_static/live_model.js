// The recorded ResNet-20 in the page. Nothing is loaded before the reader asks for it,
// and no picture leaves the machine. The data come from live_model.py.
(() => {
  "use strict";

  const SIDE = 32; // pixels
  const LARGEST_FILE = 30e6; // bytes
  const MOST_PIXELS = 64e6;

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
    const input = make("input", { type: "file", accept: "image/*", className: "live-file" });
    const choose = make("label", { className: "live-drop" });
    choose.append("Choose a picture, or drop one here", input);
    const strip = make("div", { className: "live-samples" });
    const seen = make("canvas", { width: SIDE, height: SIDE, className: "live-seen" });
    seen.getContext("2d", { willReadFrequently: true });
    seen.setAttribute("role", "img");
    seen.setAttribute("aria-label", "The picture as the network sees it");
    const said = make("p", { className: "live-said" });
    said.setAttribute("role", "status");
    said.textContent = "Pick one of the ten test images, or bring a picture of your own.";
    const bars = classes.map((name) => bar(name));
    const list = make("ul", { className: "live-bars" });
    list.append(...bars.map((b) => b.row));
    const left = make("div", { className: "live-left" });
    left.append(seen, choose);
    const panel = make("div", { className: "live-panel" });
    panel.append(strip, left, list, said);
    place.append(panel);

    async function answer(remark) {
      const rgba = seen.getContext("2d").getImageData(0, 0, SIDE, SIDE).data;
      const p = await classify(rgba);
      p.forEach((value, k) => bars[k].show(value, value === Math.max(...p)));
      const first = p.indexOf(Math.max(...p));
      said.textContent = `${classes[first]}, ${percent(p[first])}. ${remark}`;
    }

    samples.forEach((sample) => {
      const name = classes[sample.label];
      const button = make("button", { type: "button", title: name });
      const image = make("img", { src: `data:image/png;base64,${sample.png}` });
      image.alt = `test image ${sample.index}: ${name}`;
      image.width = image.height = SIDE;
      button.append(image);
      button.addEventListener("click", async () => {
        await image.decode();
        seen.getContext("2d").drawImage(image, 0, 0);
        await answer(`It is test image ${sample.index}, labelled ${name}.`);
      });
      strip.append(button);
    });

    async function take(file) {
      if (!file) return;
      try {
        const transparent = await draw(file, seen);
        await answer(
          "The network saw the middle square, shrunk to 32 × 32 pixels. " +
            (transparent ? "Transparent parts count as white. " : "") +
            "It knows these ten classes only, and calls anything one of them.",
        );
      } catch (problem) {
        bars.forEach((b) => b.show(0, false));
        said.textContent = problem.message;
      }
    }
    input.addEventListener("change", () => take(input.files[0]));
    for (const kind of ["dragover", "drop"])
      place.addEventListener(kind, (event) => {
        event.preventDefault();
        if (kind === "drop") take(event.dataTransfer.files[0]);
      });
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

  // Draws the middle square of the picture; tells whether any of it is transparent.
  async function draw(file, canvas) {
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
    const corner = [(width - side) >> 1, (height - side) >> 1];
    const small = await createImageBitmap(picture, ...corner, side, side, {
      resizeWidth: SIDE,
      resizeHeight: SIDE,
      resizeQuality: "high",
    });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    context.drawImage(small, 0, 0);
    const rgba = context.getImageData(0, 0, SIDE, SIDE).data;
    const transparent = rgba.some((value, i) => i % 4 === 3 && value < 255);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    context.globalCompositeOperation = "source-over";
    return transparent;
  }

  function percent(p) {
    return `${(100 * p).toFixed(1)} %`;
  }

  function make(tag, properties = {}) {
    return Object.assign(document.createElement(tag), properties);
  }
})();
