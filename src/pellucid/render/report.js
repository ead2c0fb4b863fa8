
"use strict";
// Draws the maps of a pellucid report from its data block; the page reads without it, this adds the controls.
(() => {
  const LONGEST = 640, MOST = 2048, MISSING = -32768;
  const data = JSON.parse(document.getElementById("pellucid-data").textContent);
  const state = { sign: "all", clip: data.percentiles.indexOf(98), native: false, alone: false };
  const byId = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const tables = { diverging: bytes(data.colours.diverging), sequential: bytes(data.colours.sequential) };
  const number = (v) => String(Number(v.toPrecision(3))).replace("-", "\u2212");

  function heatOf(grid) {
    const cells = new Int16Array(bytes(grid.int16).buffer);
    return Float64Array.from(cells, (q) => (q === MISSING ? NaN : q * grid.scale));
  }

  // For a place in 0..1 of the picture: the two cells it lies between and how far it is on the way, or null outside.
  function between(at, start, stop, cells) {
    if (at < start || at >= stop) return null;
    const g = ((at - start) / (stop - start)) * cells;
    if (state.native) return [Math.min(cells - 1, Math.floor(g)), Math.min(cells - 1, Math.floor(g)), 0];
    const c = Math.min(Math.max(g - 0.5, 0), cells - 1), low = Math.floor(c);
    return [low, Math.min(low + 1, cells - 1), c - low];
  }

  function mix(heat, columns, y, x) {
    const [top, bottom, v] = y, [left, right, u] = x;
    const at = (row, column) => heat[row * columns + column];
    const upper = u ? at(top, left) * (1 - u) + at(top, right) * u : at(top, left);
    if (!v) return upper;
    return upper * (1 - v) + (u ? at(bottom, left) * (1 - u) + at(bottom, right) * u : at(bottom, left)) * v;
  }

  function signed(value) {
    if (state.sign === "positive") return Math.max(value, 0);
    if (state.sign === "negative") return Math.min(value, 0);
    return state.sign === "absolute" ? Math.abs(value) : value;
  }

  const twoSided = (map) => map.diverging && state.sign !== "absolute";

  function draw(view) {
    const { map, canvas, heat } = view, { width, height } = canvas, { rows, columns } = map.grid;
    const [top, left, bottom, right] = map.box, end = map.limits[state.clip], steps = data.colours.steps;
    const table = twoSided(map) ? tables.diverging : tables.sequential, zero = twoSided(map) ? steps : 0;
    const across = Array.from({ length: width }, (_, x) => between((x + 0.5) / width, left, right, columns));
    const image = new ImageData(width, height), period = Math.max(2, Math.floor(Math.max(width, height) / data.colours.stripes));
    for (let y = 0, i = 0; y < height; y++) {
      const down = between((y + 0.5) / height, top, bottom, rows);
      for (let x = 0; x < width; x++, i += 4) {
        const value = down && across[x] ? signed(mix(heat, columns, down, across[x])) : NaN;
        if (Number.isNaN(value)) {
          const grey = data.colours.missing[Math.floor((x + y) / period) % 2 === 0 ? 1 : 0];
          image.data.set([...grey, 255], i);
          continue;
        }
        const share = end > 0 ? Math.min(1, Math.max(zero ? -1 : 0, value / end)) : 0;
        const k = 4 * (zero + Math.round(share * steps));
        for (let c = 0; c < 3; c++) image.data[i + c] = table[k + c];
        image.data[i + 3] = state.alone ? 255 : table[k + 3];
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    view.stale = false;
  }

  function drawScale(view) {
    const { map, card } = view, both = twoSided(map), steps = data.colours.steps, end = map.limits[state.clip];
    const table = both ? tables.diverging : tables.sequential;
    const low = both && state.sign !== "positive" ? -end : 0, high = both && state.sign === "negative" ? 0 : end;
    const first = both && state.sign === "positive" ? steps : 0, last = both && state.sign === "negative" ? steps : table.length / 4 - 1;
    const strip = document.createElement("canvas");
    strip.width = last - first + 1;
    strip.height = 1;
    const pixels = Uint8ClampedArray.from(table.subarray(4 * first, 4 * last + 4), (v, i) => (i % 4 === 3 ? 255 : v));
    strip.getContext("2d").putImageData(new ImageData(pixels, strip.width, 1), 0, 0);
    card.querySelector(".bar").src = strip.toDataURL();
    card.querySelector(".low").textContent = number(low);
    card.querySelector(".high").textContent = number(high);
    card.querySelector(".zero")?.toggleAttribute("hidden", low === 0 || high === 0);
    card.querySelector(".clip").textContent = data.percentiles[state.clip];
  }

  function reading(view, y, x) {
    const { map, heat } = view, [top, left, bottom, right] = map.box, { rows, columns } = map.grid;
    const down = between(y, top, bottom, rows), across = between(x, left, right, columns);
    const [height, width] = data.images[map.image].size_px;
    const pixel = `pixel x ${Math.floor(x * width)}, y ${Math.floor(y * height)}`;
    const value = down && across ? mix(heat, columns, down, across) : NaN;
    return `${pixel}: ${Number.isNaN(value) ? "no value here" : `${number(value)} ${map.units}`}`;
  }

  // One shared place: every map of the same picture shows its value there.
  function probe(from, y, x) {
    from.at = [y, x];
    for (const view of views.filter((v) => v.map.image === from.map.image)) {
      view.dot.hidden = false;
      view.words.textContent = reading(view, y, x);
      view.dot.style.left = `${100 * x}%`;
      view.dot.style.top = `${100 * y}%`;
    }
  }

  function watch(view) {
    const { stage, map } = view;
    stage.addEventListener("pointermove", (event) => {
      const box = stage.getBoundingClientRect();
      const inside = (v) => Math.min(0.99999, Math.max(0, v));
      probe(view, inside((event.clientY - box.top) / box.height), inside((event.clientX - box.left) / box.width));
    });
    stage.addEventListener("keydown", (event) => {
      const way = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const step = event.shiftKey ? 0.1 : 0.02, move = (v, d) => Math.min(0.999, Math.max(0, v + d * step));
      probe(view, move(view.at[0], way[0]), move(view.at[1], way[1]));
      byId("spoken").textContent = `${map.title}, ${view.words.textContent}`;
    });
  }

  // Never coarser than the computed cells, which would hide some of them.
  function canvasSize(map, [height, width]) {
    const [top, left, bottom, right] = map.box, { rows, columns } = map.grid;
    const needed = Math.max(LONGEST / Math.max(height, width), rows / (bottom - top) / height, columns / (right - left) / width);
    const scale = Math.min(needed, MOST / Math.max(height, width));
    return [height, width].map((size) => Math.max(1, Math.round(size * scale)));
  }

  function viewOf(stage) {
    const map = data.maps[stage.dataset.map], card = stage.closest(".map"), image = data.images[map.image];
    const canvas = document.createElement("canvas"), dot = document.createElement("span");
    [canvas.height, canvas.width] = canvasSize(map, image.size_px);
    canvas.setAttribute("aria-hidden", "true");
    const words = card.querySelector(".probe");
    words.textContent = stage.dataset.map === "0" ? "Point at a map, or use the arrow keys on it, to read values." : "\u00a0";
    words.hidden = false;
    dot.className = "dot";
    dot.hidden = true;
    stage.append(canvas, dot);
    stage.querySelector("img").src = image.picture;
    return { map, card, stage, canvas, dot, heat: heatOf(map.grid), words, at: [0.5, 0.5], stale: true, seen: false };
  }

  function redraw() {
    document.body.classList.toggle("alone", state.alone);
    for (const view of views) {
      view.stale = true;
      drawScale(view);
      if (view.seen) draw(view);
    }
  }

  function bare(on) {
    document.body.classList.toggle("bare", on);
    byId("bare").setAttribute("aria-pressed", String(on));
  }

  function serveControls() {
    const opacity = byId("opacity"), form = document.querySelector(".controls"), button = byId("bare");
    const fade = () => {
      document.documentElement.style.setProperty("--opacity", opacity.value / 100);
      form.querySelector("output").textContent = `${opacity.value} %`;
    };
    const set = (name, value) => { state[name] = value; redraw(); };
    opacity.addEventListener("input", fade);
    byId("sign").addEventListener("change", (event) => set("sign", event.target.value));
    byId("clip").addEventListener("change", (event) => set("clip", Number(event.target.value)));
    for (const name of ["native", "alone"]) byId(name).addEventListener("change", (event) => set(name, event.target.checked));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.reset();
    form.hidden = false;
    fade();
    button.addEventListener("pointerdown", () => bare(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, () => bare(false));
    const busy = (target) => target !== button && target.closest?.("input, select, button, summary, a");
    addEventListener("keydown", (event) => {
      if (event.key !== " " || busy(event.target)) return;
      event.preventDefault();
      bare(true);
    });
    addEventListener("keyup", (event) => event.key === " " && bare(false));
    addEventListener("blur", () => bare(false));
  }

  const views = Array.from(document.querySelectorAll(".stage"), viewOf);
  const looker = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const view = views.find((v) => v.stage === entry.target);
      view.seen = entry.isIntersecting;
      if (view.seen && view.stale) draw(view);
    }
  }, { rootMargin: "300px" });
  views.forEach((view) => { watch(view); drawScale(view); looker.observe(view.stage); });
  addEventListener("beforeprint", () => views.filter((view) => view.stale).forEach(draw));
  serveControls();
})();
