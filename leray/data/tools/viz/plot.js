/* A feature as lines over time: a canvas, a cursor that moves above it, and a legend. */

const MARGIN = { left: 56, right: 8, top: 8, bottom: 18 };

function shown(value, decimals) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  const text = Math.abs(value) < 1e15 ? value.toFixed(decimals) : value.toPrecision(8);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/* What fits into the left margin. */
function short(value, decimals) {
  const text = shown(value, decimals);
  return text.length <= 8 ? text : value.toExponential(2).replaceAll("-", "−");
}

/* Hues a golden angle apart: neighbours differ, and no number of series runs out of them. */
function seriesColor(index) {
  const style = getComputedStyle(document.documentElement);
  const light = Number(style.getPropertyValue("--series-light")) + (index % 2 ? 0.04 : -0.04);
  return `oklch(${light} ${style.getPropertyValue("--series-chroma")} ${(255 + index * 137.508) % 360})`;
}

class Plot {
  constructor(feature) {
    this.feature = feature;
    this.hidden = new Set();
    this.lit = -1;
    const single = feature.labels.length === 1;
    this.card = make("article", $("plots"), `plot ${feature.kind} ${single ? "single" : ""}`);
    const title = make("div", this.card, "title");
    make("h3", title, "", feature.name);
    if (!single) {
      const all = make("button", title, "", "all / none");
      all.onclick = () => this.toggleAll();
    }
    this.stage = make("div", this.card, "stage");
    this.canvas = make("canvas", this.stage);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${feature.name} over time`);
    this.cursor = make("div", this.stage, "cursor");
    this.hover = make("div", this.stage, "hover");
    this.hoverText = make("span", this.hover);
    this.legend = make("div", single ? title : this.card, "legend");
    const longest = Math.max(...feature.labels.map((label) => label.length));
    this.legend.style.setProperty("--label", `${Math.min(longest, 40)}ch`);
    this.entries = feature.labels.map((label, index) => this.legendEntry(label, index));
    this.listen();
  }

  legendEntry(label, index) {
    const button = make("button", this.legend);
    button.type = "button";
    button.disabled = this.feature.labels.length === 1;
    button.title = `${label || this.feature.name}: click to hide or show, shift-click to show only this`;
    const swatch = make("span", button, "swatch");
    make("span", button, "label", label);
    const value = make("span", button, "value");
    button.onclick = (event) => {
      const others = [...this.entries.keys()].filter((other) => other !== index);
      if (event.shiftKey) this.hidden = new Set(others);
      else if (!this.hidden.delete(index)) this.hidden.add(index);
      this.draw();
    };
    button.onpointerenter = () => plots.forEach((plot) => plot.light(label));
    button.onpointerleave = () => plots.forEach((plot) => plot.light(null));
    return { button, swatch, value };
  }

  toggleAll() {
    this.hidden = new Set(this.hidden.size ? [] : this.entries.keys());
    this.draw();
  }

  /* Let a label's line stand out; in other plots, where it may mean the same joint, too. */
  light(label) {
    const lit = this.feature.labels.length > 1 ? this.feature.labels.indexOf(label) : -1;
    if (lit === this.lit) return;
    this.lit = lit;
    this.draw();
  }

  listen() {
    const frameAt = (event) => {
      const x = event.clientX - this.stage.getBoundingClientRect().left;
      const part = (x - MARGIN.left) / Math.max(this.width - MARGIN.left - MARGIN.right, 1);
      return clamp(Math.round(part * (now.length - 1)), 0, now.length - 1);
    };
    this.stage.onpointermove = (event) => {
      const frame = frameAt(event);
      hoverAll(frame);
      if (event.buttons & 1) seek(frame);
    };
    this.stage.onpointerdown = (event) => {
      if (event.button !== 0) return;
      this.stage.setPointerCapture(event.pointerId);
      seek(frameAt(event));
    };
    this.stage.onpointerleave = () => hoverAll(-1);
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  load(values) {
    const all = new ARRAYS[values.type](decode(values.data).buffer);
    this.precision = values.type === "f8" ? 1e-12 : 1e-4;
    this.series = this.feature.labels.map((_, i) => all.subarray(i * now.length, (i + 1) * now.length));
    this.ranges = this.series.map((series) => {
      let [low, high] = [Infinity, -Infinity];
      for (const value of series) {
        if (!Number.isFinite(value)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
      return [low, high];
    });
    this.draw();
  }

  /* The range of what is visible, with room around it; lines that never move stay flat. */
  range() {
    if (this.feature.kind === "bool") return [-0.15, 1.15];
    const visible = this.ranges.filter((_, i) => !this.hidden.has(i));
    let low = Math.min(...visible.map((range) => range[0]));
    let high = Math.max(...visible.map((range) => range[1]));
    if (low > high) return [0, 1];
    const scale = Math.max(Math.abs(low), Math.abs(high));
    const least = Math.max(scale * this.precision, this.feature.kind === "int" ? 1 : 0) || 1;
    const room = high - low < least ? least : (high - low) * 0.06;
    return [low - room, high + room];
  }

  x(frame) {
    const span = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + (span * frame) / Math.max(now.length - 1, 1);
  }

  draw() {
    if (!this.series || !this.stage.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    this.width = this.stage.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const [low, high] = this.range();
    const room = this.height - MARGIN.top - MARGIN.bottom;
    const y = (value) => MARGIN.top + (room * (high - value)) / (high - low);
    this.drawGrid(context, low, high, y);
    this.entries.forEach(({ button, swatch }, index) => {
      const color = seriesColor(index);
      const visible = !this.hidden.has(index);
      swatch.style.background = color;
      button.setAttribute("aria-pressed", visible);
      if (!visible) return;
      context.strokeStyle = color;
      context.globalAlpha = this.lit < 0 || this.lit === index ? 1 : 0.18;
      context.lineWidth = this.lit === index ? 2.2 : 1.4;
      this.drawSeries(context, this.series[index], y);
    });
    this.move();
  }

  drawGrid(context, low, high, y) {
    const style = getComputedStyle(document.documentElement);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = style.getPropertyValue("--soft");
    context.strokeStyle = style.getPropertyValue("--grid");
    context.lineWidth = 1;
    const [left, right, bottom] = [MARGIN.left, this.width - MARGIN.right, this.height - MARGIN.bottom];
    const { kind } = this.feature;
    const isBool = kind === "bool";
    const rows = isBool
      ? { values: [0, 1], decimals: 0 }
      : ticks(low, high, (bottom - MARGIN.top) / 28, kind === "int" ? 1 : 0);
    this.decimals = kind === "float" ? Math.min(rows.decimals + 3, 9) : 0;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of rows.values) {
      line(context, left, y(value), right, y(value));
      context.fillText(isBool ? ["no", "yes"][value] : short(value, rows.decimals), left - 8, y(value));
    }
    const end = (now.length - 1) / fps;
    const columns = end > 0 ? ticks(0, end, (right - left) / 90) : { values: [0], decimals: 0 };
    context.textBaseline = "alphabetic";
    for (const value of columns.values) {
      const x = this.x(value * fps);
      line(context, x, MARGIN.top, x, bottom);
      context.textAlign = x > right - 16 ? "right" : "center";
      context.fillText(`${value.toFixed(columns.decimals)} s`, x, this.height - 3);
    }
  }

  /* One vertical stroke from least to greatest per pixel column where points are denser than pixels. */
  drawSeries(context, series, y) {
    const length = now.length;
    const span = Math.max(this.width - MARGIN.left - MARGIN.right, 1);
    const columns = Math.min(length, Math.ceil(span * (window.devicePixelRatio || 1)));
    let drawing = false;
    context.beginPath();
    for (let column = 0; column < columns; column++) {
      const first = Math.floor((column * length) / columns);
      const last = Math.floor(((column + 1) * length) / columns);
      let [least, greatest] = [-1, -1];
      for (let i = first; i < last; i++) {
        if (!Number.isFinite(series[i])) continue;
        if (least < 0 || series[i] < series[least]) least = i;
        if (greatest < 0 || series[i] > series[greatest]) greatest = i;
      }
      if (least < 0) {
        drawing = false;
        continue;
      }
      for (const i of least === greatest ? [least] : [Math.min(least, greatest), Math.max(least, greatest)]) {
        if (drawing) context.lineTo(this.x(i), y(series[i]));
        else context.moveTo(this.x(i) - 0.5, y(series[i]));
        if (!drawing) context.lineTo(this.x(i) + 0.5, y(series[i]));
        drawing = true;
      }
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  move() {
    this.cursor.style.transform = `translateX(${this.x(now.frame)}px)`;
    this.hover.hidden = hovered < 0;
    if (hovered >= 0) {
      const x = this.x(hovered);
      this.hover.style.transform = `translateX(${x}px)`;
      this.hover.classList.toggle("left", x > this.width - 120);
      this.hoverText.textContent = `${(hovered / fps).toFixed(2)} s · ${hovered}`;
    }
    const frame = hovered >= 0 ? hovered : now.frame;
    this.entries.forEach(({ value }, index) => {
      const number = this.series[index][frame];
      const isBool = this.feature.kind === "bool";
      value.textContent = isBool ? (number ? "yes" : "no") : shown(number, this.decimals);
    });
  }
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
