/* One state drives all views: `trial.out` (a brush leaves it out), the lit and the picked trial. */

const sweep = JSON.parse($("sweep").textContent);
const trials = sweep.trials;
const byId = new Map(trials.map((trial) => [trial.id, trial]));
const state = { lit: null, picked: null };
const marked = () => state.lit ?? state.picked;

/* How good a trial is, from 0 to 1, and its place from 0, the best, to 1. What is far worse than most counts as 0, so that one trial
   that failed to learn does not make all others look alike. */
function rate() {
  const sign = sweep.mode === "max" ? 1 : -1;
  const values = trials.filter((t) => t.best !== null).map((t) => sign * t.best);
  values.sort((a, b) => a - b);
  const quantile = (part) => values[Math.round(part * (values.length - 1))];
  const fence = quantile(0.25) - 1.5 * (quantile(0.75) - quantile(0.25));
  const low = values.find((value) => value >= fence);
  const high = values.at(-1);
  for (const [index, trial] of trials.entries()) {
    const value = sign * trial.best;
    trial.order = index / Math.max(trials.length - 1, 1);
    if (trial.best === null) trial.rating = null;
    else trial.rating = high > low ? clamp((value - low) / (high - low), 0, 1) : 1;
    trial.out = false;
  }
  return [sign * low, sign * high];
}

function colour({ rating }) {
  if (rating === null) return "var(--none)";
  return `color-mix(in oklab, var(--good) ${(rating * 100).toFixed(1)}%, var(--poor))`;
}

function paint(path, trial) {
  path.style.stroke = colour(trial);
  if (trial.rating === null) path.classList.add("unrated");
}

function duration(seconds) {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return `${h}:${String(m).padStart(2, "0")}:${String(s).padStart(2, "0")}`;
}

/* Let a trial stand out everywhere, or none; with a point, tell that one of its reports. */
function light(trial, event = null, point = null) {
  showTip(trial, event, point);
  if (state.lit === trial) return;
  state.lit = trial;
  reflect();
}

function pick(trial) {
  state.picked = state.picked === trial ? null : trial;
  describePicked();
  reflect();
}

function filter() {
  for (const trial of trials) trial.out = !parallel.keeps(trial);
  reflect();
}

function reflect() {
  const kept = trials.filter((trial) => !trial.out).length;
  $("clear").hidden = !parallel.isBrushed;
  $("matching").textContent = parallel.isBrushed ? `${kept} of ${count(trials.length, "trial")}` : "";
  for (const { row, element } of table.lines) {
    element.hidden = row.out;
    element.classList.toggle("lit", row === state.lit);
    element.classList.toggle("picked", row === state.picked);
  }
  for (const { row, element } of repeats?.lines ?? []) {
    element.hidden = row.ids.every((id) => byId.get(id).out);
    element.classList.toggle("lit", row.ids.includes(state.lit?.id));
  }
  parallel.reflect();
  curves.reflect();
}

function showTip(trial, event, point) {
  const tip = $("tip");
  tip.hidden = trial === null || event === null;
  if (tip.hidden) return;
  const value = point ? `step ${point[0].toLocaleString("en")}: ${brief(point[1])}` : said(trial.best) ?? "no value";
  tip.textContent = `${trial.id} · ${value}`;
  const width = tip.offsetWidth;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
  tip.style.top = `${event.clientY + 16}px`;
}

function describePicked() {
  const trial = state.picked;
  $("picked").hidden = trial === null;
  if (trial === null) return;
  $("picked-title").textContent = `Trial ${trial.id}`;
  $("picked-values").replaceChildren();
  const entries = [...Object.entries(trial.values), ...Object.entries(trial.metrics)];
  if (trial.run) entries.push(["run", trial.run]);
  for (const [name, value] of entries) {
    const item = make("div", $("picked-values"));
    make("dt", item, "", name);
    make("dd", item, "", String(value));
  }
  $("picked-error").textContent = trial.error;
}

function keyColumns() {
  return sweep.keys.map(({ name, label, kind }) => ({
    label,
    title: name,
    numeric: kind === "number",
    get: (row) => row.values[name],
    show: said,
  }));
}

function trialTable() {
  const ranks = new Map(trials.filter((t) => t.best !== null).map((trial, i) => [trial, i + 1]));
  const idCell = (cell, trial) => {
    cell.textContent = "";
    const button = make("button", cell, "id", trial.id);
    button.type = "button";
    button.onclick = () => pick(trial);
  };
  const valueCell = (cell, trial) => {
    const dot = make("i", null, "dot");
    dot.style.background = colour(trial);
    cell.prepend(dot);
  };
  const whole = (value) => value.toLocaleString("en");
  const columns = [
    { label: "rank", numeric: true, get: (t) => ranks.get(t), show: String },
    { label: "trial", get: (t) => t.id, show: String, decorate: idCell },
    { label: "status", get: (t) => t.status, show: String, decorate: (c, t) => c.classList.add(`is-${t.status}`) },
    { label: sweep.metric, numeric: true, get: (t) => t.best, show: brief, decorate: valueCell },
    { label: "best at", title: "step of the best value", numeric: true, get: (t) => t.bestStep, show: whole },
    { label: "step", numeric: true, get: (t) => t.step, show: whole },
    ...keyColumns(),
    { label: "time", title: "hours:minutes:seconds", numeric: true, get: (t) => t.duration, show: duration },
  ];
  if (trials.some((trial) => trial.error)) {
    const errorCell = (cell) => cell.classList.add("error");
    columns.push({ label: "error", get: (t) => t.error || null, show: String, decorate: errorCell });
  }
  const made = new SortableTable($("trials").querySelector(".scroll"), columns, trials);
  for (const { row, element } of made.lines) {
    element.onpointerenter = () => light(row);
    element.onpointerleave = () => light(null);
  }
  return made;
}

function repeatsTable() {
  if (!sweep.repeats.length) return null;
  $("repeats").hidden = false;
  const ranks = new Map(sweep.repeats.filter((r) => r.mean !== null).map((row, i) => [row, i + 1]));
  const columns = [
    { label: "rank", numeric: true, get: (r) => ranks.get(r), show: String },
    { label: sweep.metric, title: `mean of ${sweep.metric}`, numeric: true, get: (r) => r.mean, show: brief },
    { label: "std", title: "sample standard deviation", numeric: true, get: (r) => r.std, show: brief },
    { label: "repeats", numeric: true, get: (r) => r.number, show: String },
    ...keyColumns().filter(({ title }) => sweep.repeats.some((row) => title in row.values)),
  ];
  return new SortableTable($("repeats").querySelector(".scroll"), columns, sweep.repeats);
}

function describe([worst, best]) {
  $("name").textContent = sweep.title;
  $("curves-title").textContent = `${sweep.metric} over steps`;
  const facts = [[String(trials.length), trials.length === 1 ? "trial" : "trials"]];
  for (const status of ["finished", "stopped", "failed", "running", "pending"]) {
    const number = trials.filter((trial) => trial.status === status).length;
    if (number) facts.push([String(number), status]);
  }
  if (trials[0]?.best !== undefined && trials[0]?.best !== null) {
    facts.push([brief(trials[0].best), `best ${sweep.metric} (${sweep.mode}), trial ${trials[0].id}`]);
    $("worst").textContent = brief(worst);
    $("best").textContent = brief(best);
  } else $("scale").hidden = true;
  for (const [name, value] of sweep.fixed) facts.push([value, `${name}, the same in all`]);
  for (const [value, name] of facts) {
    const fact = make("div", $("facts"));
    make("dt", fact, "", name);
    make("dd", fact, "", value);
  }
}

const bounds = rate();
const parallel = new Parallel($("parallel"));
const curves = new Curves($("curves"));
const table = trialTable();
const repeats = repeatsTable();
describe(bounds);
drawImportance($("bars"));
$("clear").onclick = () => parallel.clear();
$("drop").onclick = () => pick(state.picked);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (state.picked) pick(state.picked);
  else if (parallel.isBrushed) parallel.clear();
});
reflect();
