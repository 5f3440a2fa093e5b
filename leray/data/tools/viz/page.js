/* One position, `now.frame`, drives everything: slider, clock, plots and, while paused, the videos.
   While playing, the first video that plays is the clock; without one, the time of day is. */

const dataset = JSON.parse($("dataset").textContent);
const fps = dataset.fps;
const ARRAYS = { u1: Uint8Array, f4: Float32Array, f8: Float64Array };
const now = { episode: -1, frame: 0, length: 1, texts: {}, playing: false, speed: 1 };
const start = { frame: 0, ms: 0 };

function decode(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const padded = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${padded(m)}:${padded(s)}` : `${m}:${padded(s)} min`;
}

class Camera {
  constructor({ name, shape }) {
    this.figure = make("figure", $("cameras"));
    this.video = make("video", this.figure);
    Object.assign(this.video, { muted: true, playsInline: true, preload: "auto" });
    [this.video.height, this.video.width] = shape;
    this.video.setAttribute("aria-label", name);
    make("figcaption", this.figure, "", name.replace(/^observation\.images?\./, ""));
    this.failure = make("p", this.figure, "failure");
    this.video.onerror = () => this.fail();
    this.video.onseeked = () => this.seekAgain();
    this.video.onloadeddata = () => this.seek(now.frame);
    this.wanted = null;
  }

  load(clip) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(new Blob([decode(clip)], { type: "video/mp4" }));
    this.works = true;
    this.failure.textContent = "";
    this.wanted = null;
    this.video.src = this.url;
  }

  fail() {
    this.works = false;
    this.failure.textContent = "This browser cannot play H.264 video.";
  }

  /* The middle of a frame's time, so that rounding never shows its neighbour. While one seek is
     under way only the newest wish is kept. */
  seek(frame) {
    const seconds = (frame + 0.5) / fps;
    this.wanted = this.video.seeking ? seconds : null;
    if (!this.video.seeking && this.video.currentTime !== seconds) this.video.currentTime = seconds;
  }

  seekAgain() {
    if (this.wanted !== null) this.video.currentTime = this.wanted;
    this.wanted = null;
  }

  play() {
    this.video.playbackRate = now.speed;
    this.video.play().catch((error) => {
      if (error.name !== "AbortError") this.fail();
    });
  }

  follow(seconds) {
    const drift = Math.abs(this.video.currentTime - seconds);
    if (drift > Math.max(0.1, 2 / fps) && !this.video.seeking) this.video.currentTime = seconds;
  }
}

const cameras = dataset.cameras.map((camera) => new Camera(camera));
const plots = dataset.plots.map((feature) => new Plot(feature));
let hovered = -1;

function hoverAll(frame) {
  hovered = frame;
  for (const plot of plots) plot.move();
}

/* Show a frame everywhere but in the videos. */
function show(frame) {
  now.frame = frame;
  $("slider").value = frame;
  $("clock").replaceChildren();
  make("b", $("clock"), "", `${(frame / fps).toFixed(2)} s`);
  $("clock").append(` / ${((now.length - 1) / fps).toFixed(2)} s · frame ${frame} / ${now.length - 1}`);
  $("task").replaceChildren();
  for (const [name, changes] of Object.entries(now.texts)) {
    const item = make("span", $("task"));
    if (name !== "task") make("i", item, "", `${name} `);
    item.append(changes.findLast(([from]) => from <= frame)[1]);
  }
  for (const plot of plots) plot.move();
}

function seek(frame) {
  pause();
  show(clamp(frame, 0, now.length - 1));
  for (const camera of cameras) camera.seek(now.frame);
}

function play() {
  if (now.frame >= now.length - 1) seek(0);
  now.playing = true;
  Object.assign(start, { frame: now.frame, ms: performance.now() });
  for (const camera of cameras) camera.play();
  reflectPlaying();
  requestAnimationFrame(tick);
}

function pause() {
  if (!now.playing) return;
  now.playing = false;
  for (const camera of cameras) {
    camera.video.pause();
    camera.seek(now.frame);
  }
  reflectPlaying();
}

function reflectPlaying() {
  document.body.classList.toggle("playing", now.playing);
  $("play").setAttribute("aria-label", now.playing ? "Pause" : "Play");
}

function tick(ms) {
  if (!now.playing) return;
  const leader = cameras.find((camera) => camera.works);
  const elapsed = (Math.max(ms - start.ms, 0) / 1000) * now.speed;
  const seconds = leader ? leader.video.currentTime : (start.frame + 0.5) / fps + elapsed;
  const frame = clamp(Math.floor(seconds * fps + 1e-3), 0, now.length - 1);
  if (frame !== now.frame) show(frame);
  if (leader ? leader.video.ended : seconds * fps >= now.length) return seek(now.length - 1);
  for (const camera of cameras) if (camera !== leader && camera.works) camera.follow(seconds);
  requestAnimationFrame(tick);
}

function pick(position) {
  const wanted = clamp(position, 0, dataset.embedded.length - 1);
  if (wanted === now.episode) return;
  pause();
  const content = JSON.parse($(`episode-${wanted}`).textContent);
  Object.assign(now, { episode: wanted, length: dataset.embedded[wanted].length, texts: content.texts });
  now.frame = 0;
  hovered = -1;
  $("slider").max = now.length - 1;
  plots.forEach((plot, i) => plot.load(content.values[i]));
  cameras.forEach((camera, i) => camera.load(content.clips[i]));
  [...$("episodes").querySelectorAll("button")].forEach((button, i) => {
    button.setAttribute("aria-current", i === wanted);
    if (i === wanted) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  seek(0);
}

function listEpisodes() {
  dataset.embedded.forEach(({ index, length, tasks }, position) => {
    const button = make("button", make("li", $("episodes")));
    button.type = "button";
    const top = make("span", button, "line", `${index}`);
    make("span", top, "length", `${length.toLocaleString("en")} · ${duration(length / fps)}`);
    if (tasks.length) make("div", button, "tasks", tasks.join(" · "));
    button.title = tasks.join("\n");
    button.onclick = () => pick(position);
  });
  for (const note of dataset.notes) make("p", $("notes"), "", note);
}

function describe() {
  $("name").textContent = dataset.name;
  const facts = [
    [dataset.robot ?? "unknown", "robot"],
    [`${fps}`, "fps"],
    [dataset.episodes.toLocaleString("en"), "episodes"],
    [dataset.frames.toLocaleString("en"), "frames"],
    [duration(dataset.frames / fps), "in all"],
    [dataset.version, "format"],
  ];
  for (const [value, name] of facts) {
    const fact = make("div", $("facts"));
    make("dt", fact, "", name);
    make("dd", fact, "", value);
  }
  const about = $("about-body");
  const findings = dataset.findings.length;
  $("about").firstElementChild.textContent = findings ? `About, ${count(findings, "finding")}` : "About";
  if (findings) {
    const list = make("ul", section(about, "Findings"), "findings");
    for (const finding of dataset.findings) make("li", list, "", finding);
  }
  const table = make("table", section(about, "Features"));
  for (const { name, dtype, shape, names } of dataset.features) {
    const row = make("tr", table);
    for (const cell of [name, dtype, shape.join(" × "), (names ?? []).join(", ")]) make("td", row, "", cell);
  }
  const list = make("ul", section(about, `Tasks (${dataset.tasks.length})`));
  for (const task of dataset.tasks) make("li", list, "", task);
}

function section(parent, title) {
  const part = make("section", parent);
  make("h3", part, "", title);
  return part;
}

const KEYS = {
  " ": () => (now.playing ? pause() : play()),
  ArrowLeft: (event) => seek(now.frame - (event.shiftKey ? Math.round(fps) || 1 : 1)),
  ArrowRight: (event) => seek(now.frame + (event.shiftKey ? Math.round(fps) || 1 : 1)),
  ArrowUp: () => pick(now.episode - 1),
  ArrowDown: () => pick(now.episode + 1),
  Home: () => seek(0),
  End: () => seek(now.length - 1),
};

function onKey(event) {
  const isControl = event.target.closest?.("select, button, summary");
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  if (isControl && (event.key === " " || isControl.matches("select"))) return;
  event.preventDefault();
  KEYS[event.key](event);
}

function listen() {
  $("slider").oninput = () => seek(Number($("slider").value));
  $("play").onclick = () => (now.playing ? pause() : play());
  $("back").onclick = () => seek(now.frame - 1);
  $("forward").onclick = () => seek(now.frame + 1);
  $("speed").onchange = () => {
    now.speed = Number($("speed").value);
    Object.assign(start, { frame: now.frame, ms: performance.now() });
    for (const camera of cameras) camera.video.playbackRate = now.speed;
    $("speed").blur();
  };
  /* After a click the space bar belongs to play and pause again; after a key it stays. */
  addEventListener("click", (event) => {
    if (event.detail) event.target.closest("button, summary")?.blur();
  });
  addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").onchange = () => plots.forEach((plot) => plot.draw());
}

$("cameras").hidden = !cameras.length;
document.querySelector("main").classList.toggle("blind", !cameras.length);
document.querySelector("main").classList.toggle("many", cameras.length > 2);
describe();
listEpisodes();
listen();
pick(0);
