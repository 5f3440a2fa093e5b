/* Parallel coordinates: an axis per swept key and one for the metric, a line per trial. */

const AXES = { top: 62, height: 250, side: 64, apart: 96, missing: 34, bottom: 20, reach: 14 };

/* One axis: where on it a trial is. Trials without a value are below its lower end. */
class Axis {
  constructor({ name, label, kind, log, categories }, get) {
    Object.assign(this, { name, label, log, categories, get });
    const values = trials.map(get).filter((value) => !isMissing(value));
    this.values = values;
    this.lacks = values.length < trials.length;
    this.brush = null;
    this.range = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    if (this.range[0] === this.range[1]) this.range = [this.range[0] - 1, this.range[1] + 1];
    this.few = categories ?? this.listed();
    this.room = this.few ? Math.min(9, (0.35 * AXES.height) / this.few.length) : 0;
  }

  /* From 0 at the lower end to 1 at the upper one. */
  part(value) {
    if (this.categories) {
      const last = this.categories.length - 1;
      return last ? this.categories.indexOf(value) / last : 0.5;
    }
    const [low, high] = this.range;
    if (this.log) return Math.log(value / low) / Math.log(high / low);
    return (value - low) / (high - low);
  }

  /* The values themselves where they are few, come again and again and have room for labels. */
  listed() {
    const few = [...new Set(this.values)].sort((a, b) => a - b);
    if (few.length < 2 || few.length > 8 || few.length === this.values.length) return null;
    const gaps = few.slice(1).map((value, i) => this.part(value) - this.part(few[i]));
    return gaps.every((gap) => gap * AXES.height >= 14) ? few : null;
  }

  place(value) {
    if (isMissing(value)) return AXES.top + AXES.height + AXES.missing;
    return AXES.top + AXES.height * (1 - this.part(value));
  }

  /* Trials that share a value lie side by side, the best on top, instead of on one another. */
  y(trial) {
    const value = this.get(trial);
    const room = isMissing(value) ? 5 : this.room;
    return this.place(value) + room * (2 * trial.order - 1);
  }

  keeps(trial) {
    const y = this.y(trial);
    return !this.brush || (y >= this.brush[0] - 0.5 && y <= this.brush[1] + 0.5);
  }

  /* Values to label, with their texts. */
  marks() {
    if (this.categories) {
      const step = Math.ceil(this.categories.length / 14);
      return this.categories.filter((_, i) => i % step === 0).map((text) => [text, clip(text, 14)]);
    }
    const [low, high] = this.range;
    const values = this.few ?? (this.log ? powers(low, high) : ticks(low, high, 5).values);
    return values.map((value) => [value, brief(Number(value.toPrecision(12)))]);
  }
}

/* Characters of an axis' name that its neighbours, or the edge of the plot, leave room for. */
function nameLength(spacing, isEdge, isStaggered) {
  const room = isStaggered ? 2 * spacing : spacing;
  return Math.max(Math.floor((isEdge ? Math.min(room, 2 * AXES.side) : room) / 7.5), 10);
}

const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/* Round numbers on a logarithmic axis: 1, 2 and 5 of every power of ten, fewer over many powers. */
function powers(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const apart = Math.ceil((last - first) / 8);
  const factors = last - first > 3 ? [1] : [1, 2, 5];
  const values = [];
  for (let power = first; power <= last; power++) {
    if ((power - first) % apart) continue;
    values.push(...factors.map((factor) => Number(`${factor}e${power}`)));
  }
  const inside = values.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  return inside.length > 1 ? inside : [low, high];
}

class Parallel {
  constructor(section) {
    this.stage = section.querySelector(".stage");
    const keys = sweep.keys.map((key) => new Axis(key, (trial) => trial.values[key.name]));
    const metric = { name: "", label: sweep.metric, kind: "number" };
    this.axes = [...keys, new Axis(metric, (trial) => trial.best)];
    const lacks = this.axes.some((axis) => axis.lacks);
    this.height = AXES.top + AXES.height + (lacks ? AXES.missing : 0) + AXES.bottom;
    onWidth(this.stage, () => this.draw());
  }

  keeps(trial) {
    return this.axes.every((axis) => axis.keeps(trial));
  }

  get isBrushed() {
    return this.axes.some((axis) => axis.brush);
  }

  clear() {
    for (const axis of this.axes) axis.brush = null;
    this.draw();
    filter();
  }

  x(index) {
    return AXES.side + (index * (this.width - 2 * AXES.side)) / Math.max(this.axes.length - 1, 1);
  }

  draw() {
    const least = 2 * AXES.side + (this.axes.length - 1) * AXES.apart;
    this.width = Math.max(this.stage.clientWidth, least);
    this.stage.replaceChildren();
    const root = shape("svg", this.stage, { width: this.width, height: this.height });
    root.setAttribute("role", "img");
    root.setAttribute("aria-label", "Parallel coordinates of all trials");
    this.lines = new LineSet(root, (trial) => this.path(trial));
    this.lines.onHover = (trial, event) => light(trial, event);
    this.axes.forEach((axis, index) => this.drawAxis(root, axis, index));
    this.reflect();
  }

  path(trial) {
    const points = this.axes.map((axis, i) => `${this.x(i).toFixed(1)},${axis.y(trial).toFixed(1)}`);
    return `M${points.join("L")}`;
  }

  drawAxis(root, axis, index) {
    const group = shape("g", root, { class: "axis" });
    group.setAttribute("transform", `translate(${this.x(index)} 0)`);
    shape("line", group, { y1: AXES.top, y2: AXES.top + AXES.height });
    const marks = axis.marks();
    if (axis.lacks) marks.push([null, "none"]);
    for (const [value, text] of marks) {
      const y = axis.place(value);
      shape("line", group, { x1: -4, x2: 4, y1: y, y2: y });
      shape("text", group, { class: "mark", x: -8, y: y + 4 }).textContent = text;
    }
    const spacing = (this.width - 2 * AXES.side) / Math.max(this.axes.length - 1, 1);
    const isStaggered = spacing < 150;
    const length = nameLength(spacing, index % (this.axes.length - 1) === 0, isStaggered);
    const name = shape("text", group, { class: "name", y: isStaggered && index % 2 ? 18 : 38 });
    name.textContent = clip(axis.label, length);
    shape("title", name).textContent = axis.name || axis.label;
    this.brushOn(group, axis);
  }

  brushOn(group, axis) {
    const end = AXES.top + AXES.height + (axis.lacks ? AXES.missing : 0);
    const [x, width] = [-12, 24];
    const mark = shape("rect", group, { class: "brush", x, width, rx: 3 });
    const area = shape("rect", group, { class: "grip", x, width, y: AXES.top - AXES.reach });
    area.setAttribute("height", end - AXES.top + 2 * AXES.reach);
    const show = () => {
      const [from, to] = axis.brush ?? [0, 0];
      mark.setAttribute("y", from);
      mark.setAttribute("height", to - from);
    };
    const at = (event) => {
      const y = event.clientY - this.stage.getBoundingClientRect().y;
      return clamp(y, AXES.top - AXES.reach, end + AXES.reach);
    };
    let start = null;
    area.onpointerdown = (event) => {
      if (event.button !== 0) return;
      area.setPointerCapture(event.pointerId);
      start = at(event);
    };
    const drag = (event) => {
      if (start === null) return;
      const now = at(event);
      axis.brush = Math.abs(now - start) < 4 ? null : [Math.min(start, now), Math.max(start, now)];
      show();
      filter();
    };
    area.onpointermove = drag;
    area.onpointerup = (event) => {
      drag(event);
      start = null;
    };
    area.onpointercancel = () => {
      start = null;
    };
    show();
  }

  reflect() {
    this.lines?.reflect();
  }
}
