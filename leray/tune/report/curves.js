/* Lines of trials that light up together, and the two simpler plots: curves and bars. */

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, parent, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

/* Call when an element is first shown and whenever its width changes. */
function onWidth(element, call) {
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (!element.clientWidth || element.clientWidth === width) return;
    width = element.clientWidth;
    call();
  });
  observer.observe(element);
}

/* A line per trial, the best drawn last. A wide unseen line under each makes it easy to point at;
   the trial that is lit or picked is drawn once more, above all others. */
class LineSet {
  constructor(root, path) {
    const drawn = trials.map((trial) => ({ trial, d: path(trial) })).filter(({ d }) => d);
    const [hits, lines] = [shape("g", root, { class: "hits" }), shape("g", root, { class: "lines" })];
    lines.classList.toggle("many", drawn.length > 60);
    this.entries = drawn.reverse().map(({ trial, d }) => {
      const hit = shape("path", hits, { d });
      const line = shape("path", lines, { d });
      paint(line, trial);
      hit.onpointermove = (event) => this.onHover(trial, event);
      hit.onpointerleave = () => light(null);
      hit.onclick = () => pick(trial);
      return { trial, d, hit, line };
    });
    this.above = shape("g", root, { class: "above" });
  }

  reflect() {
    const one = marked();
    this.above.replaceChildren();
    for (const { trial, d, hit, line } of this.entries) {
      line.classList.toggle("out", trial.out);
      line.classList.toggle("behind", one !== null && one !== trial);
      hit.classList.toggle("out", trial.out);
      if (trial !== one) continue;
      shape("path", this.above, { class: "halo", d });
      paint(shape("path", this.above, { d }), trial);
    }
  }
}

const FRAME = { left: 64, right: 14, top: 10, bottom: 30, height: 300 };

class Curves {
  constructor(section) {
    this.stage = section.querySelector(".stage");
    const points = trials.flatMap((trial) => trial.history).filter(([, value]) => value !== null);
    section.hidden = !points.length;
    const steps = trials.flatMap((trial) => trial.history).map(([step]) => step);
    const values = points.map(([, value]) => value);
    this.last = extreme(Math.max, steps, 0) || 1;
    const [low, high] = [extreme(Math.min, values, 0), extreme(Math.max, values, 1)];
    const room = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
    this.range = [low - room, high + room];
    onWidth(this.stage, () => this.draw());
  }

  x(step) {
    return FRAME.left + ((this.width - FRAME.left - FRAME.right) * step) / this.last;
  }

  y(value) {
    const [low, high] = this.range;
    return FRAME.top + ((FRAME.height - FRAME.top - FRAME.bottom) * (high - value)) / (high - low);
  }

  draw() {
    this.width = this.stage.clientWidth;
    this.stage.replaceChildren();
    const root = shape("svg", this.stage, { width: this.width, height: FRAME.height });
    root.setAttribute("role", "img");
    root.setAttribute("aria-label", `${sweep.metric} over steps`);
    this.drawGrid(root);
    this.lines = new LineSet(root, (trial) => this.path(trial));
    this.lines.onHover = (trial, event) => light(trial, event, this.nearest(trial, event));
    this.reflect();
  }

  drawGrid(root) {
    const group = shape("g", root, { class: "grid" });
    const [right, bottom] = [this.width - FRAME.right, FRAME.height - FRAME.bottom];
    for (const value of ticks(...this.range, 6).values) {
      const y = this.y(value);
      shape("line", group, { x1: FRAME.left, x2: right, y1: y, y2: y });
      const text = shape("text", group, { class: "mark", x: FRAME.left - 8, y: y + 4 });
      text.textContent = brief(Number(value.toPrecision(12)));
    }
    for (const step of ticks(0, this.last, (right - FRAME.left) / 110, 1).values) {
      const x = this.x(step);
      shape("line", group, { x1: x, x2: x, y1: FRAME.top, y2: bottom });
      const text = shape("text", group, { class: "name", x, y: bottom + 18 });
      text.textContent = step.toLocaleString("en");
      if (x > right - 20) text.classList.add("mark");
    }
  }

  /* A stroke from report to report, broken where one has no value; a report alone is a dot. */
  path(trial) {
    let path = "";
    trial.history.forEach(([step, value], i) => {
      if (value === null) return;
      const isFirst = i === 0 || trial.history[i - 1][1] === null;
      path += `${isFirst ? "M" : "L"}${this.x(step).toFixed(1)},${this.y(value).toFixed(1)}`;
      if (isFirst) path += "h0.1";
    });
    return path;
  }

  nearest(trial, event) {
    const x = event.clientX - this.stage.getBoundingClientRect().x;
    const points = trial.history.filter(([, value]) => value !== null);
    const gap = ([step]) => Math.abs(this.x(step) - x);
    return points.reduce((one, other) => (gap(other) < gap(one) ? other : one));
  }

  reflect() {
    this.lines?.reflect();
  }
}

const extreme = (choose, values, otherwise) => values.reduce((a, b) => choose(a, b), values[0] ?? otherwise);

function drawImportance(parent) {
  if (!sweep.importance.length) {
    make("p", parent, "hint", "Known once at least four trials have ended with different values.");
    return;
  }
  for (const [name, share] of sweep.importance) {
    const row = make("div", parent, "bar");
    make("span", row, "key", sweep.labels[name] ?? name).title = name;
    const track = make("span", row, "track");
    make("span", track, "fill").style.width = `${(share * 100).toFixed(2)}%`;
    make("span", row, "share", `${(share * 100).toFixed(share < 0.0995 && share >= 0.0005 ? 1 : 0)} %`);
  }
}
