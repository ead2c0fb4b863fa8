"use strict";
// Draws the cells of a pellucid atlas from its data block; without it the page shows the sheet and the table.
(() => {
  const data = JSON.parse(document.getElementById("pellucid-atlas").textContent);
  const byId = (id) => document.getElementById(id);
  const view = byId("window"), plane = byId("plane"), told = byId("told"), chosen = byId("class");
  const state = { scale: 1, x: 0, y: 0, kept: null, at: 0 };
  const number = (v) => String(Number(v.toPrecision(3))).replace("-", "\u2212");
  const make = (kind, name, text) => {
    const element = document.createElement(kind);
    if (name) element.className = name;
    if (text) element.textContent = text;
    return element;
  };

  // One tile of a sheet as the background of an element; shares of 100 % work at any size of the element.
  function tile(element, sheet, k) {
    const column = k % sheet.columns, row = Math.floor(k / sheet.columns);
    element.style.backgroundImage = `url("${sheet.uri}")`;
    element.style.backgroundSize = `${sheet.columns * 100}% ${sheet.rows * 100}%`;
    const share = (n, all) => (all > 1 ? (n / (all - 1)) * 100 : 0);
    element.style.backgroundPosition = `${share(column, sheet.columns)}% ${share(row, sheet.rows)}%`;
  }

  const step = 100 / data.side;
  const buttons = data.cells.map((cell, k) => {
    const button = make("button", data.icons ? "cell" : "cell dot");
    button.type = "button";
    button.tabIndex = k ? -1 : 0;
    button.style.left = `${(cell.column + 0.5) * step}%`;
    button.style.top = `${(cell.row + 0.5) * step}%`;
    button.style.width = button.style.height = `${0.9 * cell.size * step}%`;
    if (data.icons) tile(button, data.icons, k);
    const best = cell.labels[0];
    button.setAttribute("aria-label", `${best[0]}, attribution ${number(best[1])}, ${cell.count} activations`);
    button.addEventListener("pointerenter", () => state.kept === null && tell(k));
    button.addEventListener("focus", () => { state.at = k; if (state.kept === null) tell(k); });
    button.addEventListener("click", () => keep(k));
    plane.append(button);
    return button;
  });
  const names = data.cells.map((cell) => {
    const name = make("span", "name", cell.caption);
    name.setAttribute("aria-hidden", "true");
    name.style.left = `${(cell.column + 0.5) * step}%`;
    name.style.top = `${(cell.row + 0.5 + 0.45 * cell.size) * step}%`;
    name.style.maxWidth = `${step}%`;
    plane.append(name);
    return name;
  });

  for (const one of data.classes) {
    const option = make("option", "", one.label);
    option.value = one.number;
    chosen.append(option);
  }

  function tell(k) {
    const cell = data.cells[k], rows = make("table"), body = make("tbody"), head = make("thead"), top = make("tr");
    const th = make("th", "", "class"), mean = make("th", "", "mean attribution");
    th.scope = mean.scope = "col";
    top.append(th, mean);
    head.append(top);
    for (const [label, share] of cell.labels) {
      const row = make("tr");
      row.append(make("td", "", label), make("td", "", number(share)));
      body.append(row);
    }
    rows.append(head, body);
    const parts = [make("h2", "", cell.labels[0][0])];
    if (data.icons) {
      const big = make("span", "big");
      tile(big, data.icons, k);
      parts.push(big, make("p", "quiet", cell.made ? "Made for the mean of the cell." : "The nearest patch of the data."));
    }
    parts.push(make("p", "", `${cell.count} activations; row ${cell.row}, column ${cell.column}`), rows);
    if (data.patches) {
      parts.push(make("h3", "", "Nearest in the data"));
      const list = make("ul", "patches");
      cell.names.forEach((name, e) => {
        const item = make("li"), patch = make("span", "patch");
        tile(patch, data.patches, k * data.examples + e);
        item.append(patch, make("span", "", name));
        list.append(item);
      });
      parts.push(list);
    }
    told.replaceChildren(...parts);
  }

  function keep(k) {
    if (state.kept !== null) buttons[state.kept].classList.remove("kept");
    if (state.kept !== null) buttons[state.kept].removeAttribute("aria-pressed");
    state.kept = k === state.kept ? null : k;
    if (state.kept === null) return;
    buttons[k].classList.add("kept");
    buttons[k].setAttribute("aria-pressed", "true");
    tell(k);
  }

  // Names are shown once a cell is wide enough to read one.
  function place() {
    const width = view.clientWidth, low = width * (1 - state.scale);
    state.x = Math.min(0, Math.max(low, state.x));
    state.y = Math.min(0, Math.max(view.clientHeight * (1 - state.scale), state.y));
    plane.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    const shown = (width / data.side) * state.scale >= 60;
    for (const name of names) {
      name.hidden = !shown;
      name.style.fontSize = `${11 / state.scale}px`;
    }
  }

  function zoom(factor, x, y) {
    const old = state.scale;
    state.scale = Math.min(Math.max(1, old * factor), Math.max(4, data.side));
    state.x = x - ((x - state.x) / old) * state.scale;
    state.y = y - ((y - state.y) / old) * state.scale;
    place();
  }
  const middle = () => [view.clientWidth / 2, view.clientHeight / 2];
  byId("closer").addEventListener("click", () => zoom(1.5, ...middle()));
  byId("farther").addEventListener("click", () => zoom(1 / 1.5, ...middle()));
  byId("whole").addEventListener("click", () => { Object.assign(state, { scale: 1, x: 0, y: 0 }); place(); });
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = view.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  let from = null, moved = false;
  view.addEventListener("pointerdown", (event) => { from = [event.clientX - state.x, event.clientY - state.y]; moved = false; });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const x = event.clientX - from[0], y = event.clientY - from[1];
    if (Math.hypot(x - state.x, y - state.y) > 3) moved = true;
    if (!moved) return;
    view.classList.add("moving");
    [state.x, state.y] = [x, y];
    place();
  });
  addEventListener("pointerup", () => { from = null; view.classList.remove("moving"); });
  view.addEventListener("click", (event) => { if (moved) { event.stopPropagation(); event.preventDefault(); } }, true);

  // The nearest cell in the direction of an arrow key; those straight ahead come first.
  function neighbour(k, dx, dy) {
    const here = data.cells[k];
    let best = null, least = Infinity;
    data.cells.forEach((cell, other) => {
      const x = cell.column - here.column, y = cell.row - here.row, ahead = x * dx + y * dy;
      const cost = ahead + 3 * Math.abs(x * dy - y * dx);
      if (ahead > 0 && cost < least) [best, least] = [other, cost];
    });
    return best;
  }

  function reveal(k) {
    const width = view.clientWidth, height = view.clientHeight, cell = data.cells[k];
    const x = ((cell.column + 0.5) / data.side) * width * state.scale + state.x;
    const y = ((cell.row + 0.5) / data.side) * height * state.scale + state.y;
    if (x < 0 || x > width) state.x += width / 2 - x;
    if (y < 0 || y > height) state.y += height / 2 - y;
    view.scrollTo(0, 0);
    place();
  }
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoom(1.5, ...middle());
    else if (event.key === "-") zoom(1 / 1.5, ...middle());
    else if (event.key === "Escape") { if (state.kept !== null) keep(state.kept); }
    else if (arrows[event.key]) {
      const next = neighbour(state.at, ...arrows[event.key]);
      if (next !== null) {
        buttons[state.at].tabIndex = -1;
        buttons[next].tabIndex = 0;
        buttons[next].focus({ preventScroll: true });
        reveal(next);
      }
    } else return;
    event.preventDefault();
  });

  chosen.addEventListener("change", () => {
    buttons.forEach((button, k) => {
      const dim = chosen.value !== "" && data.cells[k].class !== Number(chosen.value);
      button.classList.toggle("dim", dim);
      names[k].classList.toggle("dim", dim);
    });
  });

  byId("atlas").hidden = false;
  const fullest = data.cells.reduce((best, cell, k) => (cell.count > data.cells[best].count ? k : best), 0);
  tell(fullest);
  place();
  addEventListener("resize", place);
})();
